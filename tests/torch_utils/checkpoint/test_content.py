"""Files are mapped, not copied; the tensors that are read are the file's; changing them leaves the file alone."""
import io
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.torch_utils.checkpoint import streams
from torch_utils import checkpoint
from torch_utils.checkpoint import storage
from torch_utils.checkpoint.content import VIEW_BYTES, Content, map_file


@pytest.fixture(scope="module")
def saved(tmp_path_factory: Any) -> Path:
    path = tmp_path_factory.mktemp("content") / "large.pkl"
    checkpoint.write_pickle({"weights": torch.arange(VIEW_BYTES).float(), "few": torch.arange(3)}, path)
    return path


def test_large_tensors_of_a_file_share_its_mapping_and_small_ones_do_not(saved: Path) -> None:
    with open(saved, "rb") as f:
        data = checkpoint.read(f)
        assert f.read() == b""
    before = saved.read_bytes()
    assert torch.equal(data["weights"], torch.arange(VIEW_BYTES).float())
    data["weights"].add_(1)  # private to this process
    assert saved.read_bytes() == before
    lines = Path("/proc/self/maps").read_text().splitlines()
    maps = [line.split()[0].split("-") for line in lines if "large.pkl" in line]
    inside = [any(int(a, 16) <= data[name].data_ptr() < int(b, 16) for a, b in maps) for name in ("weights", "few")]
    assert inside == [True, False]


def test_streams_that_are_no_files_give_the_same(saved: Path) -> None:
    with open(saved, "rb") as f:
        first = checkpoint.read(f)
    second = checkpoint.read(io.BytesIO(saved.read_bytes()))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_file_is_read_from_its_position_on(tmp_path: Path) -> None:
    path = tmp_path / "some.bin"
    path.write_bytes(b"0123456789")
    with open(path, "rb") as f:
        f.seek(4)
        assert map_file(f).tobytes() == b"456789"
        assert map_file(f).tobytes() == b""


def test_pieces_and_lines() -> None:
    data = b"one\n" + b"x" * 300 + b"\n" + b"y" * VIEW_BYTES + b"rest"
    stream = Content(memoryview(data))
    assert stream.read(2) == b"on"
    assert stream.readline() == b"e\n"
    assert stream.readline() == b"x" * 300 + b"\n"
    large = stream.read(VIEW_BYTES)
    assert isinstance(large, memoryview)
    assert large == b"y" * VIEW_BYTES
    assert (stream.readline(), stream.readline(), stream.read(), stream.read(5)) == (b"rest", b"", b"", b"")


def test_the_usual_header_of_a_storage_is_what_torch_writes_and_others_are_read_too() -> None:
    whole = io.BytesIO()
    torch.save(torch.ones(2), whole, _use_new_zipfile_serialization=False)
    usual, other = streams.blob([1.0, 2.0]), streams.blob([1.0, 2.0], machine={"little_endian": True})
    assert whole.getvalue().startswith(storage._USUAL_HEADER)
    assert usual.startswith(storage._USUAL_HEADER)
    assert not other.startswith(storage._USUAL_HEADER)
    for content in (usual, memoryview(usual), other):
        assert storage.parse_storage(content).tolist() == [1.0, 2.0]
