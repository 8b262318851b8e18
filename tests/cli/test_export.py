"""export.py: what it writes, what it says, and what it refuses."""
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import export
import generate
import prune_init
from tests import tiny
from training.checkpoints.pickles import open_networks


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.write_teacher(tmp_path_factory.mktemp("net") / "net.pkl", resolution=4)


def run(network: str, kind: str, dest: Path, *args: str) -> Any:
    return CliRunner().invoke(export.main, [f"--network={network}", f"--format={kind}", f"--dest={dest}", *args])


def refused(network: str, kind: str, dest: Path, *args: str) -> str:
    before = sorted(dest.parent.rglob("*")) if dest.parent.exists() else []
    result = run(network, kind, dest, *args)
    assert result.exit_code == 1
    assert (sorted(dest.parent.rglob("*")) if dest.parent.exists() else []) == before
    return result.output.strip()


def test_onnx(network: str, tmp_path: Path) -> None:
    for name in ("onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="the extra [export] is not installed")
    result = run(network, "onnx", tmp_path / "net.onnx", "--input=w")
    assert result.exit_code == 0, result.output
    first, second, third = result.output.splitlines()
    assert first == "opset 20; inputs: w [batch, 2, 16]"
    assert second.startswith("checked in onnxruntime with batches of 1, 2, 5: largest difference from torch ")
    assert third == f"{tmp_path}/net.onnx: {(tmp_path / 'net.onnx').stat().st_size:,} bytes"


def test_torch(network: str, tmp_path: Path) -> None:
    result = run(network, "torch", tmp_path / "net.pt2", "--noise=none")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "net.pt2").is_file()


@pytest.mark.parametrize("parts", ["G_ema", "G_ema,D", "all"])
def test_safetensors_are_read_by_commands(parts: str, network: str, tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    result = run(network, "safetensors", file, f"--parts={parts}")
    assert (result.exit_code, result.output) == (0, f"{file}: {file.stat().st_size:,} bytes\n")
    pixels = []
    for source in (network, str(file)):
        args = [f"--network={source}", "--seeds=3", f"--outdir={tmp_path}/out", "--device=cpu"]
        assert CliRunner().invoke(generate.main, args).exit_code == 0
        pixels.append((tmp_path / "out" / "seed0003.png").read_bytes())
    assert pixels[0] == pixels[1]
    again = run(str(file), "safetensors", tmp_path / "again.safetensors", f"--parts={parts}")
    assert again.exit_code == 0
    assert (tmp_path / "again.safetensors").read_bytes() == file.read_bytes()


def test_float16_teacher_for_a_student(tmp_path: Path) -> None:
    network = tiny.write_teacher(tmp_path / "net.pkl")
    teacher, whole = tmp_path / "teacher.safetensors", tmp_path / "whole.safetensors"
    assert run(network, "safetensors", teacher, "--parts=G_ema,D", "--weights=float16").exit_code == 0
    assert run(network, "safetensors", whole, "--parts=G_ema,D").exit_code == 0
    header = 20_000  # of both files, at most
    assert teacher.stat().st_size < whole.stat().st_size / 2 + header
    opened = open_networks(str(teacher))
    assert sorted(role for role in ("G", "G_ema", "D", "augment_pipe") if opened.get(role) is not None) == [
        "D", "G", "G_ema"]
    slice_args = [f"--teacher={teacher}", "--width=0.5", f"--dest={tmp_path}/student.pkl"]
    result = CliRunner().invoke(prune_init.main, slice_args)
    assert result.exit_code == 0, result.output
    assert run(network, "hub", tmp_path / "hub", "--parts=G_ema,D", "--weights=float16").exit_code == 0
    assert (tmp_path / "hub" / "model.safetensors").stat().st_size == teacher.stat().st_size
    assert "Weights are stored in float16; samples" in (tmp_path / "hub" / "README.md").read_text()


def test_parts_that_a_file_lacks_are_named(network: str, tmp_path: Path) -> None:
    alone = tmp_path / "alone.safetensors"
    assert run(network, "safetensors", alone).exit_code == 0
    assert "alone.safetensors: holds no D, which is needed here" in refused(
        str(alone), "safetensors", tmp_path / "x.safetensors", "--parts=G_ema,D")


def test_what_exists_stays(network: str, tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    file.write_text("mine")
    assert refused(network, "safetensors", file) == (
        f"Error: --dest: {file} exists already; remove it, or name another")
    assert file.read_text() == "mine"


def test_bad_input(network: str, tmp_path: Path) -> None:
    assert refused(network, "onnx", tmp_path / "no" / "net.onnx").startswith("Error: --dest: ")
    assert "there is no folder" in refused(network, "onnx", tmp_path / "no" / "net.onnx")
    assert refused(network, "torch", tmp_path / "net.pt2", "--weights=int8") == (
        "Error: --weights: has no meaning for --format=torch, only for onnx, safetensors, hub, web; leave it out")
    assert refused(network, "hub", tmp_path / "hub", "--weights=int8") == (
        "Error: --weights: --format=hub stores float32 or float16, found int8")
    assert refused(network, "safetensors", tmp_path / "x.safetensors", "--input=w") == (
        "Error: --input: has no meaning for --format=safetensors, only for onnx, torch; leave it out")
    assert "expected a name that ends in .safetensors" in refused(network, "safetensors", tmp_path / "net.st")
    assert "no such file" in refused(f"{tmp_path}/none.pkl", "onnx", tmp_path / "net.onnx").lower()


def test_a_missing_package(network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxscript.optimizer", None)
    message = refused(network, "onnx", tmp_path / "net.onnx")
    assert "--format: " not in message
    assert message.startswith("Error: the format onnx needs the package onnxscript")
    assert "install the extra [export]: pip install onnxscript onnx" in message
