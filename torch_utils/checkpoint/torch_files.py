"""Files of torch.save, zip archives and the format before them, read without executing what they name."""
import contextlib
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from typing import IO, Any

import torch

from dnnlib.bounded import open_regular
from dnnlib.errors import FileError

from .allowed_globals import GLOBALS, make_dict, strided_view
from .errors import MALFORMED, CheckpointError, describe
from .machine import Budget, Function, Sink, Unfinished, run
from .storage import DTYPES, MAGIC, elements, is_header, storage_entry


class Inert(Sink):
    """Stands for an object of a class that is not known; takes whatever a stream does to it, and does nothing."""


class _StateDict(dict, Unfinished):
    """The dictionary of a network's tensors, which torch gives an attribute with version numbers."""

    def build(self, state: object) -> Any:
        return self


def _tensor(storage: object, *layout: Any) -> torch.Tensor:
    if not isinstance(storage, torch.Tensor):
        raise CheckpointError(f"tensor: expected a storage, found a {type(storage).__name__}")
    return strided_view(storage, *layout)


_KNOWN: dict[tuple[str, str], Any] = {
    **GLOBALS,
    ("collections", "OrderedDict"): Function(lambda *pairs: _StateDict(make_dict(*pairs))),
    ("torch._utils", "_rebuild_tensor_v2"): Function(_tensor),
    **{(module, name): name for module in ("torch", "torch.storage") for name in DTYPES},
}

FindStorage = Callable[[torch.dtype, str, int], torch.Tensor]
FindUnknown = Callable[[str, str], Any]

_STREAM = pickle.dumps(MAGIC, protocol=2)  # how files of the older format begin


def is_torch_file(data: bytes) -> bool:
    """Whether the content of a file is a zip archive or of torch's older format."""
    return data.startswith((b"PK", _STREAM))


def read_torch_content(f: IO[bytes], find_unknown: FindUnknown) -> Any:
    """What torch.save wrote, executing nothing.

    Args:
        f: binary file, at its beginning.
        find_unknown: (module, name) → what stands for a class or function that network files do not need.

    Returns:
        As `read_torch_file`, but records for network objects.

    Raises:
        CheckpointError: the content is of another kind; damage may raise any of `MALFORMED`, or zipfile.BadZipFile.
    """
    budget = Budget(f.seek(0, os.SEEK_END))
    f.seek(0)
    is_archive = f.read(2) == b"PK"
    f.seek(0)
    return _read_archive(f, find_unknown, budget) if is_archive else _read_stream(f, find_unknown, budget)


def _run(f: IO[bytes], find_storage: FindStorage, find_unknown: FindUnknown, budget: Budget) -> Any:
    """Tensors and plain values; `find_storage(dtype, key, count)` gives a tensor's elements."""

    def find_external(pid: Any) -> Any:
        if pid[0] == "module":  # a class, in the older format
            return Inert()
        return find_storage(*storage_entry(pid))

    def find_global(module: str, name: str) -> Any:
        return _KNOWN.get((module, name)) or find_unknown(module, name)

    return run(f, find_global, find_external, budget)


def _read_archive(f: IO[bytes], find_unknown: FindUnknown, budget: Budget) -> Any:
    """The zip format: <root>/data.pkl, and <root>/data/<key> with the elements of every storage."""
    with zipfile.ZipFile(f) as archive:
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise CheckpointError("not a network pickle but a zip archive that was not written by torch.save "
                                  "(a data set?)")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise CheckpointError("the entries of this zip archive are compressed; torch.save does not do that")
        root = names[0].removesuffix("data.pkl")
        if root + "byteorder" in archive.namelist() and archive.read(root + "byteorder") != b"little":
            raise CheckpointError("the numbers are not little-endian")
        storages: dict[str, torch.Tensor] = {}

        def find(dtype: torch.dtype, key: str, count: int) -> torch.Tensor:
            if key not in storages:
                budget.charge(count * dtype.itemsize)
                storages[key] = elements(archive.read(f"{root}data/{key}"), dtype, count)
            return storages[key]

        return _run(io.BytesIO(archive.read(names[0])), find, find_unknown, budget)


def _read_stream(f: IO[bytes], find_unknown: FindUnknown, budget: Budget) -> Any:
    """The format before: magic number, protocol, machine, the object, the storages' keys, then their elements."""
    storages: dict[str, torch.Tensor] = {}

    def find(dtype: torch.dtype, key: str, count: int) -> torch.Tensor:
        if key not in storages:
            unread = budget.num_bytes - sum(storage.nbytes for storage in storages.values())
            if count * dtype.itemsize > unread:
                raise CheckpointError(f"tensor storage: announces {count} elements, the file has {unread} bytes left")
            storages[key] = torch.zeros([count], dtype=dtype)
        return storages[key]

    magic, protocol, machine, data, keys = (_run(f, find, find_unknown, budget) for _ in range(5))
    if not is_header(magic, protocol, machine):
        raise CheckpointError("not a little-endian torch file")
    for key in keys:
        if not isinstance(key, str):
            raise CheckpointError(f"tensor storage: a {type(key).__name__} as a key")
        storage = storages[key]
        (count,) = struct.unpack("<q", f.read(8))
        if count != len(storage):
            raise CheckpointError(f"tensor storage: header announces {len(storage)} elements, data has {count}")
        storage.copy_(elements(f.read(count * storage.element_size()), storage.dtype, count))
    return data


def read_torch_file(path: str | os.PathLike, f: IO[bytes] | None = None) -> Any:
    """Reads a file that torch.save wrote, on the CPU, executing nothing.

    Args:
        path: the file.
        f: the same file, if it is open already.

    Returns:
        Dictionaries, lists, tuples, numbers, strings and tensors as they were saved (every mapping becomes a dict), and
        an `Inert` wherever an object of any other class was.

    Raises:
        CheckpointError: the file is missing, damaged or of another kind; the message names it.
    """
    try:
        with open_regular(path) if f is None else contextlib.nullcontext(f) as stream:
            return read_torch_content(stream, lambda module, name: Inert())
    except CheckpointError as error:
        raise CheckpointError(f"{os.fspath(path)}: {error}") from None
    except FileError as error:
        raise CheckpointError(str(error)) from None
    except OSError as error:
        raise CheckpointError(f"{os.fspath(path)}: cannot be read: {error.strerror or error}") from None
    except (*MALFORMED, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{os.fspath(path)}: the file is truncated, damaged or not written by torch.save "
                              f"({describe(error)})") from None
