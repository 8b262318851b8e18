"""The registry of architectures: one row per family of networks. Nothing else knows which families there are.

A row names modules and classes by their dotted names, so that none is imported before it is needed. Another package
adds a family with `register`, and its own presets for a known family with `register_preset`.
"""
import dataclasses
import importlib
import os
from types import ModuleType
from typing import TYPE_CHECKING

from dnnlib.errors import UserError
from dnnlib.installed import actual_name, plain_name
from dnnlib.registry import Registry

if TYPE_CHECKING:
    import torch

NETWORKS = Registry("network class")  # what G_kwargs and D_kwargs may name


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One family.

    Attributes:
        name: of the family.
        generator: dotted name of the generator's class.
        discriminator: dotted name of the discriminator's class; one of an earlier row belongs to that.
        presets: values of `cfg` that train it.
        options: module with `add(command)`, `OPTION_NAMES`, `check(opts, given)` and `training_config(opts, data)`,
            which returns a `training.run_config.RunConfig`.
        reader: module with `reads(record)`, `generator_arguments(record)` and `discriminator_arguments(record)`, which
            derive constructor arguments from the record of a pickle; optionally with `half_precision(role, network)`.
        files: module with `network_files(path)`, `opened(path)`, `load_networks(path, files=)` and
            `save_checkpoint(folder, networks)` for checkpoints that are no pickles; None if there are none.
        file_endings: endings of such files; a folder is always one.
        alignment: module with `of_network(network)` and `at_resolution(network, resolution)`, for networks that can
            start from ones for other images and labels (`training.checkpoints.alignment`); None if they cannot.
        running_buffers: endings of the names of G's buffers that every rank estimates from its own samples, and that
            are therefore averaged over the ranks.
    """

    name: str
    generator: str
    discriminator: str
    presets: tuple[str, ...]
    options: str
    reader: str
    files: str | None = None
    file_endings: tuple[str, ...] = ()
    alignment: str | None = None
    running_buffers: tuple[str, ...] = ()

    def module(self, role: str) -> ModuleType:
        """The module that the row names as its `options`, `reader`, `files` or `alignment`."""
        return importlib.import_module(actual_name(getattr(self, role)))


_ROWS: dict[str, Architecture] = {}
_PRESETS: dict[str, str] = {}  # preset → family


def register(row: Architecture) -> None:
    """Adds a family.

    Raises:
        ValueError: one of that name, or one of its presets, is there already.
    """
    if row.name in _ROWS:
        raise ValueError(f"architecture {row.name!r} is registered already")
    _ROWS[row.name] = row
    for dotted in (row.generator, row.discriminator):
        NETWORKS.register(dotted, dotted)
    for preset in row.presets:
        register_preset(preset, row.name)


def register_preset(preset: str, family: str) -> None:
    """Makes `cfg=preset` train networks of a family.

    Raises:
        ValueError: the preset is there already.
    """
    if preset in _PRESETS:
        raise ValueError(f"preset {preset!r} is registered already")
    _PRESETS[preset] = family


def rows() -> list[Architecture]:
    """All families."""
    return list(_ROWS.values())


def preset_names() -> list[str]:
    """All values of `cfg`."""
    return list(_PRESETS)


def of_preset(preset: str) -> Architecture:
    """The family that a preset trains.

    Raises:
        UserError: there is no such preset.
    """
    if preset not in _PRESETS:
        raise UserError(f"unknown preset {preset!r}; known: {', '.join(_PRESETS)}", field="cfg")
    return _ROWS[_PRESETS[preset]]


def class_path(network: object) -> str:
    """The dotted name of a network's class."""
    return f"{plain_name(type(network).__module__)}.{type(network).__name__}"


def find(network: object) -> Architecture | None:
    """The family of a network (generator or discriminator); None for a class that no family has."""
    for cls in type(network).__mro__:
        dotted = f"{plain_name(cls.__module__)}.{cls.__name__}"
        for row in _ROWS.values():
            if dotted in (row.generator, row.discriminator):
                return row
    return None


def of_network(network: object) -> Architecture:
    """The family of a network (generator or discriminator).

    Raises:
        UserError: no family has this class.
    """
    row = find(network)
    if row is None:
        known = ", ".join(name for row in _ROWS.values() for name in (row.generator, row.discriminator))
        raise UserError(f"networks of class {type(network).__name__} are not known here; known: {known}")
    return row


def running_buffers(network: "torch.nn.Module") -> list["torch.Tensor"]:
    """A network's buffers [...] that every rank has estimated from its own samples (`Architecture.running_buffers`)."""
    endings = of_network(network).running_buffers
    return [buffer for name, buffer in network.named_buffers() if name.endswith(endings)]


def of_path(path: str | os.PathLike) -> Architecture | None:
    """The family whose checkpoint a folder, FOLDER:SUFFIX or file is by its kind; None for everything else."""
    text = os.fspath(path)
    is_folder = os.path.isdir(text) or os.path.isdir(text.rpartition(":")[0])
    for row in _ROWS.values():
        if row.files is not None and (is_folder or text.endswith(row.file_endings)):
            return row
    return None


register(Architecture(
    name="stylegan2",
    generator="training.networks.Generator",
    discriminator="training.networks.Discriminator",
    presets=("auto", "stylegan2", "paper256", "paper512", "paper1024", "cifar"),
    options="training.options",
    reader="training.checkpoints.stylegan2",
    alignment="training.checkpoints.stylegan2_alignment",
    running_buffers=("w_avg",),
))
register(Architecture(
    name="biggan",
    generator="training.networks_biggan.BigGANGenerator",
    discriminator="training.networks_biggan.BigGANDiscriminator",
    presets=("biggan",),
    options="training.biggan.options",
    reader="training.biggan.records",
    files="training.biggan.checkpoints",
    file_endings=(".pth",),
    running_buffers=("stored_mean", "stored_var"),
))
register(Architecture(
    name="stylegan3",
    generator="training.networks_stylegan3.Generator",
    discriminator="training.networks.Discriminator",
    presets=("stylegan3-t", "stylegan3-r"),
    options="training.stylegan3.options",
    reader="training.stylegan3.records",
    alignment="training.stylegan3.alignment",
    running_buffers=("w_avg", "magnitude_ema"),
))
