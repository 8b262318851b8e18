"""Training in two processes: the same gradients and statistics as in one, exact resume, and the end of a rank."""
import json
import time
from pathlib import Path

import pytest
import torch

from dnnlib.util import UserError
from tests import tiny
from tests.training import training_jobs
from torch_utils import distributed

GROUP_SIZES = [2, 4]
TIMEOUT_SEC = 120


def results(folder):
    return [torch.load(folder / f"rank{rank}.pt") for rank in (0, 1)]


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """What both ranks found."""
    folder = tmp_path_factory.mktemp("gradients")
    distributed.launch(training_jobs.gradients, (str(folder), GROUP_SIZES), num_procs=2, timeout_sec=TIMEOUT_SEC)
    return results(folder)


@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_same_gradients_as_one_process(two_ranks, group_size, statistics):
    whole = training_jobs.compute_gradients(group_size)
    for found in (rank[group_size] for rank in two_ranks):
        for step, phase in enumerate(training_jobs.PHASES):
            key = f"{step} {phase}"
            assert found[key].keys() == whole[key].keys()
            assert any(gradient.abs().max() > 1e-3 for gradient in whole[key].values())
            for name, gradient in whole[key].items():
                torch.testing.assert_close(found[key][name], gradient, rtol=1e-6, atol=1e-9, msg=f"{phase} {name}")


@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_same_averages_and_statistics_as_one_process(two_ranks, group_size, statistics):
    whole = training_jobs.compute_gradients(group_size)
    assert whole["state"]["pl_mean"] > 0
    assert {"Loss/scores/fake", "Loss/signs/real", "Loss/pl_penalty", "Loss/r1_penalty"} <= whole["statistics"].keys()
    for found in (rank[group_size] for rank in two_ranks):
        for name, value in whole["state"].items():
            torch.testing.assert_close(found["state"][name], value, rtol=1e-9, atol=1e-12)
        assert list(found["statistics"]) == list(whole["statistics"])
        for name, values in whole["statistics"].items():
            assert found["statistics"][name]["num"] == values["num"], name
            assert found["statistics"][name] == pytest.approx(values, rel=1e-4), name  # summed in float32


class Runs:
    """Runs of two processes: `unbroken` to the end, `broken` first to the middle and then on to the end."""

    def __init__(self, folder: Path) -> None:
        data = tiny.write_data(folder / "data", num=24, num_classes=2)
        self.unbroken, self.broken = folder / "unbroken", folder / "broken"
        for run_dir in (self.unbroken, self.broken):
            run_dir.mkdir()
        half = training_jobs.loop_options(data, str(self.broken), total_kimg=0.040)
        first = [training_jobs.loop_options(data, str(self.unbroken), total_kimg=0.080), half]
        second = {**half, "total_kimg": 0.080, "resume_state": True}
        self.snapshots = []
        for options in (first, [second]):
            distributed.launch(training_jobs.train, (str(folder), options), num_procs=2, timeout_sec=TIMEOUT_SEC)
            self.snapshots.append(results(folder))
        self.onward = {**second, "total_kimg": 0.1}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("runs"))


def test_snapshots_are_equal_on_all_ranks(runs):
    for launched in runs.snapshots:
        assert len(launched[0]) >= 2
        assert launched[0] == launched[1]


def same(a, b, ignored, where=""):
    """Asserts that two nested states are equal to the bit, but for some keys."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            if key not in ignored:
                same(a[key], b[key], ignored, f"{where}/{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for index, pair in enumerate(zip(a, b, strict=True)):
            same(*pair, ignored, f"{where}/{index}")
    else:
        assert a == b or a != a, where


def deterministic(names):
    """Statistics that do not depend on the machine."""
    return [name for name in names if not name.startswith(("Timing/", "Resources/")) and name != "timestamp"]


def test_resumed_run_equals_the_unbroken_one(runs):
    assert runs.snapshots[0][0][-1] != runs.snapshots[1][0][-1]  # the first launch ended with the half run
    states = []
    for run_dir in (runs.unbroken, runs.broken):
        newest = max((run_dir / "state").iterdir())
        assert newest.name == "training-state-000000080.pt"
        states.append(torch.load(newest, weights_only=True))
    assert len(states[0]["stats"]) == 2
    assert states[0]["ada"]["p"] > 0
    assert states[0]["loss"]["pl_mean"] > 0
    machine = {name for name in states[0]["collector"]["moments"] if not deterministic([name])}
    same(*states, ignored={"elapsed_sec", "stats_bytes"} | machine)


def test_resumed_run_writes_the_same_statistics(runs):
    lines = [
        [json.loads(line) for line in (run_dir / "stats.jsonl").read_text().splitlines()]
        for run_dir in (runs.unbroken, runs.broken)
    ]
    assert len(lines[0]) == len(lines[1]) >= 3
    for expected, found in zip(*lines, strict=True):
        assert expected.keys() == found.keys()
        for name in deterministic(expected):
            assert str(expected[name]) == str(found[name]), name  # as text: NaN is equal to itself


def test_state_that_not_all_ranks_see(runs):
    message = r"rank 0 found the state of image 80, but rank 1 no state; let all machines see the same folder \(rank"
    with pytest.raises(UserError, match=message):
        distributed.launch(training_jobs.continue_apart, (runs.onward,), num_procs=2, timeout_sec=TIMEOUT_SEC)


def test_killed_rank_ends_the_training(tmp_path):
    data = tiny.write_data(tmp_path / "data", num=8, num_classes=2)
    options = training_jobs.loop_options(data, str(tmp_path), total_kimg=1000)
    start = time.monotonic()
    with pytest.raises(distributed.RankError, match="rank 1 was killed by SIGKILL"):
        distributed.launch(training_jobs.train_and_die, (options,), num_procs=2, timeout_sec=TIMEOUT_SEC)
    assert time.monotonic() - start < TIMEOUT_SEC
    assert list((tmp_path / "state").iterdir())  # to go on from
