"""Constructor arguments of toy networks, from the records of a pickle."""
from typing import Any

from torch_utils.checkpoint import ModuleRecord


def reads(record: ModuleRecord) -> bool:
    """Whether a record is of this family."""
    return record.class_name.startswith("Toy")


def discriminator_arguments(record: ModuleRecord) -> dict[str, Any]:
    """The constructor arguments of a recorded discriminator."""
    sizes = {name: record.value(name, int) for name in ("c_dim", "img_resolution", "img_channels")}
    return {**sizes, "width": record.child("hidden").tensor("weight").shape[0]}


def generator_arguments(record: ModuleRecord) -> dict[str, Any]:
    """The constructor arguments of a recorded generator."""
    return {**discriminator_arguments(record), "z_dim": record.value("z_dim", int)}
