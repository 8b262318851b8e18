"""BigGAN networks in pickles: these are our own classes alone, which keep all of their arguments."""
from typing import Any

from torch_utils.checkpoint import ModuleRecord


def reads(record: ModuleRecord) -> bool:
    """Whether a record is of this family."""
    return record.class_name in ("BigGANGenerator", "BigGANDiscriminator")


def generator_arguments(record: ModuleRecord) -> dict[str, Any]:
    """The constructor arguments of a recorded generator or discriminator.

    Raises:
        CheckpointError: the record holds none.
    """
    return {**record.value("options", dict), "skip_init": True}


discriminator_arguments = generator_arguments
