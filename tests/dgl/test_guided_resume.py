"""Exact resume of runs with teachers: an interrupted run and an unbroken one end in the same bits."""
import signal
from pathlib import Path
from typing import Any

import pytest

from dnnlib.errors import UserError
from tests import tiny
from tests.training import tiny_runs
from tests.training.test_resume import check_interrupted, check_made_longer


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("data")
    return {
        "plain": tiny.write_data(folder / "plain"),
        "labelled": tiny.write_data(folder / "labelled", num_classes=3),
        "teacher1": tiny.write_teacher(folder / "teacher1.pkl", seed=1),
        "teacher2": tiny.write_teacher(folder / "teacher2.pkl", seed=2),
        "conditional": tiny.write_teacher(folder / "conditional.pkl", c_dim=3),
    }


def configuration(name: str, data: dict[str, str]) -> dict[str, Any]:
    teacher = f"--teacher={data['teacher1']}"
    if name == "sliced":
        return tiny_runs.options(data["plain"], *tiny_runs.DGL, teacher, "--width=0.5", "--gamma=1")
    if name == "two-stages":
        two = [teacher, f"--teacher={data['teacher2']}", "--init=scratch", "--width=2/3"]
        config = tiny_runs.options(data["plain"], *tiny_runs.DGL, *two, "--aug=ada", ada_kimg=0.08, ada_interval=2)
        config["loss_kwargs"]["stage1_kimg"] = 0.02
        return config
    assert name == "updated"
    options = [f"--teacher={data['conditional']}", "--width=1", "--cond=1", "--teacher-update"]
    config = tiny_runs.options(data["labelled"], *tiny_runs.DGL, *options)
    config["loss_kwargs"].update(stage1_kimg=0.008, teacher_reg_interval=3)
    return config


@pytest.fixture(scope="module")
def unbroken(data: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of every configuration, from its start to its end."""
    folder = tmp_path_factory.mktemp("unbroken")
    names = ("sliced", "two-stages", "updated")
    return {name: tiny_runs.run(folder / name, configuration(name, data)) for name in names}


def test_the_runs_do_what_they_are_meant_to(unbroken: dict[str, Path]) -> None:
    """Otherwise their equality would not mean much."""
    assert tiny_runs.last_state(unbroken["two-stages"])["stage"] == 1
    assert len(tiny_runs.last_state(unbroken["updated"])["loss"]["teachers"]) == 1
    assert len(tiny_runs.last_state(unbroken["updated"])["optimizers"]) == 3
    for folder in unbroken.values():
        assert not any("nan" in str(record).lower() for record in tiny_runs.records(folder))


# Images after which the run is ended by its own length: in the middle of a tick, at its end, at the second stage.
@pytest.mark.parametrize(("name", "nimg"), [
    ("sliced", 20), ("two-stages", 16), ("two-stages", 20), ("updated", 8), ("updated", 20)])
def test_a_run_that_is_made_longer(
    name: str, nimg: int, data: dict[str, str], unbroken: dict[str, Path], tmp_path: Path
) -> None:
    check_made_longer(configuration(name, data), nimg, unbroken[name], tmp_path / "run")


@pytest.mark.parametrize(("name", "iteration", "number"), [
    ("two-stages", 5, signal.SIGTERM), ("updated", 6, signal.SIGINT), ("sliced", 10, signal.SIGTERM)])
def test_a_run_that_is_interrupted(
    name: str,
    iteration: int,
    number: int,
    data: dict[str, str],
    unbroken: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    config = configuration(name, data)
    check_interrupted(config, iteration, number, unbroken[name], tmp_path / "run", monkeypatch, capfd)


def test_a_teacher_that_changed_is_refused(data: dict[str, str], tmp_path: Path) -> None:
    config = configuration("sliced", data)
    changed = tiny.write_teacher(tmp_path / "other.pkl", seed=5)
    folder = tiny_runs.run(tmp_path / "run", config, total_kimg=0.004)
    config["loss_kwargs"]["teachers"][0]["url"] = changed
    with pytest.raises(UserError, match=r"other.pkl has changed: its sha256 is .*, this run began with"):
        tiny_runs.run(folder, config, resume_state=True)
