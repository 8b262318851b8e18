"""What train.py --dry-run measures and counts, and what a run says of it."""
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

import train
from tests import tiny
from tests.training import tiny_runs
from training import run_config
from training.estimates import disk, measuring
from training.run_state import KEPT


@pytest.fixture(scope="module")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.write_data(tmp_path_factory.mktemp("data") / "plain")


@pytest.fixture(scope="module")
def counted(tiny_data: str) -> measuring.Estimate:
    config = run_config.from_dict(tiny_runs.options(tiny_data, *tiny_runs.STYLEGAN2, "--aug=noaug"))
    return measuring.measure(config)


def test_shares_and_hours(counted: measuring.Estimate) -> None:
    (stage,) = counted.stages
    assert list(stage.shares) == ["data", "Gmain", "Greg", "Dmain", "Dreg"]
    assert sum(stage.shares.values()) == pytest.approx(1)
    assert stage.steps == measuring.STEPS
    assert counted.hours == pytest.approx(0.04 / stage.kimg_per_hour)
    assert counted.peak_bytes > 1 << 20


def test_disk_and_the_line_of_a_run(
    counted: measuring.Estimate, tiny_data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Counted before, and what a run then wrote and printed."""
    assert counted.disk.snapshots == 3  # at the start, in the middle, at the end
    run_dir = tiny_runs.run(tmp_path / "run", tiny_runs.options(tiny_data, *tiny_runs.STYLEGAN2, "--aug=noaug"))
    written = sum(path.stat().st_size for path in run_dir.rglob("*") if path.suffix in (".pkl", ".pt"))
    overhead = 150_000 * (counted.disk.snapshots + KEPT)  # programs' text and structure; the tensors are tiny
    assert counted.disk.total < written < counted.disk.total + overhead
    printed = capsys.readouterr().out
    assert printed.count(f"Disk: {counted.disk.total / 2**20:,.0f} MiB for 3 snapshots and the last 2 states; ") == 1


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=20 << 20))
    few, many = (disk.DiskSpace(snapshots, 4 << 20, 3 << 20) for snapshots in (2, 4))
    assert few.line(tmp_path / "not" / "there") == "Disk: 14 MiB for 2 snapshots and the last 2 states; 20 MiB are free"
    assert caplog.text == ""
    assert many.line(tmp_path).startswith("Disk: 22 MiB for 4 snapshots")
    assert "the run needs 22 MiB of disk space, and 20 are free: fewer snapshots need less" in caplog.text


def test_a_disk_that_does_not_say_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(path: str) -> None:
        raise OSError("no such thing")

    monkeypatch.setattr(shutil, "disk_usage", unknown)
    assert disk.DiskSpace(1, 1 << 20, 0).line(tmp_path) == "Disk: 1 MiB for 1 snapshots and the last 2 states"


def test_tensors_of_a_state_are_counted_wherever_they_are() -> None:
    state = {"a": torch.zeros(2), "b": {"c": [torch.zeros(3, dtype=torch.float64), 5], "d": "text"}}
    assert disk._bytes_of(state) == 8 + 24


def test_the_command_line(tiny_data: str, tmp_path: Path) -> None:
    """Of four processes, each of which has a quarter of the batch."""
    args = [f"--data={tiny_data}", f"--outdir={tmp_path}/runs", "--metrics=none", *tiny_runs.STYLEGAN2, "--dry-run",
            "--batch=8", "--gpus=4"]
    result = CliRunner().invoke(train.main, args)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout.split("Resolved options:\n")[1].split("\n\n")[0])["total_kimg"] == 25000
    assert "Measured by 3 steps: " in result.output
    assert " kimg/h for 25000 kimg (" in result.output
    assert "if 4 processes exchange gradients in no time and each is as fast as one alone\n" in result.output
    assert " MiB per process\n" in result.output
    assert result.output.endswith("Nothing was started (--dry-run).\n")
    assert not (tmp_path / "runs").exists()


def test_no_estimate_without_a_dry_run(tiny_data: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(train.main, [f"--data={tiny_data}", f"--outdir={tmp_path}", "--no-estimate"])
    assert "Error: --estimate and --no-estimate go with --dry-run" in result.output


def test_slow_steps_are_fewer(counted: measuring.Estimate, tiny_data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "MAX_SECONDS", 1e-9)
    config = run_config.from_dict(tiny_runs.options(tiny_data, *tiny_runs.STYLEGAN2, "--aug=noaug"))
    (stage,) = measuring.measure(config).stages
    assert stage.steps == 1
    assert stage.line().startswith("Measured by 1 step: ")


def test_bounds_of_stages() -> None:
    for changes, expected in [([], [(0, 40)]), ([1], [(0, 1), (1, 40)]), ([7, 39], [(0, 7), (7, 39), (39, 40)]),
                              ([40], [(0, 40)])]:
        loss = SimpleNamespace(stage=lambda nimg, changes=changes: sum(nimg >= change for change in changes))
        assert measuring._bounds(SimpleNamespace(loss=loss), 40) == expected
