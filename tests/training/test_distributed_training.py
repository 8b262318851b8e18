"""Training in two processes: the same gradients and statistics as in one, exact resume, and the end of a rank."""
from pathlib import Path

import pytest
import torch

from dnnlib.errors import UserError
from tests import tiny
from tests.training import tiny_runs, training_jobs
from torch_utils import distributed

GROUP_SIZES = [2, 4]
TIMEOUT_SEC = 120


def results(folder):
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """What both ranks found."""
    folder = tmp_path_factory.mktemp("gradients")
    distributed.launch(training_jobs.gradients, (str(folder), GROUP_SIZES), num_procs=2, timeout_sec=TIMEOUT_SEC)
    return results(folder)


@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_same_gradients_as_one_process(two_ranks, group_size, statistics):
    whole = training_jobs.compute_gradients(group_size)
    for actual in (rank[group_size] for rank in two_ranks):
        for step, phase in enumerate(training_jobs.PHASES):
            key = f"{step} {phase}"
            assert actual[key].keys() == whole[key].keys()
            assert any(gradient.abs().max() > 1e-3 for gradient in whole[key].values())
            for name, gradient in whole[key].items():
                torch.testing.assert_close(actual[key][name], gradient, rtol=1e-6, atol=1e-9, msg=f"{phase} {name}")


@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_same_averages_and_statistics_as_one_process(two_ranks, group_size, statistics):
    whole = training_jobs.compute_gradients(group_size)
    assert whole["state"]["pl_mean"] > 0
    assert {"Loss/scores/fake", "Loss/signs/real", "Loss/pl_penalty", "Loss/r1_penalty"} <= whole["statistics"].keys()
    for actual in (rank[group_size] for rank in two_ranks):
        for name, value in whole["state"].items():
            torch.testing.assert_close(actual["state"][name], value, rtol=1e-9, atol=1e-12)
        assert list(actual["statistics"]) == list(whole["statistics"])
        for name, values in whole["statistics"].items():
            assert actual["statistics"][name]["num"] == values["num"], name
            assert actual["statistics"][name] == pytest.approx(values, rel=1e-4), name  # summed in float32


class Runs:
    """Runs of two processes: `unbroken` to the end, `broken` first to the middle and then on to the end."""

    def __init__(self, folder: Path) -> None:
        options = training_jobs.loop_options(tiny.write_data(folder / "data", num=24, num_classes=2))
        self.unbroken, self.broken = folder / "unbroken", folder / "broken"
        self.onward = {**options, "total_kimg": 0.1}
        first = [(str(self.unbroken), {**options, "total_kimg": 0.08}), (str(self.broken), options)]
        second = [(str(self.broken), {**options, "total_kimg": 0.08, "resume_state": True})]
        self.snapshots = []
        for jobs in (first, second):
            distributed.launch(training_jobs.train, (str(folder), jobs), num_procs=2, timeout_sec=TIMEOUT_SEC)
            self.snapshots.append(results(folder))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("runs"))


def test_snapshots_are_equal_on_all_ranks(runs):
    for launched in runs.snapshots:
        assert len(launched[0]) >= 2
        assert launched[0] == launched[1]


def test_resumed_run_equals_the_unbroken_one(runs):
    half, whole = (launched[0][-1] for launched in runs.snapshots)
    assert half != whole
    expected, actual = tiny_runs.last_state(runs.unbroken), tiny_runs.last_state(runs.broken)
    assert expected["cur_nimg"] == 80
    assert len(expected["stats"]) == 2
    assert expected["ada"]["p"] > 0
    assert expected["loss"]["pl_mean"] > 0
    assert not tiny_runs.differences(expected, actual)


def test_resumed_run_writes_the_same_statistics(runs):
    expected, actual = tiny_runs.records(runs.unbroken), tiny_runs.records(runs.broken)
    assert len(expected) >= 3
    assert not tiny_runs.differences(expected, actual)


def test_state_that_not_all_ranks_see(runs):
    message = r"rank 0 found the state of image 80, but rank 1 no state; let all machines see the same folder \(rank"
    with pytest.raises(UserError, match=message):
        distributed.launch(
            training_jobs.continue_apart, (str(runs.broken), runs.onward), num_procs=2, timeout_sec=TIMEOUT_SEC
        )


def test_killed_rank_ends_the_training(tmp_path):
    data = tiny.write_data(tmp_path / "data", num=8, side=8, num_classes=2)
    options = training_jobs.loop_options(data, total_kimg=1000)
    with pytest.raises(distributed.RankError, match="rank 1 was killed by SIGKILL"):
        distributed.launch(
            training_jobs.train_and_die, (str(tmp_path / "run"), options), num_procs=2, timeout_sec=TIMEOUT_SEC
        )
    assert list((tmp_path / "run" / "state").iterdir())  # to resume from
