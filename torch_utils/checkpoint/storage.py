"""The tensor storages inside a network pickle: little files of torch's pre-zip format, parsed by hand."""
import io
import pickle
import struct
from typing import Any

import torch

from .records import CheckpointError

MAGIC = 119547037146038801333356
PROTOCOL = 1001
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


class _HeaderUnpickler(pickle.Unpickler):
    """Reads the five header pickles; the only global they may name is a storage type, which stays a string."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.storage") and name in DTYPES:
            return name
        raise CheckpointError(f"tensor storage names the global {module}.{name}, which is not a known storage type")

    def persistent_load(self, pid: Any) -> tuple[str, str, int]:
        kind, storage_type, key, _location, count, *_ = pid
        if kind != "storage" or storage_type not in DTYPES or not isinstance(count, int):
            raise CheckpointError(f"tensor storage: unexpected entry {pid!r}")
        return storage_type, str(key), count


def parse_storage(blob: bytes) -> torch.Tensor:
    """The elements of one serialised storage as a one-dimensional tensor.

    Args:
        blob: five pickles (magic number, protocol, machine, the storage's persistent id, the list of keys), a
            little-endian int64 element count, and the raw little-endian elements.

    Raises:
        CheckpointError: anything else.
    """
    stream = io.BytesIO(blob)
    magic, protocol, machine, entry, keys = (_HeaderUnpickler(stream).load() for _ in range(5))
    if magic != MAGIC or protocol != PROTOCOL or not machine.get("little_endian", False):
        raise CheckpointError("tensor storage: not a little-endian legacy torch file")
    storage_type, key, count = entry
    (stored,) = struct.unpack("<q", stream.read(8))
    if [str(k) for k in keys] != [key] or stored != count:
        raise CheckpointError(f"tensor storage: header announces {count} elements, data has {stored}")
    dtype = DTYPES[storage_type]
    raw = stream.read()
    expected = count * torch.empty([], dtype=dtype).element_size()
    if len(raw) != expected:
        raise CheckpointError(f"tensor storage: expected {expected} bytes of {storage_type}, found {len(raw)}")
    return torch.frombuffer(bytearray(raw), dtype=dtype) if count else torch.empty([0], dtype=dtype)
