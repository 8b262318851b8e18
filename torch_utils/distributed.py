"""Several processes as one: start and end, and the few collective operations the project uses.

Everything is the identity, or does nothing, in a single process.
"""
import atexit
import collections
import datetime
import os
import pickle
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from dnnlib.errors import UserError
from torch_utils.function_context import Context
from torch_utils.heartbeat import Heartbeat
from torch_utils.interfaces import interface_towards
from torch_utils.launch import RankError, default_timeout, is_network_error, launch

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
    "naming_lost_ranks",
    "rank",
    "shutdown",
    "sum_",
    "world_size",
]

_MAX_WAIT_SEC = 2.0  # longer only if an operation never ended; then the group is left as it is

_heartbeat: Heartbeat | None = None

_in_flight: collections.deque[weakref.ref] = collections.deque(maxlen=256)


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
            given, else `launch.default_timeout`.

    Raises:
        UserError: the environment is incomplete, or there are fewer GPUs than processes.
    """
    if "WORLD_SIZE" not in os.environ or _env_int("WORLD_SIZE") == 1:
        return
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if not os.environ.get(name):
            raise UserError(f"environment variable {name} is not set; start the processes with torchrun")
    if timeout_sec is None:
        timeout_sec = default_timeout()
    options: dict[str, Any] = {"backend": "gloo"}
    if device_type == "cuda":
        if local_rank() >= torch.cuda.device_count():
            raise UserError(f"process {local_rank()} of this machine has no GPU, it has {torch.cuda.device_count()}")
        device = torch.device("cuda", local_rank())
        torch.cuda.set_device(device)
        options = {"backend": "nccl", "device_id": device}
    elif "GLOO_SOCKET_IFNAME" not in os.environ and (interface := interface_towards(os.environ["MASTER_ADDR"])):
        # By itself gloo takes the address of the host's name, which on many machines is that of the loopback device.
        os.environ["GLOO_SOCKET_IFNAME"] = interface
    dist.init_process_group(
        init_method="env://",
        rank=_env_int("RANK"),
        world_size=_env_int("WORLD_SIZE"),
        timeout=datetime.timedelta(seconds=timeout_sec),
        **options,
    )
    _start_heartbeat()


def _start_heartbeat() -> None:
    global _heartbeat
    address = os.environ["MASTER_ADDR"], _env_int("MASTER_PORT")
    _heartbeat = Heartbeat(dist.get_rank(), dist.get_world_size(), *address)
    atexit.register(_heartbeat.stop)  # a thread must not be in the store when the interpreter ends


@contextmanager
def naming_lost_ranks() -> Iterator[None]:
    """Turns the failure of an operation for which another rank did not come into an error that names that rank.

    An operation fails at once if a rank is killed, and after the time-out given to `init` if one stands still. Any
    other failure of the body is left to the other ranks as a message.

    Raises:
        RankError: names the rank that is gone or has failed.
    """
    try:
        yield
    except Exception as error:
        if _heartbeat is None:
            raise
        if not is_network_error(error):
            _heartbeat.report_failure(f"{type(error).__name__}: {error}")
            raise
        lost = _heartbeat.lost()
        _heartbeat.report_failure("it waited for a rank that is gone")
        _heartbeat.hold_store(lost)
        # Those that failed because they waited as well are not the cause.
        cause = min(lost, key=lambda rank: ("it waited" in lost[rank], rank), default=None)
        if cause is None:
            raise
        raise RankError(cause, f"{lost[cause]} (noticed by rank {rank()})") from error


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


def _watch(*tensors: torch.Tensor) -> None:
    """Notes tensors that gloo worked on and that no other code holds; see `_wait_for_gloo`."""
    if dist.get_backend() == "gloo":
        _in_flight.extend(map(weakref.ref, tensors))


def _wait_for_gloo() -> bool:
    """Waits until gloo's threads have let go of all tensors, which they do a little after an operation is over.

    They need the interpreter's lock to do so. A process that leaves the group or ends at that moment hangs or aborts.
    """
    deadline = time.monotonic() + _MAX_WAIT_SEC
    while any(ref() is not None for ref in _in_flight):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def _all_reduce(x: torch.Tensor) -> torch.Tensor:
    """Overwrites x, to which no other code may hold a reference, by its sum over the ranks."""
    dist.all_reduce(x)
    _watch(x)
    return x


def _all_gather(x: torch.Tensor) -> list[torch.Tensor]:
    """The tensors of all ranks; x is of one shape everywhere."""
    x = x.detach().clone(memory_format=torch.contiguous_format)
    parts = [torch.empty_like(x) for _ in range(world_size())]
    dist.all_gather(parts, x)
    _watch(x, *parts)
    return parts


def _comm_device() -> torch.device:
    """Where small tensors must be for the backend to send them."""
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")


def barrier() -> None:
    """Waits until all processes are here."""
    if _is_many():
        dist.barrier()


@torch.no_grad()
def sum_(tensor: torch.Tensor) -> torch.Tensor:
    """Replaces a tensor of any shape [...] by its sum over the processes; returns it."""
    return tensor.copy_(_all_reduce(tensor.clone(memory_format=torch.contiguous_format))) if _is_many() else tensor


@torch.no_grad()
def broadcast_(tensor: torch.Tensor, src: int = 0) -> torch.Tensor:
    """Overwrites a tensor of any shape [...] by that of process `src`; returns it."""
    if _is_many():
        x = tensor.clone(memory_format=torch.contiguous_format)
        dist.broadcast(x, src)
        _watch(x)
        tensor.copy_(x)
    return tensor


def _pack(obj: object) -> torch.Tensor:
    """An object as uint8 [num_bytes]."""
    return torch.frombuffer(bytearray(pickle.dumps(obj)), dtype=torch.uint8).to(_comm_device())


def _unpack(data: torch.Tensor) -> Any:
    return pickle.loads(data.cpu().numpy().tobytes())


def broadcast_object(obj: object) -> Any:
    """What process 0 passed; it must be possible to pickle it."""
    if not _is_many():
        return obj
    data = _pack(obj if is_main() else None)
    size = broadcast_(torch.tensor(len(data), device=data.device))
    return _unpack(broadcast_(data if is_main() else data.new_empty(int(size))))


def gather_objects(obj: object) -> list[Any]:
    """What every process passed, by rank; it must be possible to pickle it."""
    if not _is_many():
        return [obj]
    data = _pack(obj)
    sizes = [int(size) for size in _all_gather(torch.tensor(len(data), device=data.device))]
    padded = data.new_zeros(max(sizes))
    padded[: len(data)] = data
    return [_unpack(part[:size]) for part, size in zip(_all_gather(padded), sizes, strict=True)]


def any_rank(flag: bool) -> bool:
    """Whether the flag is set on any process."""
    return bool(sum_(torch.tensor(int(flag), device=_comm_device()))) if _is_many() else flag


def all_gather_interleaved(x: torch.Tensor) -> torch.Tensor:
    """Joins [n, ...] of each of R processes into [n*R, ...] everywhere: sample i of rank r is at i*R + r.

    n must be the same on every rank. The order is that in which `InfiniteSampler` deals out the samples.
    """
    return torch.stack(_all_gather(x), dim=1).flatten(0, 1) if _is_many() else x


def mean_(tensors: list[torch.Tensor]) -> None:
    """Replaces each tensor, of any shape [...], by its mean over the processes: one all-reduce, flattened.

    The list must be the same on every rank in number, shapes, types and device.
    """
    if not _is_many() or not tensors:
        return
    groups: dict[tuple[torch.dtype, torch.device], list[torch.Tensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    with torch.no_grad():
        for group in groups.values():
            flat = _all_reduce(torch.cat([tensor.reshape(-1) for tensor in group])) / world_size()
            for tensor, part in zip(group, flat.split([tensor.numel() for tensor in group]), strict=True):
                tensor.copy_(part.view_as(tensor))


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, x: torch.Tensor) -> torch.Tensor:
        return _all_reduce(x.clone(memory_format=torch.contiguous_format)) / world_size()

    @staticmethod
    def backward(ctx: Context, *grads: torch.Tensor) -> torch.Tensor:
        return mean(grads[0])


def mean(x: torch.Tensor) -> torch.Tensor:
    """The mean of x, of any shape [...], over the processes; differentiable to any order.

    With y_r = 1/R sum_s x_s on every rank r and a loss L_r on each, dx_s = 1/R sum_r dL_r/dy_r: the gradient is
    averaged in the same way. Every rank must go through backward as well.
    """
    return _Mean.apply(x) if _is_many() else x


def shutdown() -> None:
    """Leaves the group of processes."""
    global _heartbeat
    if _heartbeat is not None:
        _heartbeat.stop()
        _heartbeat = None
    if dist.is_available() and dist.is_initialized() and _wait_for_gloo():
        dist.destroy_process_group()
