"""benchmarks/deploy.py: what it prints, of which networks."""
from typing import Any

import click
import pytest

from benchmarks import deploy
from tests import tiny

for name in ("onnxscript", "onnxruntime"):
    pytest.importorskip(name, reason="the extra [export] is not installed")


def test_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploy, "SECONDS", 0)
    shown: list[tuple[Any, dict[str, bytes]]] = []
    monkeypatch.setattr(deploy, "browser_times", lambda about, files: shown.append((about, files)) or (3.0, 4.0))
    cells = [line.strip("| ").split(" | ") for line in deploy.rows("tiny", tiny.tiny_generator(resolution=4), True)]
    assert all(len(row) == len(deploy.HEAD) and row[0] == "tiny" for row in cells)
    assert [row[1:3] for row in cells] == [
        ["torch, plain ops", "float32"], ["torch, native CPU ops", "float32"],
        *[["onnxruntime", weights] for weights in deploy.WEIGHTS],
        *[["Chromium, WebAssembly", weights] for weights in deploy.WEIGHTS],
    ]
    assert [row[4:] for row in cells[-3:]] == [["3.00", "4.00", "250.0"]] * 3
    sizes = [len(files["generator-image.onnx"]) for _, files in shown]
    assert sizes[0] > sizes[1] > sizes[2]


def test_networks() -> None:
    name, G = deploy.opened("random:64")
    assert (name, G.img_resolution, G.synthesis.b64.conv1.weight.shape[0]) == ("random weights, 64 px", 64, 32)
    with pytest.raises(click.UsageError, match="expected random:64, random:256, random:1024 or a file, found random:7"):
        deploy.opened("random:7")
