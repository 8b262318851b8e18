"""Two real processes on this machine: collectives, and the end of the job when one fails."""
import os

import pytest
import torch

from dnnlib.errors import UserError
from tests.helpers import is_alive, wait_until
from tests.torch_utils import rank_jobs
from torch_utils import distributed
from torch_utils.distributed import RankError, launch

_TIMEOUT_SEC = 3600.0  # a test that waits for it fails: it takes longer than tests may


def run(job, *args, timeout_sec=_TIMEOUT_SEC):
    launch(job, args, num_procs=2, timeout_sec=timeout_sec)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """What each rank received in the job in which everything works."""
    folder = tmp_path_factory.mktemp("healthy")
    run(rank_jobs.healthy, str(folder))
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def test_collectives(healthy):
    result = [results["collectives"] for results in healthy]
    assert [f["ranks"] for f in result] == [(0, 0, 2, True), (1, 1, 2, False)]
    for f in result:
        # Sample i of rank r is at 2 i + r.
        assert f["gathered"].tolist() == [[0, 1], [100, 101], [2, 3], [102, 103], [4, 5], [104, 105]]
        assert f["broadcast"].tolist() == [[100, 101], [102, 103], [104, 105]]
        assert f["broadcast_swapped"].tolist() == [[0, 3], [1, 4], [2, 5]]
        assert f["broadcast_object"] == {"from": 0}
        assert f["objects"] == ["a", "aa"]
        assert f["any"] == (True, False)
        assert f["sum"].tolist() == [[100, 104, 108], [102, 106, 110]]
        wide, narrow, weight = f["means"]
        assert wide.tolist() == [1.5, 3]
        assert wide.dtype == torch.float64
        assert narrow.tolist() == [[0.5, 0.5], [0.5, 0.5]]
        assert weight.tolist() == [0.5, 0.5]
    assert all(results["left"] for results in healthy)


def test_mean_is_differentiable_twice(healthy):
    # In one process: y = (a² + b²)/2, the ranks' losses are y² and 2 y², and each rank's gradient is that of their sum.
    x = torch.tensor([2.0, 3.0], dtype=torch.float64, requires_grad=True)
    y = (x**2).mean()
    (grads,) = torch.autograd.grad(y**2 + 2 * y**2, x, create_graph=True)
    # And the second derivative with respect to a rank's x is of the sum of all ranks' gradients.
    (seconds,) = torch.autograd.grad(grads.sum(), x)
    for rank, result in enumerate(results["gradients"] for results in healthy):
        assert result["y"] == pytest.approx(y.item(), abs=1e-12)
        assert result["grad"] == pytest.approx(grads[rank].item(), abs=1e-12)
        assert result["second"] == pytest.approx(seconds[rank].item(), abs=1e-12)


def test_statistics_over_ranks(healthy):
    both = torch.tensor([1.0, 5, 2, 6])
    for result in (results["statistics"] for results in healthy):
        assert result["both"].num == 4
        assert result["both"].mean == both.mean().item()
        assert result["both"].std == pytest.approx(both.std(correction=0).item(), rel=1e-6)
        assert (result["main"].num, result["main"].mean) == (1, 7)


def test_networks_that_drifted_apart():
    with pytest.raises(
        RankError, match=r"the ranks differ from rank 0: rank 1: BatchNorm1d\.running_mean\n"
    ):
        run(rank_jobs.drifted)


@pytest.mark.parametrize("in_finally", [False, True])
def test_error_names_the_rank_and_shows_its_traceback(in_finally):
    with pytest.raises(RankError, match=r"^rank 1 raised ZeroDivisionError: the bug of rank 1\n") as caught:
        run(rank_jobs.raise_on_rank_1, in_finally)
    assert caught.value.rank == 1
    assert "in raise_on_rank_1" in str(caught.value)


def test_killed_rank_ends_the_job():
    with pytest.raises(RankError, match=r"^rank 1 was killed by SIGKILL"):
        run(rank_jobs.killed_on_rank_1)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_children_of_ranks_end_too(tmp_path):
    with pytest.raises(RankError, match=r"^rank 1 was killed by SIGKILL"):
        run(rank_jobs.killed_with_children, str(tmp_path))
    pids = [int(path.stem) for path in tmp_path.glob("*.pid")]
    assert pids
    wait_until(lambda: not any(is_alive(pid) for pid in pids))


def test_rank_that_never_comes_ends_the_job_at_the_timeout():
    with pytest.raises(RankError, match=r"^rank 0 raised "):
        run(rank_jobs.stuck_rank, timeout_sec=2)


def test_single_process_is_the_identity(monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    distributed.init("cpu")
    x = torch.ones(2, 3, requires_grad=True)
    assert (distributed.rank(), distributed.local_rank(), distributed.world_size()) == (0, 0, 1)
    assert distributed.is_main()
    distributed.barrier()
    assert distributed.broadcast_(x) is x
    assert distributed.all_gather_interleaved(x) is x
    assert distributed.mean(x) is x
    assert distributed.broadcast_object(x) is x
    assert distributed.gather_objects(1) == [1]
    assert distributed.any_rank(True)
    distributed.mean_([x])
    assert x.tolist() == [[1] * 3] * 2
    distributed.shutdown()
    called = []
    launch(called.append, (5,), num_procs=1)
    assert called == [5]


def test_environment_errors(monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(UserError, match=r"WORLD_SIZE: expected a number \(torchrun sets it\), found 'two'"):
        distributed.init()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="MASTER_ADDR is not set; start the processes with torchrun"):
        distributed.init()
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")
    with pytest.raises(UserError, match="environment variable RANK: expected a number"):
        distributed.init()
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="process 1 of this machine has no GPU, it has 1"):
        distributed.init("cuda")
    monkeypatch.setenv("WORLD_SIZE", "1")
    distributed.init("cuda")
    assert distributed.world_size() == 1
