"""The allow-list of globals in network pickles, and the functions of ours that each stands for.

The functions check their arguments and return plain values; docs/checkpoints.md has the list in words.
"""
import math
import re
import reprlib
from typing import Any

import numpy as np
import torch

from .. import persistence
from .errors import CheckpointError
from .machine import Function, Unfinished, check_collisions, checked_key
from .records import ModuleRecord, TFNetworkRecord
from .storage import parse_storage

_HUGE = 1 << 40  # no size, stride or offset of a tensor comes near
_PARSING = 8 << 10  # bytes of the budget that stand for the time in which a storage is parsed
_NUMBER_TYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")


class _NumpyType(Unfinished):
    """A NumPy dtype: kind and size, then the byte order."""

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or _NUMBER_TYPE.fullmatch(code) is None:
            raise CheckpointError(f"NumPy type {reprlib.repr(code)} is not a plain number type")
        self.code = code

    def build(self, state: Any) -> np.dtype:
        order = state[1]
        if order not in ("<", ">", "|", "="):
            raise CheckpointError(f"NumPy type {self.code!r}: malformed")
        return np.dtype(self.code).newbyteorder(order)


class _NumpyArray(Unfinished):
    """A NumPy array before its shape, type and bytes have been read."""

    def __init__(self, *_: object) -> None:
        pass

    def build(self, state: Any) -> np.ndarray:
        _version, shape, dtype, is_fortran, raw = state
        _checked(dtype, np.dtype, "NumPy array")
        flat = np.frombuffer(raw, dtype=dtype) if raw else np.empty([0], dtype=dtype)
        return flat.reshape(shape, order="F" if is_fortran else "C").copy()


def _array_of_buffer(raw: object, dtype: object, shape: Any, order: object = "C", *_: object) -> np.ndarray:
    """How protocol 5 spells NumPy arrays."""
    if not isinstance(raw, bytes | bytearray | memoryview) or order not in ("C", "F"):
        raise CheckpointError("NumPy array: malformed")
    return np.frombuffer(raw, dtype=_checked(dtype, np.dtype, "NumPy array")).reshape(shape, order=order).copy()


def _checked(value: object, kind: type, name: str) -> Any:
    if not isinstance(value, kind):
        raise CheckpointError(f"{name}: expected a {kind.__name__}, found a {type(value).__name__}")
    return value


def _numpy_scalar(dtype: object, raw: Any) -> Any:
    return np.frombuffer(raw, dtype=_checked(dtype, np.dtype, "NumPy scalar"), count=1)[0].item()


def _encode(text: object, encoding: object) -> bytes:
    """How protocol 2 spells bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise CheckpointError(f"unexpected text encoding {reprlib.repr(encoding)}")
    return _checked(text, str, "text").encode("latin-1")


def make_dict(pairs: Any = ()) -> dict:
    """Any mapping class."""
    made = {}
    for key, value in pairs:
        made[checked_key(key)] = value
        if len(made) & (len(made) - 1) == 0:  # each time that it doubles
            check_collisions(made)
    return made


def _set(items: Any = ()) -> set:
    return set(make_dict((item, None) for item in items))


class Storage:
    """A tensor's elements; `unclaimed` of them may still become part of a tensor."""

    def __init__(self, blob: object) -> None:
        self.elements = parse_storage(blob)
        self.unclaimed = self.elements.numel()
        self.nbytes = self.elements.nbytes + _PARSING


def strided_view(storage: torch.Tensor, offset: Any, size: Any, stride: Any, *_: object) -> torch.Tensor:
    """A tensor [*size] over a storage [num_elements], checked against its bounds; strides are kept.

    Raises:
        CheckpointError: it reaches beyond the storage, or shows elements several times: a few bytes of a file could
            stand for any number of them.
    """
    numbers = [offset, *size, *stride]
    if len(size) != len(stride) or any(type(n) is not int or not 0 <= n < _HUGE for n in numbers):
        raise CheckpointError(f"tensor of size {reprlib.repr(size)} and stride {reprlib.repr(stride)}: malformed")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride)) if all(size) else offset - 1
    if last >= storage.numel():
        raise CheckpointError(f"tensor of size {reprlib.repr(size)} reaches beyond its storage "
                              f"of {storage.numel()} elements")
    if math.prod(size) > storage.numel():
        raise CheckpointError(f"tensor of size {reprlib.repr(size)} repeats the {storage.numel()} elements "
                              "of its storage")
    return torch.as_strided(storage, size, stride, offset)


def _tensor(storage: Any, *layout: Any) -> torch.Tensor:
    tensor = strided_view(_checked(storage, Storage, "tensor").elements, *layout)
    storage.unclaimed -= tensor.numel()
    if storage.unclaimed < 0:
        raise CheckpointError(f"several tensors repeat the {len(storage.elements)} elements of one storage")
    return tensor


def _parameter(data: object, *_: object) -> torch.Tensor:
    return _checked(data, torch.Tensor, "parameter")


def _persistent(meta: Any) -> ModuleRecord:
    kind, version = _checked(meta, dict, "persistent object").get("type"), meta.get("version")
    if (type(kind), type(version)) != (str, int) or (kind, version) != ("class", persistence.FORMAT_VERSION):
        raise CheckpointError(f"persistent object: expected type 'class' of version {persistence.FORMAT_VERSION}, "
                              f"found type {reprlib.repr(kind)} of version {reprlib.repr(version)}")
    return ModuleRecord(
        class_name=_checked(meta["class_name"], str, "class_name"),
        source=_checked(meta["module_src"], str, "module_src"),
        state=_checked(meta["state"], dict, "state"),
    )


GLOBALS: dict[tuple[str, str], Function] = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): Function(_persistent),
    ("dnnlib.util", "EasyDict"): Function(make_dict),
    ("collections", "OrderedDict"): Function(make_dict),
    ("torch._utils", "_rebuild_parameter"): Function(_parameter),
    ("torch._utils", "_rebuild_tensor_v2"): Function(_tensor),
    ("torch.storage", "_load_from_bytes"): Function(Storage),
    ("numpy", "dtype"): Function(_NumpyType),
    ("numpy", "ndarray"): Function(_NumpyArray),
    ("numpy.core.multiarray", "scalar"): Function(_numpy_scalar),
    ("numpy._core.multiarray", "scalar"): Function(_numpy_scalar),
    ("numpy.core.multiarray", "_reconstruct"): Function(_NumpyArray),
    ("numpy._core.multiarray", "_reconstruct"): Function(_NumpyArray),
    ("numpy.core.numeric", "_frombuffer"): Function(_array_of_buffer),
    ("numpy._core.numeric", "_frombuffer"): Function(_array_of_buffer),
    ("builtins", "set"): Function(_set),
    ("__builtin__", "set"): Function(_set),
    ("_codecs", "encode"): Function(_encode),
    ("dnnlib.tflib.network", "Network"): Function(TFNetworkRecord),
}
