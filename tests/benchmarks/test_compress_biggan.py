"""The benchmark of BigGANs: order of work, class scores, resuming, and what is reported."""
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from benchmarks import compress_biggan
from benchmarks.compress import classes, execution
from dgl import cost
from tests import tiny_biggan
from tests.helpers import random_images, run_command, write_images, zip_folder
from tests.metrics import toys
from training.data import image_grid


def test_order_of_work() -> None:
    result = compress_biggan.jobs(teacher_kimg=100, student_kimg=50, seeds=2)
    names = [*(f"half-distil{kimg}" for kimg in (50, 25, 10, 5)), "half-plain-distil25", "half-game",
             "half-game-teacher"]
    distilled = [f"{name}-seed{seed}" for seed in (0, 1) for name in names]
    assert [job.key for job in result] == [
        "teacher-seed0", "half-untrained-seed0", "half-refitted-seed0", *distilled,
        "half-lambda0-seed0", "half-lambda0.1-seed0", "half-lambda0-seed1", "half-lambda0.1-seed1"]
    pair = [set(job.arguments) for job in result[-2:]]
    assert pair[0] ^ pair[1] == {"--dgl-weight=0", "--dgl-weight=0.1"}, "nothing else differs"
    assert [job.kimg for job in result[3:10]] == [50, 25, 10, 5, 25, 35, 35]
    assert [job.data for job in result[3:10]] == ["", "", "", "", "", "real", "teacher"]
    assert len({job.key for job in compress_biggan.jobs(100, 5, 1)}) == 3 + 4 + 2, "lengths that coincide count once"
    assert {job.kimg for job in result[-4:]} == {50}


def test_class_scores() -> None:
    """Class 0: all seen as 0, features shifted by 3 in one of two directions; class 1: half seen, not shifted."""
    rng = np.random.RandomState(0)
    real, labels = rng.randn(40, 2), np.repeat([0, 1], 20)
    gen = real + np.where(labels == 0, 3, 0)[:, None] * [1, 0]
    predicted = np.where(labels == 0, 0, np.arange(40) % 2)
    result = classes.class_scores(real, labels, gen, labels, predicted)
    assert result["accuracy"] == [1, 0.5]
    assert result["intra_fd"] == pytest.approx([9, 0], abs=1e-9)


class Sees(torch.nn.Module):
    """A detector that finds the class in the brightness of the image."""

    def forward(self, img: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        level = img.float().mean(dim=[1, 2, 3])
        if return_features:
            return torch.stack([level, level.square()], dim=1)
        return torch.nn.functional.one_hot((level / 100).long().clamp(max=2), 3).float()


class Paints(torch.nn.Module):
    """A generator of images as bright as their class, but for class 2, which looks like class 1."""

    z_dim, c_dim = 4, 3

    def forward(self, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        level = c.argmax(dim=1).clamp(max=1) * 100 + 50 + z[:, 0]
        return (level / 127.5 - 1)[:, None, None, None].expand(-1, 1, 4, 4)


class Labelled:
    label_dim = 3

    def __len__(self) -> int:
        return 30

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        return np.full([1, 4, 4], i % 3 * 100 + 40 + i // 3, dtype=np.uint8), np.eye(3)[i % 3]


def test_evaluation_asks_for_every_class_alike() -> None:
    result = classes.evaluate(Paints(), Labelled(), Sees(), num_gen=60, seed=0)
    assert result["per_class"]["accuracy"] == [1, 1, 0]
    assert result["accuracy"] == pytest.approx(2 / 3)
    assert result["real_accuracy"] == 1
    assert result["per_class"]["intra_fd"][2] > result["per_class"]["intra_fd"][1] > 0


@pytest.mark.slow
def test_a_short_run_from_start_to_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(*args: Any) -> list[compress_biggan.Job]:
        options = ("--kimg=1", "--d-steps=1", "--batch=100", "--cond=true", "--metrics=none", "--workers=0")
        student = ("--cfg=dgl-biggan", "--recipe=paper", "--width=0.5", "--score=first", "--dgl-weight=0.1", *options)
        teacher = ("--cfg=biggan", "--ch=2", "--z-dim=8", *options)
        return [compress_biggan.Job("teacher", "teacher", 0, 1, teacher, "real"),
                compress_biggan.Job("half-untrained", "slice", 0, 0, ("--width=0.5", "--score=first")),
                compress_biggan.Job("half-lambda0.1", "student", 0, 1, student, "real")]

    images = random_images(60, side=32, num_channels=1)
    data = zip_folder(write_images(tmp_path / "data", images, [i % 3 for i in range(60)]))
    monkeypatch.setattr(compress_biggan, "jobs", small)
    monkeypatch.setattr(execution.Workshop, "command", lambda shop, *words: run_command(words))
    monkeypatch.setattr(image_grid, "MAX_PIXELS", (1, 1))
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(cost, "MEASURING_SEC", 0.1)
    args = [f"--out={tmp_path / 'out'}", f"--train-data={data}", f"--test-data={data}", "--num-gen=30",
            f"--detector={toys.write_detector(tmp_path / 'clothing32.pt')}", f"--dest={tmp_path / 'results'}"]
    result = CliRunner().invoke(compress_biggan.main, args)
    assert result.exit_code == 0, result.output
    assert "All runs are done" in result.output
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [row["name"] for row in rows] == ["teacher", "half-untrained", "half-lambda0.1"]
    assert set(compress_biggan.COLUMNS) == set(rows[1]["results"]) & set(compress_biggan.COLUMNS)
    assert set(compress_biggan.COLUMNS) - set(rows[0]["results"]) == {"agreement_psnr"}, "of the teacher with itself"
    again = CliRunner().invoke(compress_biggan.main, args)
    assert again.exit_code == 0, again.output
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 3, "what is done is not done again"
    assert "scored" in CliRunner().invoke(compress_biggan.main, [*args, "--list"]).output
    report = CliRunner().invoke(compress_biggan.main, [*args, "--report"])
    assert report.exit_code == 0, report.output
    text = (tmp_path / "results" / "compress_biggan.md").read_text()
    assert "| student | 1 | 1 |" in text
    assert "student G" in text


def test_missing_files_are_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(compress_biggan.main, [f"--out={tmp_path}", f"--train-data={tmp_path}/none.zip"])
    assert result.exit_code == 1
    assert "--train-data" in result.output
    assert "no such file" in result.output
    teacher = tiny_biggan.write_teacher(tmp_path / "teacher.pkl")
    result = CliRunner().invoke(classes.main, [f"--network={teacher}", f"--data={tmp_path}/none.zip",
                                               "--detector=none.pt"])
    assert result.exit_code == 1
    assert "--data" in result.output


def test_the_committed_report_is_that_of_its_rows(tmp_path: Path) -> None:
    committed = execution.ROOT / "docs" / "results"
    args = ["--report", f"--rows={committed / 'compress_biggan.jsonl'}", f"--dest={tmp_path}"]
    assert CliRunner().invoke(compress_biggan.main, args).exit_code == 0
    for path in tmp_path.iterdir():
        assert path.read_text() == (committed / path.name).read_text(), path.name
