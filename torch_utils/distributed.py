"""Several processes as one: start and end, and the few collective operations the project uses.

Everything is the identity, or does nothing, in a single process.
"""

from __future__ import annotations

import ctypes
import datetime
import os
from typing import Any

import torch
import torch.distributed as dist

from dnnlib.util import UserError
from torch_utils.launch import TIMEOUT_ENV, RankError, launch

__all__ = [
    "RankError",
    "all_gather_interleaved",
    "any_rank",
    "barrier",
    "broadcast_",
    "broadcast_object",
    "gather_objects",
    "init",
    "is_main",
    "launch",
    "local_rank",
    "mean",
    "mean_",
    "rank",
    "shutdown",
    "world_size",
]

_DEFAULT_TIMEOUT_SEC = 600.0


def _env_int(name: str) -> int:
    text = os.environ.get(name, "")
    if not text.isdigit():
        raise UserError(f"environment variable {name}: expected a number (torchrun sets it), found {text!r}")
    return int(text)


def init(device_type: str = "cpu", timeout_sec: float | None = None) -> None:
    """Joins the other processes, if $WORLD_SIZE says that there are any (as torchrun and `launch` do).

    Args:
        device_type: "cuda" uses nccl and takes the GPU $LOCAL_RANK; anything else uses gloo.
        timeout_sec: how long an operation waits for the other processes before it fails; by default what `launch` was
            given, else 600.

    Raises:
        UserError: the environment is incomplete, or there are fewer GPUs than processes.
    """
    if "WORLD_SIZE" not in os.environ or _env_int("WORLD_SIZE") == 1:
        return
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if not os.environ.get(name):
            raise UserError(f"environment variable {name} is not set; start the processes with torchrun")
    if timeout_sec is None:
        timeout_sec = float(os.environ.get(TIMEOUT_ENV, _DEFAULT_TIMEOUT_SEC))
    options: dict[str, Any] = {"backend": "gloo"}
    if device_type == "cuda":
        if local_rank() >= torch.cuda.device_count():
            raise UserError(f"process {local_rank()} of this machine has no GPU, it has {torch.cuda.device_count()}")
        device = torch.device("cuda", local_rank())
        torch.cuda.set_device(device)
        options = {"backend": "nccl", "device_id": device}
    dist.init_process_group(
        init_method="env://",
        rank=_env_int("RANK"),
        world_size=_env_int("WORLD_SIZE"),
        timeout=datetime.timedelta(seconds=timeout_sec),
        **options,
    )


def _is_many() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """This process's number among all, from 0."""
    return dist.get_rank() if _is_many() else 0


def local_rank() -> int:
    """This process's number on its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", os.environ.get("RANK", 0)))


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if _is_many() else 1


def is_main() -> bool:
    """Whether this is the process that writes files and prints."""
    return rank() == 0


def barrier() -> None:
    """Waits until all processes are here."""
    if _is_many():
        dist.barrier()


def broadcast_(tensor: torch.Tensor, src: int = 0) -> torch.Tensor:
    """Overwrites the tensor by that of process `src`; returns it."""
    if _is_many():
        with torch.no_grad():
            if tensor.is_contiguous():
                dist.broadcast(tensor, src)
            else:
                packed = tensor.contiguous()
                dist.broadcast(packed, src)
                tensor.copy_(packed)
    return tensor


def broadcast_object(obj: Any) -> Any:
    """What process 0 passed; it must be possible to pickle it."""
    if not _is_many():
        return obj
    box = [obj]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather_objects(obj: Any) -> list[Any]:
    """What every process passed, by rank; it must be possible to pickle it."""
    if not _is_many():
        return [obj]
    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, obj)
    return found


def any_rank(flag: bool) -> bool:
    """Whether the flag is set on any process."""
    if not _is_many():
        return flag
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else "cpu"
    count = torch.tensor(int(flag), device=device)
    dist.all_reduce(count)
    return bool(count)


def all_gather_interleaved(x: torch.Tensor) -> torch.Tensor:
    """Joins [n, ...] of each of R processes into [n*R, ...] everywhere: sample i of rank r is at i*R + r.

    n must be the same on every rank. The order is that in which `InfiniteSampler` deals out the samples.
    """
    if not _is_many():
        return x
    x = x.detach().contiguous()
    parts = [torch.empty_like(x) for _ in range(world_size())]
    dist.all_gather(parts, x)
    return torch.stack(parts, dim=1).flatten(0, 1)


def mean_(tensors: list[torch.Tensor]) -> None:
    """Replaces each tensor by its mean over the processes: one all-reduce of all of them, flattened.

    The list must be the same on every rank in number, shapes, types and device.
    """
    if not _is_many() or not tensors:
        return
    groups: dict[tuple[torch.dtype, torch.device], list[torch.Tensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    with torch.no_grad():
        for group in groups.values():
            flat = torch.cat([tensor.reshape(-1) for tensor in group])
            dist.all_reduce(flat)
            flat /= world_size()
            for tensor, part in zip(group, flat.split([tensor.numel() for tensor in group]), strict=True):
                tensor.copy_(part.view_as(tensor))


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total / world_size()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        return mean(grads[0])


def mean(x: torch.Tensor) -> torch.Tensor:
    """The mean over the processes, differentiable to any order.

    With y_r = 1/R sum_s x_s on every rank r and a loss L_r on each, dx_s = 1/R sum_r dL_r/dy_r: the gradient is
    averaged in the same way. Every rank must go through backward as well.
    """
    return _Mean.apply(x) if _is_many() else x


def shutdown() -> None:
    """Leaves the group of processes."""
    if not (dist.is_available() and dist.is_initialized()):
        return
    if dist.get_backend() == "gloo":
        # The destructor of a gloo group waits, with the interpreter locked, for threads that may still have to lock the
        # interpreter to let go of the last tensor: seen to hang with torch 2.4. So the object is never destroyed.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(dist.group.WORLD))
    dist.destroy_process_group()
