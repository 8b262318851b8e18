"""A third family of networks, added from outside: a row of the registry, networks, options, a reader, slicing rules."""
from dgl import architectures as slicing
from training import architectures

ROW = architectures.Architecture(
    name="toy",
    generator="tests.toy_family.networks.ToyGenerator",
    discriminator="tests.toy_family.networks.ToyDiscriminator",
    presets=("toy",),
    options="tests.toy_family.options",
    reader="tests.toy_family.reader",
    running_buffers=("mean_z",),
)


def register() -> None:
    """Adds the family to the registries, once per process."""
    if ROW.name not in [row.name for row in architectures.rows()]:
        architectures.register(ROW)
        slicing.register(ROW.name, "tests.toy_family.slicing")
