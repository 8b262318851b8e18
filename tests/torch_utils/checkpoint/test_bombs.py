"""Damaged and hostile sizes: no file makes its reader allocate, recurse or compute much more than it holds."""
import io
from pathlib import Path
from typing import Any

import pytest

from tests.torch_utils.checkpoint import streams as s
from tests.torch_utils.checkpoint.hostile import NamedFile, little_memory, refuse
from torch_utils import checkpoint
from torch_utils.checkpoint import CheckpointError

pytestmark = pytest.mark.usefixtures("unchanged")


# ----------------------------------------------------------------------------------------------------------------------
# Tensors


@pytest.mark.parametrize(
    ("layout", "match"),
    [
        ({"size": (5,)}, r"tensor of size \(5,\) reaches beyond its storage of 4 elements"),
        ({"size": (4,), "offset": 1}, "reaches beyond"),
        ({"size": (2,), "stride": (4,)}, "reaches beyond"),
        ({"size": (2, 2), "stride": (3, 1)}, "reaches beyond"),
        ({"size": (), "stride": (), "offset": 4}, "reaches beyond"),
        ({"size": (0,), "offset": 5}, "reaches beyond"),
        ({"size": (10**12,), "stride": (0,)}, r"repeats the 4 elements of its storage"),
        ({"size": (5,), "stride": (0,)}, "repeats the 4 elements"),
        ({"size": (10**6, 10**6), "stride": (0, 0)}, "repeats the 4 elements"),
        ({"size": (3, 2), "stride": (1, 1)}, "repeats the 4 elements"),
        ({"size": (-1,)}, "malformed"),
        ({"offset": -1}, "malformed"),
        ({"stride": (-1,)}, "malformed"),
        ({"size": (2, 2)}, "malformed"),
        ({"size": (2.0,)}, "malformed"),
        ({"size": (True,)}, "malformed"),
        ({"size": ("a",)}, "malformed"),
        ({"offset": None}, "malformed"),
        ({"size": 3}, "TypeError"),
        ({"size": (0, 10**30), "stride": (1, 1)}, "malformed"),
        ({"size": (0, 10**18, 10**18), "stride": (1, 1, 1)}, "malformed"),
        ({"size": (1,), "stride": (10**18,)}, "malformed"),
    ],
)
def test_tensor_that_its_storage_does_not_hold(layout: dict[str, Any], match: str) -> None:
    data = s.stream(s.tensor(s.storage([1.0, 2.0, 3.0, 4.0]), **layout), protocol=3)
    with little_memory():
        assert "alloc" not in refuse(data, match)


def test_tensor_without_a_storage() -> None:
    refuse(s.stream(s.tensor(b"N")), "tensor: expected a Storage, found a NoneType")
    other = s.tensor(s.storage([1.0, 2.0]))
    refuse(s.stream(s.tensor(other), protocol=3), "tensor: expected a Storage, found a Tensor")


def test_many_tensors_over_one_storage() -> None:
    stored = s.storage([1.0, 2.0, 3.0, 4.0]) + b"q\x01"
    whole = {"size": (4,)}
    refuse(
        s.stream(s.tuple_of(s.tensor(stored, **whole), s.tensor(b"h\x01", **whole)), protocol=3),
        "several tensors repeat the 4 elements of one storage",
    )
    first, second = checkpoint.read(
        NamedFile(s.stream(s.tuple_of(s.tensor(stored), s.tensor(b"h\x01", offset=2)), protocol=3))
    )
    assert first.tolist() == [1, 2]
    assert second.tolist() == [3, 4]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (s.blob([1.0], type_name="NoSuchStorage"), r"refused: a tensor storage names torch\.NoSuchStorage"),
        (s.blob([1.0], entry=s.call("os", "system", s.plain("x"))), r"refused: a tensor storage names os\.system"),
        (s.blob([1.0], count=2), "header announces 2 elements, data has 1"),
        (s.blob([1.0], count=10**15, stored=10**15), "expected 4000000000000000 bytes of torch.float32, found 4"),
        (s.blob([1.0], count=-1, stored=-1), "unexpected entry"),
        (s.blob([1.0], count=1.0), "unexpected entry"),
        (s.blob([1.0], count=True), "unexpected entry"),
        (s.blob([1.0], stored=2), "header announces 1 elements, data has 2"),
        (s.blob([1.0], content=b"\0\0\0"), "expected 4 bytes of torch.float32, found 3"),
        (s.blob([1.0], content=b"\0\0\0\0\0"), "expected 4 bytes of torch.float32, found 5"),
        (s.blob([1.0], magic=1), "not a little-endian legacy torch file"),
        (s.blob([1.0], magic=[]), "not a little-endian legacy torch file"),
        (s.blob([1.0], protocol=1002), "not a little-endian legacy torch file"),
        (s.blob([1.0], machine={"little_endian": False}), "not a little-endian legacy torch file"),
        (s.blob([1.0], machine=[]), "not a little-endian legacy torch file"),
        (s.blob([1.0], keys=["94"]), "header announces"),
        (s.blob([1.0], keys=[]), "header announces"),
        (s.blob([1.0], keys="93"), "not a little-endian legacy torch file"),
        (s.blob([1.0], entry=s.plain(("module", "x", "y", "cpu", 1, None))), "unexpected entry"),
        (s.blob([1.0], entry=s.plain(("storage", "x", "y", "cpu", 1, None))), "unexpected entry"),
        (s.blob([1.0], entry=s.plain(("storage", "FloatStorage", "93", "cpu", 1, (1, 2, 3)))), "unexpected entry"),
        (s.blob([1.0], entry=s.plain(("storage",))), "ValueError: not enough values"),
        (s.blob([1.0])[:-6], "struct.error|error: unpack requires"),
        (b"", "EOFError: the end is missing"),
        (b"PK\x03\x04\n", "refused: the file uses the pickle operation PERSID"),
    ],
)
def test_malformed_storage(content: bytes, match: str) -> None:
    with little_memory():
        assert "MemoryError" not in refuse(s.stream(s.storage(content), protocol=3), match)


def test_storage_that_is_not_bytes() -> None:
    refuse(s.stream(s.call("torch.storage", "_load_from_bytes", b"]")), "tensor storage: expected bytes, found a list")


# ----------------------------------------------------------------------------------------------------------------------
# Size and depth


@pytest.mark.parametrize(
    ("parts", "match"),
    [
        (b"Nr\xff\xff\xff\xff", None),  # Python's unpickler makes room for 4 billion entries
        (b"r\xff\xff\xff\xff", "the stack is empty"),
        (b"j\xff\xff\xff\xff", "KeyError: 4294967295"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f", "expected 9223372036854775807 bytes"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f", "expected 9223372036854775807 bytes"),
        (b"\x8e" + b"\xff" * 8, "Error"),
        (b"B\xff\xff\xff\xff", "expected 4294967295 bytes"),
        (b"\x8b\xff\xff\xff\x7f", "Error"),
        (b"\x8b\xff\xff\xff\xff", "Error"),
        (b"\x95\xff\xff\xff\xff\xff\xff\xff\x7fN", None),
        (b"t", "IndexError"),
        (b"0", "operation POP"),
        (b"", "the stack is empty"),
        (b"(Na", "the stack is empty"),
    ],
)
def test_announced_sizes(parts: bytes, match: str | None) -> None:
    data = s.stream(parts, protocol=4)
    with little_memory():
        if match is None:
            assert checkpoint.read(NamedFile(data)) is None
        else:
            assert "MemoryError" not in refuse(data, match)


def _doubling(empty: bytes, join: bytes, levels: int) -> bytes:
    """A container of two references to a container of two references to ..., kept in the memo."""
    parts = empty + b"q\x00"
    for level in range(levels):
        get = b"h" + bytes([level])
        parts += join % (get, get) + b"q" + bytes([level + 1])
    return parts


def test_containers_that_double_are_read_at_once() -> None:
    value = checkpoint.read(NamedFile(s.stream(_doubling(b"]", b"](%b%be", 200))))
    assert len(value) == 2
    assert value[0] is value[1]


@pytest.mark.parametrize(
    "of",
    [
        lambda bomb: s.persistent(class_name=bomb),
        lambda bomb: s.persistent(type=bomb),
        lambda bomb: s.persistent(module_src=bomb),
        lambda bomb: bomb + b"}b",
        lambda bomb: s.call("numpy", "dtype", bomb),
        lambda bomb: s.call("_codecs", "encode", bomb, bomb),
        lambda bomb: s.call("builtins", "set", s.tuple_of(bomb)),
        lambda bomb: s.call("collections", "OrderedDict", s.tuple_of(s.tuple_of(bomb, b"N"))),
        lambda bomb: b"}" + bomb + b"Ns",
        lambda bomb: bomb + b"Q",
        lambda bomb: bomb + s.plain("x") + b"\x93",
        lambda bomb: s.tensor(s.storage([1.0, 1.0])) + bomb + b"b",
        lambda bomb: s.call("torch._utils", "_rebuild_tensor_v2", s.storage([1.0]), bomb, bomb, bomb),
        lambda bomb: s.storage(s.blob([1.0], entry=bomb)),
        lambda bomb: s.storage(s.blob([1.0], entry=s.tuple_of(bomb, bomb, bomb, bomb, bomb, bomb))),
    ],
)
def test_doubling_tuples_are_neither_hashed_nor_compared_nor_printed(of: Any) -> None:
    refuse(s.stream(of(_doubling(b")", b"%b%b\x86", 100)), protocol=4), "evil")


@pytest.mark.parametrize("wrap", [b"\x85", b"]%ba"], ids=["tuple", "list"])
def test_nesting_without_end(wrap: bytes) -> None:
    deep = b")" + b"\x85" * 20_000 if wrap == b"\x85" else b"]" * 20_000 + b"a" * 19_999
    assert isinstance(checkpoint.read(NamedFile(s.stream(deep))), list | tuple)
    refuse(s.stream(b"}" + deep + b"Ns"), "uses a (tuple|list) as a key")
    refuse(s.stream(s.persistent(class_name=deep)), "class_name: expected a str")


def test_a_list_may_hold_itself() -> None:
    value = checkpoint.read(NamedFile(s.stream(b"]q\x00h\x00a")))
    assert value[0] is value


# ----------------------------------------------------------------------------------------------------------------------
# Other files


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "the file is empty"),
        (b"PK\x03\x04" + b"\0" * 30, "the file is truncated or damaged"),
        (b"\x89PNG\r\n\x1a\n", "not a network pickle but a PNG image"),
        (b"\xff\xd8\xff\xe0", "a JPEG image"),
        (b"\x1f\x8b\x08", "a gzip archive; unpack it first"),
        (b"<!DOCTYPE html>", "a web page or XML; was the download redirected"),
        (b"\n  <html>", "a web page or XML"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "what Git LFS leaves in place of a large file"),
        (b"hello", "not a network pickle: it does not begin as one"),
        (b"\0" * 100, "not a network pickle: it does not begin as one"),
        (b"\x80", "truncated, damaged or not a network pickle"),
        (b"\x80\x04", "truncated, damaged or not a network pickle"),
        (b"\x80\x04N", "truncated, damaged or not a network pickle"),
    ],
)
def test_files_of_other_kinds(data: bytes, match: str) -> None:
    refuse(data, match)


def test_a_file_without_a_name() -> None:
    with pytest.raises(CheckpointError, match=r"^network pickle: the file is empty$"):
        checkpoint.read(io.BytesIO())


def test_a_file_known_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with open(tmp_path / "empty", "rb") as f, open(f.fileno(), "rb", closefd=False) as numbered:
        with pytest.raises(CheckpointError, match=r"^network pickle: the file is empty$"):
            checkpoint.read(numbered)
