"""Pickle streams written by hand, operation by operation."""
import pickle
import pickletools
import struct
from typing import Any

RECONSTRUCT = "torch_utils.persistence", "_reconstruct_persistent_obj"


def stream(*parts: bytes, protocol: int = 2) -> bytes:
    """A whole pickle."""
    return b"\x80" + bytes([protocol]) + b"".join(parts) + b"."


def plain(value: Any) -> bytes:
    """The operations that push a plain value; no memo is used."""
    return pickletools.optimize(pickle.dumps(value, 2))[2:-1]


def name(module: str, attribute: str) -> bytes:
    """Pushes a global."""
    return f"c{module}\n{attribute}\n".encode()


def tuple_of(*parts: bytes) -> bytes:
    """A tuple of what the parts push."""
    return b"(" + b"".join(parts) + b"t"


def call(module: str, attribute: str, *parts: bytes, operation: bytes = b"R") -> bytes:
    """Calls a global with what the parts push: REDUCE, or NEWOBJ."""
    return name(module, attribute) + tuple_of(*parts) + operation


def dictionary(**parts: bytes) -> bytes:
    """A dictionary of what the parts push."""
    return b"}(" + b"".join(plain(key) + value for key, value in parts.items()) + b"u"


def blob(
    values: list[float],
    type_name: str = "FloatStorage",
    count: Any = None,
    stored: int | None = None,
    content: bytes | None = None,
    entry: bytes | None = None,
    **header: Any,
) -> bytes:
    """The file inside a file that holds a storage; whatever is given takes the place of the right thing."""
    given = {
        "magic": 119547037146038801333356,
        "protocol": 1001,
        "machine": {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}},
        "keys": ["93"],
        **header,
    }
    if entry is None:
        number = plain(len(values) if count is None else count)
        entry = tuple_of(plain("storage"), name("torch", type_name), plain("93"), plain("cpu"), number, b"N")
    pickles = [pickle.dumps(given[key], 2) for key in ("magic", "protocol", "machine")]
    pickles += [stream(entry, b"Q"), pickle.dumps(given["keys"], 2)]
    length = struct.pack("<q", len(values) if stored is None else stored)
    return b"".join(pickles) + length + (struct.pack(f"<{len(values)}f", *values) if content is None else content)


def raw(content: bytes) -> bytes:
    """Pushes bytes (protocol 3)."""
    return b"B" + struct.pack("<I", len(content)) + content


def storage(content: bytes | list[float]) -> bytes:
    """Pushes a tensor's storage."""
    return call("torch.storage", "_load_from_bytes", raw(content if isinstance(content, bytes) else blob(content)))


def tensor(of: bytes, offset: Any = 0, size: Any = (2,), stride: Any = (1,)) -> bytes:
    """Pushes a tensor over a storage."""
    layout = [plain(offset), plain(size), plain(stride), plain(False), call("collections", "OrderedDict")]
    return call("torch._utils", "_rebuild_tensor_v2", of, *layout)


def persistent(**meta: bytes | str) -> bytes:
    """Pushes a persistent object: class Generator, no text, no state, unless `meta` says otherwise."""
    parts: dict[str, bytes | str] = {
        "type": "class", "version": plain(6), "module_src": "", "class_name": "Generator", "state": b"}",
    }  # fmt: skip
    pushed = {key: plain(part) if isinstance(part, str) else part for key, part in {**parts, **meta}.items()}
    return call(*RECONSTRUCT, dictionary(**pushed))
