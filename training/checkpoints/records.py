"""Records of foreign network pickles → our networks.

Constructor arguments are derived from what the file's objects hold (attributes and tensor shapes), never from defaults:
the descendants of StyleGAN2-ADA differ in those. Afterwards every recorded attribute is compared with ours.
"""
import math
import reprlib
from typing import Any

import numpy as np
import torch

from dnnlib.objects import get_obj_by_name
from torch_utils.checkpoint import CheckpointError, ModuleRecord

from .. import architectures
from ..augment import AugmentPipe
from .rebuilding import rebuild

_DESCENDANTS = {  # class → code base, of networks that other classes here could be taken for
    "SuperresGenerator": "StyleGAN-XL", "ProjectedDiscriminator": "Projected GAN or StyleGAN-XL",
    "TriPlaneGenerator": "EG3D", "DualDiscriminator": "EG3D",
}
_PLAIN = (bool, int, float, str, list, type(None))


def build(record: ModuleRecord) -> torch.nn.Module:
    """Rebuilds one recorded network with our classes, all tensors copied.

    Raises:
        CheckpointError: no family has the class, or the record does not fit; the message names the difference.
    """
    cls, arguments = _class_and_arguments(record)
    module = rebuild(cls, arguments, record.tensors())
    _compare(record, module)
    return module.train(record.state.get("training") is True)


def _class_and_arguments(record: ModuleRecord) -> tuple[Any, dict[str, Any]]:
    """Our class for a record, and the arguments of its constructor."""
    if record.class_name == AugmentPipe.__name__:
        return AugmentPipe, _augment_pipe_arguments(record)
    for row in architectures.rows():
        reader = row.module("reader")
        if not reader.reads(record):
            continue
        for dotted, derive in ((row.generator, reader.generator_arguments),
                               (row.discriminator, reader.discriminator_arguments)):
            if dotted.rpartition(".")[2] == record.class_name:
                return get_obj_by_name(dotted), derive(record)
    if record.class_name in _DESCENDANTS:
        raise CheckpointError(f"{record.class_name!r} is of {_DESCENDANTS[record.class_name]}, whose networks have "
                              "another architecture and cannot be read here")
    known = [name.rpartition(".")[2] for row in architectures.rows() for name in (row.generator, row.discriminator)]
    known = list(dict.fromkeys([*known, AugmentPipe.__name__]))
    raise CheckpointError(f"unknown network class {record.class_name!r}; known: {', '.join(known)}. "
                          "Pass `trust_pickle=True` to load it with the program text that the file contains, if that "
                          "imports nothing but what is here")


def _augment_pipe_arguments(record: ModuleRecord) -> dict[str, Any]:
    arguments = {key: record.value(key, int, float, list) for key in record.state
                 if not key.startswith("_") and key != "training"}
    bands = arguments.get("imgfilter_bands")
    if not isinstance(bands, list) or not all(type(band) in (int, float) for band in bands):
        raise CheckpointError(f"imgfilter_bands: expected a list of numbers, found {reprlib.repr(bands)}")
    return arguments


def _compare(record: ModuleRecord, module: torch.nn.Module) -> None:
    """Class names, and every plain number, string or flag that both the file's object and ours have, must be equal."""
    parts = dict(module.named_modules())
    for name, part in record.modules():
        where = name or "the network"
        if name not in parts:
            raise CheckpointError(f"{where} is a {part.class_name} in the file; this architecture has no such part")
        if part.class_name != type(parts[name]).__name__:
            raise CheckpointError(f"{where} is a {part.class_name} in the file, "
                                  f"expected a {type(parts[name]).__name__}")
        ours = vars(parts[name])
        for key, value in part.state.items():
            value = value.tolist() if isinstance(value, np.ndarray) else value
            compared = key in ours and not key.startswith("_") and key != "training"
            if compared and type(value) in _PLAIN and not _equal(value, ours[key]):
                raise CheckpointError(f"{where}.{key} is {reprlib.repr(value)} in the file, "
                                      f"but {ours[key]!r} in the network rebuilt from it")


def _equal(value: Any, ours: Any) -> bool:
    numbers = all(type(v) in (int, float) for v in (value, ours))
    return math.isclose(value, ours, rel_tol=1e-6) if numbers else value == ours
