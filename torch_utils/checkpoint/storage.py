"""The tensor storages inside a network pickle: little files of torch's pre-zip format, parsed by hand."""
import pickle
import reprlib
import struct
from typing import Any

import torch

from .content import Content
from .errors import CheckpointError
from .machine import Budget, run

MAGIC = 119547037146038801333356
PROTOCOL = 1001
_MACHINE = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
_USUAL_HEADER = b"".join(pickle.dumps(part, protocol=2) for part in (MAGIC, PROTOCOL, _MACHINE))  # what torch writes
_HEADER_BYTES = 1 << 20  # of memory for what stands before the elements
DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def _find_global(module: str, name: str) -> str:
    """The only globals are storage types, which stay strings."""
    if module in ("torch", "torch.storage") and name in DTYPES:
        return name
    raise CheckpointError(f"refused: a tensor storage names {module}.{name}, which is not a known storage type")


def storage_entry(pid: Any) -> tuple[torch.dtype, str, int]:
    """Type, key and number of elements out of the persistent id of a storage.

    Raises:
        CheckpointError: the id is malformed.
    """
    kind, storage_type, key, _location, count, *view = pid
    flat = [kind, storage_type, key]
    if not all(isinstance(part, str) for part in flat) or type(count) is not int or any(v is not None for v in view):
        raise CheckpointError(f"tensor storage: unexpected entry {reprlib.repr(pid)}")
    if kind != "storage" or storage_type not in DTYPES or count < 0:
        raise CheckpointError(f"tensor storage: unexpected entry {reprlib.repr(pid)}")
    return DTYPES[storage_type], key, count


def is_header(magic: object, protocol: object, machine: object) -> bool:
    """Whether three pickles begin a little-endian file of the pre-zip format."""
    numbers = type(magic) is int and type(protocol) is int and (magic, protocol) == (MAGIC, PROTOCOL)
    return numbers and isinstance(machine, dict) and machine.get("little_endian") is True


def elements(raw: bytes | memoryview, dtype: torch.dtype, count: int) -> torch.Tensor:
    """Raw little-endian numbers as a tensor [count], which shares the memory of a view that may be written to.

    Raises:
        CheckpointError: these are not `count` numbers.
    """
    expected = count * dtype.itemsize
    if len(raw) != expected:
        raise CheckpointError(f"tensor storage: expected {expected} bytes of {dtype}, found {len(raw)}")
    if count == 0:
        return torch.empty([0], dtype=dtype)
    shared = isinstance(raw, memoryview) and not raw.readonly
    return torch.frombuffer(raw if shared else bytearray(raw), dtype=dtype)


def parse_storage(blob: object) -> torch.Tensor:
    """The elements of one serialised storage as a tensor [num_elements].

    Args:
        blob: bytes or a view of them: five pickles (magic number, protocol, machine, the storage's persistent id, the
            list of keys), a little-endian int64 element count, and the raw little-endian elements.

    Raises:
        CheckpointError: anything else.
    """
    if not isinstance(blob, bytes | memoryview):
        raise CheckpointError(f"tensor storage: expected bytes, found a {type(blob).__name__}")
    stream = Content(memoryview(blob))
    budget = Budget(0, _HEADER_BYTES)
    is_usual = blob[: len(_USUAL_HEADER)] == _USUAL_HEADER  # most of what is read here, if it were read
    if is_usual:
        stream.read(len(_USUAL_HEADER))
    else:
        is_usual = is_header(*(run(stream, _find_global, storage_entry, budget) for _ in range(3)))
    entry, keys = (run(stream, _find_global, storage_entry, budget) for _ in range(2))
    if not is_usual or not isinstance(entry, tuple) or not isinstance(keys, list):
        raise CheckpointError("tensor storage: not a little-endian legacy torch file")
    dtype, key, count = entry
    (stored,) = struct.unpack("<q", stream.read(8))
    if keys != [key] or stored != count:
        raise CheckpointError(f"tensor storage: header announces {count} elements, data has {stored}")
    return elements(stream.read(), dtype, count)
