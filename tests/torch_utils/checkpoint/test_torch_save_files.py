"""Files of torch.save, in both formats, without torch.load."""
import collections
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from torch_utils.checkpoint import CheckpointError, Inert, read_torch_file

BOTH = pytest.mark.parametrize("zipped", [True, False])


def save(data: Any, path: Path, zipped: bool) -> Path:
    torch.save(data, path, _use_new_zipfile_serialization=zipped)
    return path


@BOTH
def test_tensors_and_plain_values(tmp_path: Path, zipped: bool) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    types = (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool)
    data = {
        "plain": [1, -2.5, "text", None, True, (3, b"bytes")],
        "state": collections.OrderedDict(a=base, b=base[1:, ::2], c=base.t()),
        "types": [torch.ones([2], dtype=d) for d in types],
        "empty": torch.empty([0, 3]),
        "scalar": torch.tensor(1.5),
        "parameter": torch.nn.Parameter(torch.ones([2])),
    }
    result = read_torch_file(save(data, tmp_path / "x.pth", zipped))
    assert result["plain"] == data["plain"]
    for key in "abc":
        assert torch.equal(result["state"][key], data["state"][key])
    assert [t.dtype for t in result["types"]] == [t.dtype for t in data["types"]]
    assert all(torch.equal(a, b) for a, b in zip(result["types"], data["types"]))
    assert result["empty"].shape == (0, 3)
    assert result["scalar"].item() == 1.5
    assert torch.equal(result["parameter"], torch.ones([2]))


@BOTH
def test_the_state_of_a_network(tmp_path: Path, zipped: bool) -> None:
    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    result = read_torch_file(save(network.state_dict(), tmp_path / "x.pth", zipped))
    assert list(result) == list(network.state_dict())
    assert all(torch.equal(result[name], tensor) for name, tensor in network.state_dict().items())


@BOTH
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_objects_become_inert(tmp_path: Path, zipped: bool) -> None:
    data = {"relu": torch.nn.ReLU(), "path": Path("x"), "score": np.float64(3), "kept": 1}
    result = read_torch_file(save(data, tmp_path / "x.pth", zipped))
    assert isinstance(result["relu"], Inert)
    assert isinstance(result["path"], Inert)
    assert (result["score"], result["kept"]) == (3, 1)


@BOTH
def test_a_truncated_file(tmp_path: Path, zipped: bool) -> None:
    path = save({"a": torch.ones([1000])}, tmp_path / "x.pth", zipped)
    whole = path.read_bytes()
    for size in (0, 1, 50, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"x\.pth: "):
            read_torch_file(path)


def test_other_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"missing\.pth: cannot be read: No such file"):
        read_torch_file(tmp_path / "missing.pth")
    path = tmp_path / "x.pth"
    path.write_text("<html>")
    with pytest.raises(CheckpointError, match=r"x\.pth: "):
        read_torch_file(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images/0.png", b"")
    with pytest.raises(CheckpointError, match="a zip archive that was not written by"):
        read_torch_file(path)


def rewrite(path: Path, changes: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, changes.get(name.partition("/")[2], content))


def test_archives_that_contradict_themselves(tmp_path: Path) -> None:
    path = save({"a": torch.ones([4])}, tmp_path / "x.pth", zipped=True)
    rewrite(path, {"data/0": b"1234"})
    with pytest.raises(CheckpointError, match="expected 16 bytes"):
        read_torch_file(path)
    path = save({"a": torch.ones([4])}, tmp_path / "x.pth", zipped=True)
    rewrite(path, {"byteorder": b"big"})
    with pytest.raises(CheckpointError, match="the numbers are not little-endian"):
        read_torch_file(path)
