"""What train.py --estimate measures and counts."""
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import train
from tests import tiny
from tests.training import tiny_runs
from training import run_config
from training.estimates import measuring


@pytest.fixture(scope="module")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.write_data(tmp_path_factory.mktemp("data") / "plain")


@pytest.fixture(scope="module")
def counted(tiny_data: str) -> tuple[run_config.RunConfig, measuring.Estimate]:
    config = run_config.from_dict(tiny_runs.options(tiny_data, *tiny_runs.STYLEGAN2, "--aug=noaug"))
    return config, measuring.measure(config)


def test_shares_and_hours(counted) -> None:
    config, estimate = counted
    assert list(estimate.shares) == ["data", "Gmain", "Greg", "Dmain", "Dreg"]
    assert sum(estimate.shares.values()) == pytest.approx(1)
    assert estimate.hours == pytest.approx(config.schedule.total_kimg / estimate.kimg_per_hour)
    assert estimate.peak_bytes > 1 << 20


def test_disk(counted, tiny_data: str, tmp_path: Path) -> None:
    """Counted before, and what a run then wrote."""
    _, estimate = counted
    assert estimate.snapshots == 3  # at the start, in the middle, at the end
    run_dir = tiny_runs.run(tmp_path / "run", tiny_runs.options(tiny_data, *tiny_runs.STYLEGAN2, "--aug=noaug"))
    written = sum(path.stat().st_size for path in run_dir.rglob("*") if path.suffix in (".pkl", ".pt"))
    overhead = 150_000 * (estimate.snapshots + measuring.KEPT)  # programs' text and structure; the tensors are tiny
    assert estimate.disk_bytes < written < estimate.disk_bytes + overhead


def test_the_command_line(tiny_data: str, tmp_path: Path) -> None:
    args = [f"--data={tiny_data}", f"--outdir={tmp_path}/runs", "--metrics=none", *tiny_runs.STYLEGAN2, "--estimate"]
    result = CliRunner().invoke(train.main, args)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout.split("Resolved options:\n")[1].split("\n\n")[0])["total_kimg"] == 25000
    assert "kimg/h" in result.output
    assert " snapshots and the last 2 states)" in result.output
    assert result.output.endswith("Nothing was started (--estimate).\n")
    assert not (tmp_path / "runs").exists()
