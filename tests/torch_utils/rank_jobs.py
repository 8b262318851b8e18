"""What the processes of test_distributed.py do. At the top level of a module, so that they can be started."""
import os
import signal
import time
from pathlib import Path

import torch

from torch_utils import distributed, misc, training_stats


def healthy(folder):
    """What works, in one job, since starting one takes longest; stores what this rank received."""
    distributed.init()
    result = {"collectives": collectives(), "gradients": mean_gradients(), "statistics": statistics()}
    misc.check_ddp_consistency(differing_net(), ignore_regex=r".*\.running_mean")
    distributed.shutdown()
    result["left"] = not torch.distributed.is_initialized()
    torch.save(result, Path(folder, f"{os.environ['RANK']}.pt"))


def collectives():
    """The results of every collective operation."""
    rank = distributed.rank()
    x = torch.tensor([[0.0, 1], [2, 3], [4, 5]]) + 100 * rank
    swapped = torch.arange(6.0).reshape(2, 3).t() + 10 * rank  # not contiguous
    wide = torch.tensor([1.0 + rank, 3], dtype=torch.float64)
    narrow = torch.full((2, 2), float(rank))
    weight = torch.nn.Parameter(torch.full((2,), float(rank)))
    distributed.mean_([wide, narrow, weight])
    distributed.mean_([])
    distributed.barrier()
    return {
        "ranks": (rank, distributed.local_rank(), distributed.world_size(), distributed.is_main()),
        "gathered": distributed.all_gather_interleaved(x),
        "broadcast": distributed.broadcast_(x.clone(), src=1),
        "broadcast_swapped": distributed.broadcast_(swapped),
        "broadcast_object": distributed.broadcast_object({"from": rank}),
        "objects": distributed.gather_objects("a" * (1 + rank)),
        "any": (distributed.any_rank(rank == 1), distributed.any_rank(False)),
        "sum": distributed.sum_(x.t().clone()),
        "means": (wide, narrow, weight.detach()),
    }


def mean_gradients():
    """First and second derivatives through the mean over ranks."""
    rank = distributed.rank()
    x = torch.tensor(2.0 + rank, dtype=torch.float64, requires_grad=True)  # 2 and 3
    y = distributed.mean(x**2)
    loss = (rank + 1) * y**2
    (grad,) = torch.autograd.grad(loss, x, create_graph=True)
    (second,) = torch.autograd.grad(grad, x)
    return {"y": y.item(), "grad": grad.item(), "second": second.item()}


def statistics():
    """Moments over both ranks, with a save and a continuation in between."""
    rank = distributed.rank()
    training_stats.init_multiprocessing(rank, torch.device("cpu"))
    collector = training_stats.Collector()
    training_stats.report("both", [1.0 + rank, 5.0 + rank])
    training_stats.report0("main", 7.0 + rank)
    saved = training_stats.get_state(), collector.state_dict()
    training_stats.report("both", [1e6])
    training_stats.set_state(saved[0])
    collector.load_state_dict(saved[1])
    collector.update()
    return dict(collector.as_dict())


def differing_net():
    """A module whose running_mean is another on each rank, with NaN and bool among its values."""
    net = torch.nn.BatchNorm1d(3)
    net.register_buffer("flags", torch.tensor([True, False]))
    net.running_var.fill_(float("nan"))
    net.running_mean.fill_(float(distributed.rank()))
    return net


def drifted():
    """Compares modules that differ."""
    distributed.init()
    misc.check_ddp_consistency(differing_net())


def raise_on_rank_1(in_finally):
    """Rank 1 has a bug, while rank 0 waits for it."""
    distributed.init()
    try:
        if distributed.rank() == 1:
            raise ZeroDivisionError("the bug of rank 1")
        distributed.barrier()
    finally:
        if in_finally:
            distributed.shutdown()


def killed_on_rank_1():
    """Rank 1 is killed from outside, while rank 0 waits for it."""
    distributed.init()
    if distributed.rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    distributed.barrier()


class PidFiles(torch.utils.data.Dataset):
    """Items that leave the number of the process that loaded them behind."""

    def __init__(self, folder):
        self.folder = folder

    def __len__(self):
        return 8

    def __getitem__(self, index):
        Path(self.folder, f"{os.getpid()}.pid").write_text(str(os.getpid()))
        return index


def killed_with_children(folder):
    """As before, with a data loader's processes holding on to rank 1's files."""
    distributed.init()
    iterator = iter(torch.utils.data.DataLoader(PidFiles(folder), num_workers=1))
    next(iterator)
    if distributed.rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    distributed.barrier()


def stuck_rank():
    """Rank 1 never comes to the barrier."""
    distributed.init()
    if distributed.rank() == 0:
        distributed.barrier()
    time.sleep(600)
