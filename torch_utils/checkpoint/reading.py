"""An unpickler that knows the few globals of network pickles and maps each to harmless code of ours."""
import io
import pickle
import struct
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import torch

from .. import persistence
from .records import CheckpointError, ModuleRecord, TFNetworkRecord
from .storage import parse_storage

_MALFORMED = (
    pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, KeyError, TypeError, ValueError,
    OverflowError, MemoryError, RecursionError, RuntimeError, struct.error,
)


class _Refusing:
    """Base of all that a stream can put on the stack: the BUILD opcode finds this method, never our attributes."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise CheckpointError("the file tries to modify an object that has no state")


class _Call(_Refusing):
    """A function that a stream may call, and do nothing else with."""

    __slots__ = ("_function",)
    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise CheckpointError("the file tries to modify a function")


class _Dict(_Refusing, dict):
    """Any mapping class of a stream, EasyDict and OrderedDict alike."""


class _NumpyType(_Refusing):
    """A NumPy dtype: kind and size, then the byte order by BUILD."""

    def __init__(self, code: str, *_: Any) -> None:
        if not isinstance(code, str) or code.lstrip("<>|=")[:1] not in ("f", "i", "u", "b"):
            raise CheckpointError(f"NumPy type {code!r} is not a plain number type")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _NumpyArray(_Refusing):
    """A NumPy array on its way: BUILD brings shape, type and bytes."""

    array: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _version, shape, kind, fortran, raw = state
        self.array = np.frombuffer(raw, dtype=kind.dtype).reshape(shape, order="F" if fortran else "C").copy()


def _numpy_scalar(kind: _NumpyType, raw: bytes) -> Any:
    return np.frombuffer(raw, dtype=kind.dtype, count=1)[0].item()


def _numpy_reconstruct(*_: Any) -> _NumpyArray:
    return _NumpyArray()


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise CheckpointError(f"unexpected text encoding {encoding!r}")
    return text.encode("latin-1")


def strided_view(storage: torch.Tensor, offset: int, size: tuple, stride: tuple, *_: Any) -> torch.Tensor:
    """A tensor over a storage, checked against its bounds; strides are kept."""
    if not isinstance(storage, torch.Tensor) or len(size) != len(stride) or min([offset, *size, *stride]) < 0:
        raise CheckpointError(f"tensor of size {size} and stride {stride}: malformed")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride)) if all(size) else offset
    if all(size) and last >= storage.numel():
        raise CheckpointError(f"tensor of size {size} reaches beyond its storage of {storage.numel()} elements")
    return torch.as_strided(storage, size, stride, offset)


def _tensor(*args: Any) -> torch.Tensor:
    return strided_view(*args).clone()


def _parameter(data: torch.Tensor, *_: Any) -> torch.Tensor:
    return data


def _persistent(meta: Any) -> ModuleRecord:
    expected = ("class", persistence.FORMAT_VERSION)
    found = (meta.get("type"), meta.get("version"))
    if found != expected:
        raise CheckpointError(f"persistent object: expected (type, version) {expected}, got {found}")
    if not isinstance(meta["class_name"], str) or not isinstance(meta["state"], dict):
        raise CheckpointError("persistent object: class_name or state are malformed")
    return ModuleRecord(meta["class_name"], str(meta["module_src"]), meta["state"])


_GLOBALS: dict[tuple[str, str], Any] = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _Call(_persistent),
    ("dnnlib.util", "EasyDict"): _Dict,
    ("collections", "OrderedDict"): _Dict,
    ("torch._utils", "_rebuild_parameter"): _Call(_parameter),
    ("torch._utils", "_rebuild_tensor_v2"): _Call(_tensor),
    ("torch.storage", "_load_from_bytes"): _Call(parse_storage),
    ("numpy", "dtype"): _NumpyType,
    ("numpy", "ndarray"): _NumpyArray,
    ("numpy.core.multiarray", "scalar"): _Call(_numpy_scalar),
    ("numpy._core.multiarray", "scalar"): _Call(_numpy_scalar),
    ("numpy.core.multiarray", "_reconstruct"): _Call(_numpy_reconstruct),
    ("numpy._core.multiarray", "_reconstruct"): _Call(_numpy_reconstruct),
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("_codecs", "encode"): _Call(_encode),
    ("dnnlib.tflib.network", "Network"): TFNetworkRecord,
}


class _NetworkUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _GLOBALS[module, name]
        except KeyError:
            raise CheckpointError(
                f"refused: the file names {module}.{name}, which no network pickle needs. "
                "Pass --trust-pickle only if you trust its origin: that executes what the file contains"
            ) from None

    def persistent_load(self, pid: Any) -> Any:
        raise CheckpointError(f"refused: the file refers to an external object {pid!r}")


def _plain(value: Any) -> Any:
    """Replaces what the unpickler left as placeholders, all the way down."""
    if isinstance(value, ModuleRecord):
        value.state = _plain(value.state)
    elif isinstance(value, TFNetworkRecord):
        value.state = _plain(value.state)
    elif isinstance(value, dict):
        return {_plain(k): _plain(v) for k, v in value.items()}
    elif isinstance(value, list | tuple):
        return type(value)(_plain(v) for v in value)
    elif isinstance(value, _NumpyArray):
        return value.array
    elif isinstance(value, _NumpyType):
        return value.dtype
    return value


def _describe(data: bytes) -> str:
    if not data:
        return "the file is empty"
    if data[:2] == b"PK":
        return "this is a zip archive (a torch.save file or a data set?), not a network pickle"
    if data[:1] == b"<":
        return "this is a web page or XML, not a network pickle; was the download redirected?"
    return "the file is truncated, damaged or not a network pickle"


def _read_all(f: BinaryIO) -> tuple[str, bytes]:
    return str(getattr(f, "name", None) or "network pickle"), f.read()


def read(f: BinaryIO) -> Any:
    """Reads a pickle without executing anything it names.

    Args:
        f: binary file; its `name`, if any, appears in error messages.

    Returns:
        Dictionaries, lists, tuples, numbers, strings, NumPy arrays, tensors, and a `ModuleRecord` or `TFNetworkRecord`
        for every network object.

    Raises:
        CheckpointError: the file is not a pickle, is damaged, or names a global that is not in the list of
            docs/checkpoints.md.
    """
    name, data = _read_all(f)
    try:
        return _plain(_NetworkUnpickler(io.BytesIO(data)).load())
    except CheckpointError as error:
        raise CheckpointError(f"{name}: {error}") from None
    except _MALFORMED as error:
        raise CheckpointError(f"{name}: {_describe(data)} ({type(error).__name__}: {error})") from None


class _TrustingUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("dnnlib.tflib.network", "Network"):
            return TFNetworkRecord
        return super().find_class(module, name)


def read_trusted(f: BinaryIO) -> Any:
    """Reads a pickle with everything it asks for, embedded program text included. For files you trust only."""
    name, data = _read_all(f)
    try:
        with persistence.trusted():
            return _TrustingUnpickler(io.BytesIO(data)).load()
    except _MALFORMED as error:
        raise CheckpointError(f"{name}: {_describe(data)} ({type(error).__name__}: {error})") from error
