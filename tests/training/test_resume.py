"""Exact resume: an interrupted run and an unbroken one end in the same bits."""
import errno
import itertools
import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
import torch

from dnnlib import files
from dnnlib.errors import UserError
from dnnlib.objects import get_obj_by_name
from tests import forks, tiny
from tests.robustness import record
from tests.training import tiny_runs
from training import run_state, training_loop
from training.checkpoints import pickles

KILLS = int(os.environ.get("KILLS", "6"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("data")
    return {
        "plain": tiny.write_data(folder / "plain", side=8),
    }


def configuration(data: dict[str, str]) -> dict[str, Any]:
    """A run in which everything has a state; p moves by 0.1 every second iteration, down at first."""
    changes: dict[str, Any] = {"augment_p": 0.5, "ada_kimg": 0.08, "ada_interval": 2, "ema_rampup": 0.05}
    return tiny_runs.options(data["plain"], *tiny_runs.STYLEGAN2, "--mirror=1", **changes)


@pytest.fixture(scope="module")
def unbroken(data: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from its start to its end."""
    return tiny_runs.run(tmp_path_factory.mktemp("unbroken") / "run", configuration(data))


def networks(folder: Path, name: str = "network-snapshot-000000.pkl") -> dict[str, Any]:
    nets = pickles.open_networks(str(folder / name))
    return {key: nets[key].state_dict() for key in ("G", "D", "G_ema", "augment_pipe") if nets[key] is not None}


def assert_same_run(broken: Path, unbroken: Path) -> None:
    states = [tiny_runs.last_state(folder) for folder in (broken, unbroken)]
    assert states[0]["cur_nimg"] == 40
    assert tiny_runs.differences(*states) == []
    assert tiny_runs.differences(networks(broken), networks(unbroken)) == []
    assert tiny_runs.records(broken) == tiny_runs.records(unbroken)
    assert len(tiny_runs.records(broken)) == 4
    for name in ("fakes000000.png", "reals.png"):
        assert (broken / name).read_bytes() == (unbroken / name).read_bytes()


def test_the_run_does_what_it_is_meant_to(unbroken: Path) -> None:
    """Otherwise its equality would not mean much."""
    records = tiny_runs.records(unbroken)
    assert len({record["Progress/augment"]["mean"] for record in records}) > 1
    assert float(tiny_runs.last_state(unbroken)["loss"]["pl_mean"]) > 0
    assert not any("nan" in str(record).lower() for record in records)


def test_the_same_run_twice_gives_the_same_bits(
    data: dict[str, str], unbroken: Path, tmp_path: Path
) -> None:
    torch.manual_seed(99)
    assert_same_run(tiny_runs.run(tmp_path / "again", configuration(data)), unbroken)


def check_made_longer(config: dict[str, Any], nimg: int, unbroken: Path, folder: Path) -> None:
    """A run that is ended by its own length, and then made longer, ends like an unbroken one."""
    tiny_runs.run(folder, config, total_kimg=nimg / 1000)
    assert tiny_runs.last_state(folder)["cur_nimg"] == nimg
    tiny_runs.run(folder, config, resume_state=True)
    assert_same_run(folder, unbroken)


@pytest.mark.parametrize("nimg", [20, 28])  # in the middle of a tick, at its end
def test_a_run_that_is_made_longer(nimg: int, data: dict[str, str], unbroken: Path, tmp_path: Path) -> None:
    check_made_longer(configuration(data), nimg, unbroken, tmp_path / "run")


def interrupt(monkeypatch: pytest.MonkeyPatch, iteration: int, action: Any) -> None:
    """Lets something happen at the end of an iteration, counted from 1."""
    count = 0
    original = training_loop.update_ema

    def update_ema(*args: Any) -> None:
        nonlocal count
        original(*args)
        count += 1
        if count == iteration:
            action()

    monkeypatch.setattr(training_loop, "update_ema", update_ema)


def check_interrupted(
    config: dict[str, Any], iteration: int, number: int, unbroken: Path, folder: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A run that a signal interrupts after an iteration, and that is then resumed, ends like an unbroken one."""
    with monkeypatch.context() as patch:
        interrupt(patch, iteration, lambda: os.kill(os.getpid(), number))
        tiny_runs.run(folder, config)
    assert f"Interrupted at image {4 * iteration}; the state is saved\n" in capfd.readouterr().out
    assert tiny_runs.last_state(folder)["cur_nimg"] == 4 * iteration
    tiny_runs.run(folder, config, resume_state=True)
    assert f"Resuming from image {4 * iteration}\n" in capfd.readouterr().out
    assert_same_run(folder, unbroken)


@pytest.mark.parametrize(("iteration", "number"), [(1, signal.SIGTERM), (3, signal.SIGINT), (4, signal.SIGTERM)])
def test_a_run_that_is_interrupted(
    iteration: int,
    number: int,
    data: dict[str, str],
    unbroken: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    check_interrupted(configuration(data), iteration, number, unbroken, tmp_path / "run", monkeypatch, capfd)


def test_a_second_ctrl_c_ends_at_once(data: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice() -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    interrupt(monkeypatch, 2, twice)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        tiny_runs.run(tmp_path / "run", configuration(data))
    assert signal.getsignal(signal.SIGINT) is before


class Killed(BaseException):
    """Stands for the sudden death of the process."""


@pytest.mark.parametrize(("where", "call"), [
    *itertools.product(["data.image_grid.SampleGrid.save_fakes", "checkpoints.pickles.save_networks",
                        "reporting.StatsWriter.write"], [1, 2]),
    *itertools.product(["run_state.save"], [1, 2, 3]),  # before and after the first snapshot, and before the second
])
def test_a_run_that_dies_during_maintenance(
    where: str,
    call: int,
    data: dict[str, str],
    unbroken: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = configuration(data)
    folder = tmp_path / "run"
    count = 0

    def die(original: Any) -> Any:
        def dying(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == call:
                raise Killed
            return original(*args, **kwargs)

        return dying

    holder, _, name = f"training.{where}".rpartition(".")
    owner = get_obj_by_name(holder) if holder not in sys.modules else sys.modules[holder]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, die(getattr(owner, name)))
        with pytest.raises(Killed):
            tiny_runs.run(folder, config)
    tiny_runs.run(folder, config, resume_state=True)
    assert_same_run(folder, unbroken)


def test_a_run_without_state_starts_over_and_says_so(
    data: dict[str, str], unbroken: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "stats.jsonl").write_text("{}\nhalf a li")
    tiny_runs.run(folder, configuration(data), resume_state=True)
    assert "No state was saved yet: starting over\n" in capfd.readouterr().out
    assert_same_run(folder, unbroken)


def test_a_finished_run_is_left_alone(
    data: dict[str, str], unbroken: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = unbroken
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    tiny_runs.run(folder, configuration(data), resume_state=True)
    assert "This run is complete at 0.04 kimg\n" in capfd.readouterr().out
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_abort_fn_ends_a_run_that_can_go_on(
    data: dict[str, str], unbroken: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = configuration(data)
    answers = iter([False, True])
    folder = tiny_runs.run(tmp_path / "run", config, abort_fn=lambda: next(answers))
    assert tiny_runs.last_state(folder)["cur_nimg"] == 16
    assert (folder / "network-snapshot-000000.pkl").exists()
    assert "Stopped by abort_fn\n" in capfd.readouterr().out
    tiny_runs.run(folder, config, resume_state=True)
    assert_same_run(folder, unbroken)


# State files.


@pytest.fixture(scope="module")
def run_with_two_states(data: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("states") / "run"
    return tiny_runs.run(folder, configuration(data), network_snapshot_ticks=1, total_kimg=0.028)


@pytest.fixture
def two_states(run_with_two_states: Path, data: dict[str, str], tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    return shutil.copytree(run_with_two_states, tmp_path / "run"), configuration(data)


def test_the_last_two_states_are_kept(two_states: tuple[Path, dict[str, Any]]) -> None:
    names = [path.name for path in run_state.state_files(two_states[0])]
    assert names == ["training-state-000000028.pt", "training-state-000000016.pt"]
    assert sorted(path.name for path in (two_states[0] / "state").iterdir()) == names[::-1]


@pytest.mark.parametrize("damage", ["empty", "half", "bit", "text"])
def test_the_older_state_stands_in_for_a_damaged_one(
    damage: str,
    two_states: tuple[Path, dict[str, Any]],
    unbroken: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder, config = two_states
    newest, _ = run_state.state_files(folder)
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 4
    new = {"empty": b"", "half": content[: len(content) // 2], "bit": content, "text": b"hello"}[damage]
    newest.write_bytes(new)
    with caplog.at_level(logging.WARNING):
        state = run_state.load_latest(folder)
    assert f"{newest} cannot be read" in caplog.text
    assert "trying the one before" in caplog.text
    assert state is not None
    assert state["cur_nimg"] == 16
    if damage == "bit":
        tiny_runs.run(folder, config, resume_state=True)
        assert_same_run(folder, unbroken)


def test_only_damaged_states_are_an_error(two_states: tuple[Path, dict[str, Any]]) -> None:
    folder, config = two_states
    for path in run_state.state_files(folder):
        path.write_bytes(b"hello")
    with pytest.raises(UserError, match=r"run: none of the 2 state files can be read; start a new run from one of"):
        tiny_runs.run(folder, config, resume_state=True)


def test_a_run_that_lost_its_states_is_not_overwritten(two_states: tuple[Path, dict[str, Any]]) -> None:
    folder, config = two_states
    for path in run_state.state_files(folder):
        path.unlink()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    newest = max(path.name for path in before if path.suffix == ".pkl")
    with pytest.raises(UserError, match=rf"run: the files in state/ are missing, but there is the snapshot {newest}"):
        tiny_runs.run(folder, config, resume_state=True)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer of torch.save hides the reason; here the disk is full after some thousand bytes."""
    run_state.save(tmp_path, {"cur_nimg": 5})
    original = files.open_atomic

    class Full:
        def __init__(self, file: IO[bytes]) -> None:
            self.file, self.left = file, 5000
            self.flush = file.flush

        def write(self, data: Any) -> int:
            self.left -= len(data)
            if self.left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self.file.write(data)

    @contextmanager
    def open_full(*args: Any) -> Iterator[Any]:
        with original(*args) as file:
            yield Full(file)

    monkeypatch.setattr(files, "open_atomic", open_full)
    state = {"cur_nimg": 6, "weights": torch.zeros([9999])}
    with pytest.raises(UserError, match=r"training-state-000000006.pt: cannot be written: No space left on device"):
        run_state.save(tmp_path, state)
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["training-state-000000005.pt"]


def test_a_state_of_another_version_is_refused(tmp_path: Path) -> None:
    run_state.save(tmp_path, {"cur_nimg": 5})
    assert run_state.load_latest(tmp_path) == {"version": run_state.VERSION, "cur_nimg": 5}
    torch.save({"version": 99}, tmp_path / "state" / "training-state-000000006.pt")
    with pytest.raises(UserError, match=r"000000006.pt: expected a state of version 1, found 99; resume"):
        run_state.load_latest(tmp_path)
    torch.save({"version": [torch.zeros(3, 3)]}, tmp_path / "state" / "training-state-000000006.pt")
    with pytest.raises(UserError, match=r"found \[tensor\([^\n]*\]; resume with the release that wrote it$"):
        run_state.load_latest(tmp_path)


def test_a_state_cannot_run_code(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'executed'}",)

    run_state.save(tmp_path, {"cur_nimg": 5})
    torch.save({"version": 1, "evil": Evil()}, tmp_path / "state" / "training-state-000000006.pt")
    state = run_state.load_latest(tmp_path)
    assert state is not None
    assert state["cur_nimg"] == 5
    assert not (tmp_path / "executed").exists()


def test_another_data_set_is_refused(two_states: tuple[Path, dict[str, Any]], data: dict[str, str]) -> None:
    folder, config = two_states
    config["training_set_kwargs"]["xflip"] = False
    with pytest.raises(UserError, match="expected the state of a data set of 12 images, found one of 24"):
        tiny_runs.run(folder, config, resume_state=True, total_kimg=0.04)


def test_another_batch_size_keeps_the_image_count(two_states: tuple[Path, dict[str, Any]]) -> None:
    folder, config = two_states
    tiny_runs.run(folder, config, resume_state=True, batch_size=6, batch_gpu=2, total_kimg=0.04)
    state = tiny_runs.last_state(folder)
    assert (state["cur_nimg"], state["batch_idx"]) == (28 + 2 * 6, 7 + 2)
    assert state["data"]["position"] == 40


def test_statistics_of_the_future_are_cut_off(
    two_states: tuple[Path, dict[str, Any]], unbroken: Path
) -> None:
    folder, config = two_states
    with open(folder / "stats.jsonl", "a") as f:
        f.write(json.dumps({"Progress/tick": {"mean": 99}}) + "\nhalf a li")
    tiny_runs.run(folder, config, resume_state=True)
    assert tiny_runs.records(folder) == tiny_runs.records(unbroken)


def test_lost_statistics_do_not_leave_holes(two_states: tuple[Path, dict[str, Any]]) -> None:
    folder, config = two_states
    (folder / "stats.jsonl").unlink()
    tiny_runs.run(folder, config, resume_state=True)
    assert [record["Progress/tick"]["mean"] for record in tiny_runs.records(folder)] == [3]


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again(data: dict[str, str], tmp_path: Path) -> None:
    """kill -9 at random moments, from the making of the run's folder to its last file."""
    done = forks.run_module("tests.training.kill_loop", tmp_path, data["plain"], KILLS, timeout=max(40 * KILLS, 280))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    failed = sum(status != 0 for status in report["statuses"])
    record("kills", [{"command": "train", "killed": report["killed"], "finished": report["finished"],
                      "wrong": failed}])
    assert report["killed"] == KILLS
    log = (tmp_path / "log.txt").read_text()
    assert set(report["statuses"]) == {0}, log
    (unbroken,) = (tmp_path / "unbroken").iterdir()
    for number in range(report["finished"] + 1):
        (folder,) = [path for path in (tmp_path / f"broken{number}").iterdir() if not path.name.startswith(".")]
        assert_same_run(folder, unbroken)
        assert not list(folder.rglob(".*.tmp"))
    assert "Resuming from image" in log
    assert "FAILED" not in log
