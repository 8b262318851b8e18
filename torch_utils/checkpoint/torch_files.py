"""Files of torch.save, zip archives and the format before them, read without executing what they name."""
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

import torch

from .reading import _GLOBALS, _MALFORMED, _Call, _plain, strided_view
from .records import CheckpointError
from .storage import DTYPES, MAGIC, PROTOCOL


class Inert:
    """Stands for an object of a class that is not known; takes whatever a stream does to it, and does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> "Inert":
        return self

    def _ignore(self, *_: Any) -> None:
        pass

    __setstate__ = __setitem__ = append = extend = add = _ignore


class _StateDict(dict):
    """The dictionary of a network's tensors, which torch gives an attribute with version numbers."""

    def __setstate__(self, state: Any) -> None:
        pass


_KNOWN = {
    **_GLOBALS,
    ("collections", "OrderedDict"): _StateDict,
    ("torch._utils", "_rebuild_tensor_v2"): _Call(strided_view),
}


class _TorchUnpickler(pickle.Unpickler):
    """Tensors, plain values, and Inert objects; `find_storage(dtype, key, count)` gives a tensor's elements."""

    def __init__(self, f: BinaryIO, find_storage: Callable[[torch.dtype, str, int], torch.Tensor]) -> None:
        super().__init__(f)
        self._find_storage = find_storage

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.storage") and name in DTYPES:
            return name
        return _KNOWN.get((module, name), Inert)

    def persistent_load(self, pid: Any) -> torch.Tensor:
        kind, storage_type, key, _location, count, *_ = pid
        if kind != "storage" or storage_type not in DTYPES or not isinstance(count, int) or count < 0:
            raise CheckpointError(f"tensor storage: unexpected entry {pid!r}")
        return self._find_storage(DTYPES[storage_type], str(key), count)


def _elements(raw: bytes, dtype: torch.dtype, count: int) -> torch.Tensor:
    expected = count * dtype.itemsize
    if len(raw) != expected:
        raise CheckpointError(f"tensor storage: expected {expected} bytes, found {len(raw)}")
    return torch.frombuffer(bytearray(raw), dtype=dtype) if count else torch.empty([0], dtype=dtype)


def _read_archive(f: BinaryIO) -> Any:
    """The zip format: <root>/data.pkl, and <root>/data/<key> with the elements of every storage."""
    with zipfile.ZipFile(f) as archive:
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise CheckpointError("this zip archive was not written by torch.save")
        root = names[0].removesuffix("data.pkl")
        if root + "byteorder" in archive.namelist() and archive.read(root + "byteorder") != b"little":
            raise CheckpointError("the numbers are not little-endian")
        storages: dict[str, torch.Tensor] = {}

        def find(dtype: torch.dtype, key: str, count: int) -> torch.Tensor:
            if key not in storages:
                storages[key] = _elements(archive.read(f"{root}data/{key}"), dtype, count)
            return storages[key]

        return _TorchUnpickler(io.BytesIO(archive.read(names[0])), find).load()


def _read_stream(f: BinaryIO) -> Any:
    """The format before: magic number, protocol, machine, the object, the storages' keys, then their elements."""
    storages: dict[str, torch.Tensor] = {}

    def find(dtype: torch.dtype, key: str, count: int) -> torch.Tensor:
        return storages.setdefault(key, torch.zeros([count], dtype=dtype))

    magic, protocol, machine, data, keys = (_TorchUnpickler(f, find).load() for _ in range(5))
    if magic != MAGIC or protocol != PROTOCOL or not machine.get("little_endian", False):
        raise CheckpointError("not a little-endian torch file")
    for key in keys:
        storage = storages[str(key)]
        (count,) = struct.unpack("<q", f.read(8))
        if count != len(storage):
            raise CheckpointError(f"tensor storage: header announces {len(storage)} elements, data has {count}")
        storage.copy_(_elements(f.read(count * storage.element_size()), storage.dtype, count))
    return data


def read_torch_file(path: str | os.PathLike) -> Any:
    """Reads a file that torch.save wrote, on the CPU, executing nothing.

    Returns:
        Dictionaries, lists, tuples, numbers, strings and tensors as they were saved (every mapping becomes a dict), and
        an `Inert` wherever an object of any other class was.

    Raises:
        CheckpointError: the file is missing, damaged or of another kind; the message names it.
    """
    try:
        with open(path, "rb") as f:
            is_archive = f.read(2) == b"PK"
            f.seek(0)
            data = _read_archive(f) if is_archive else _read_stream(f)
    except CheckpointError as error:
        raise CheckpointError(f"{os.fspath(path)}: {error}") from None
    except OSError as error:
        raise CheckpointError(f"{os.fspath(path)}: cannot be read: {error.strerror or error}") from None
    except (*_MALFORMED, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{os.fspath(path)}: the file is truncated, damaged or not written by torch.save "
                              f"({type(error).__name__}: {error})") from None
    return _plain(data)
