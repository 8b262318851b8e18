"""Statistics of a training run: report numbers anywhere, collect their mean and deviation over time and processes.

Reports add up on their device. When a `Collector` is updated, the sums of all processes are handed to every collector
there is, so that any number of them can be used side by side. All state is made of tensors and plain types.
"""
import math
import re
import weakref
from typing import Any

import torch

import dnnlib
from torch_utils import distributed

# Moments of a name: [number of values, sum, sum of squares], float64.
_NUM, _SUM, _SQUARES = range(3)


def _zeros() -> torch.Tensor:
    return torch.zeros(3, dtype=torch.float64)


class _Counters:
    """What was reported on this rank and not yet handed to the collectors."""

    def __init__(self) -> None:
        self.pending: dict[str, dict[torch.device, torch.Tensor]] = {}  # in the order of the first reports
        self.collectors: weakref.WeakSet[Collector] = weakref.WeakSet()
        self.rank = 0
        self.sync_device: torch.device | None = None
        self.has_synced = False

    def add(self, name: str, values: torch.Tensor | None) -> None:
        """Adds all elements of a float32 tensor; None or an empty one only makes the name known."""
        by_device = self.pending.setdefault(name, {})
        if values is None or values.numel() == 0:
            return
        if values.device not in by_device:
            # Apple's GPUs have no float64.
            dtype = torch.float32 if values.device.type == "mps" else torch.float64
            by_device[values.device] = torch.zeros(3, dtype=dtype, device=values.device)
        moments = by_device[values.device]
        sums = torch.stack([values.sum(), values.square().sum()])
        moments[_NUM] += values.numel()
        moments[_SUM:] += sums.to(moments.dtype)

    def take_pending(self, name: str) -> torch.Tensor:
        """The sum over devices, which are set to zero."""
        moments = _zeros()
        for pending in self.pending[name].values():
            moments += pending.to("cpu", torch.float64)
            pending.zero_()
        return moments

    def sync(self, names: list[str]) -> None:
        """Hands the pending moments of these names to all collectors; the same names on all ranks."""
        self.has_synced = True
        if not names:
            return
        moments = torch.stack([self.take_pending(name) for name in names])
        if self.sync_device is not None:
            moments = distributed.sum_(moments.to(self.sync_device)).cpu()
        for name, increment in zip(names, moments, strict=True):
            for collector in self.collectors:
                collector._receive(name, increment)


_counters = _Counters()


def init_multiprocessing(rank: int, sync_device: torch.device | None) -> None:
    """Makes the statistics common to all processes. Call it before the first Collector is made.

    Args:
        rank: this process's number; `report0` counts only on rank 0.
        sync_device: where torch.distributed adds up the counters; None for a single process.
    """
    assert not _counters.has_synced, "init_multiprocessing comes before the first Collector"
    _counters.rank = rank
    _counters.sync_device = sync_device


@torch.no_grad()
def report(name: str, value: object) -> Any:
    """Adds all elements of a number, array or tensor to the statistics of a name; does not wait for the device.

    All ranks must report the same names in the same order. An empty value only makes the name known.

    Returns:
        The value as it was given.
    """
    _counters.add(name, torch.as_tensor(value).detach().flatten().to(torch.float32))
    return value


def report0(name: str, value: object) -> Any:
    """As `report`, but only rank 0's value counts; the other ranks only learn the name."""
    if _counters.rank == 0:
        return report(name, value)
    _counters.add(name, None)
    return value


def get_state() -> dict[str, Any]:
    """The counters of this rank, as plain types and tensors, for an exact continuation. Each rank has its own."""
    pending = {}
    for name, by_device in _counters.pending.items():
        pending[name] = sum((moments.to("cpu", torch.float64) for moments in by_device.values()), _zeros())
    return {"pending": pending}


def set_state(state: dict[str, Any]) -> None:
    """Replaces the counters by saved ones; rank and sync_device stay."""
    cpu = torch.device("cpu")
    _counters.pending = {name: {cpu: moments.clone()} for name, moments in state["pending"].items()}


class Collector:
    """Mean and standard deviation of what was reported between its two latest updates.

    Making one discards what was reported before, as far as this collector is concerned. Making and updating it are
    collective: all ranks must do so.

    Args:
        regex: which names to look at; it must match the whole name.
        keep_previous: a name without new values keeps its numbers.
    """

    def __init__(self, regex: str = ".*", keep_previous: bool = True):
        self._regex = re.compile(regex)
        self._keep_previous = keep_previous
        self._received: dict[str, torch.Tensor] = {}  # since the latest update
        self._moments: dict[str, torch.Tensor] = {}  # what the latest update took in
        _counters.sync(self.names())
        _counters.collectors.add(self)

    def _receive(self, name: str, moments: torch.Tensor) -> None:
        if self._regex.fullmatch(name):
            self._received[name] = self._received.get(name, _zeros()) + moments

    def names(self) -> list[str]:
        """The names reported so far, on any rank, that the regex matches, in the order of their first report."""
        return [name for name in _counters.pending if self._regex.fullmatch(name)]

    def update(self) -> None:
        """Takes in what was reported since the last update."""
        _counters.sync(self.names())
        if not self._keep_previous:
            self._moments.clear()
        self._moments.update((name, moments) for name, moments in self._received.items() if moments[_NUM] > 0)
        self._received.clear()

    def _get(self, name: str) -> list[float]:
        assert self._regex.fullmatch(name), f"{name!r} is not among the names of this collector"
        return self._moments.get(name, _zeros()).tolist()

    def num(self, name: str) -> int:
        """The number of values, 0 for an unknown name."""
        return int(self._get(name)[_NUM])

    def mean(self, name: str) -> float:
        """The mean, NaN without values."""
        num, total, _ = self._get(name)
        return total / num if num else float("nan")

    def std(self, name: str) -> float:
        """The standard deviation (of the values themselves, not an estimate), 0 for one value, NaN without."""
        num, _, squares = self._get(name)
        mean = self.mean(name)
        if not math.isfinite(mean):
            return float("nan")
        variance = squares / num - mean**2 if num > 1 else 0.0
        return math.sqrt(max(variance, 0.0))  # rounding may make it negative

    def as_dict(self) -> dnnlib.EasyDict:
        """For each name num, mean and std."""
        return dnnlib.EasyDict(
            (name, dnnlib.EasyDict(num=self.num(name), mean=self.mean(name), std=self.std(name)))
            for name in self.names()
        )

    def __getitem__(self, name: str) -> float:
        return self.mean(name)

    def state_dict(self) -> dict[str, Any]:
        """What this collector remembers, as plain types and tensors; to be saved with `get_state`."""
        return {
            "received": {name: moments.clone() for name, moments in self._received.items()},
            "moments": {name: moments.clone() for name, moments in self._moments.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts the collector where it was; call `set_state` with the state saved at the same time as well."""
        self._received = {name: moments.clone() for name, moments in state["received"].items()}
        self._moments = {name: moments.clone() for name, moments in state["moments"].items()}
