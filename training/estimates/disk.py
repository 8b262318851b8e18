"""What a run writes: bytes of its network snapshots and of the states that are kept, counted before they are there."""
import dataclasses
import logging
import math
import os
import shutil
from collections.abc import Mapping
from typing import Any

import torch

from torch_utils import misc

from ..run import Run
from ..run_config import RunConfig
from ..run_state import KEPT

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class DiskSpace:
    """What a run takes on the disk, without images, statistics and logs.

    Attributes:
        snapshots: how many network snapshots there will be.
        snapshot_bytes: of each.
        state_bytes: of each of the last states, which are kept.
    """

    snapshots: int
    snapshot_bytes: int
    state_bytes: int

    @property
    def total(self) -> int:
        """Bytes of all of them."""
        return self.snapshots * self.snapshot_bytes + KEPT * self.state_bytes

    def line(self, folder: str | os.PathLike[str]) -> str:
        """For people, with what is free where the run's folder is or would be. Warns if that is less."""
        free = free_bytes(folder)
        if free is not None and free < self.total:
            _log.warning("the run needs %s MiB of disk space, and %s are free: fewer snapshots need less",
                         f"{self.total / 2**20:,.0f}", f"{free / 2**20:,.0f}")
        known = "" if free is None else f"; {free / 2**20:,.0f} MiB are free"
        return f"Disk: {self.total / 2**20:,.0f} MiB for {self.snapshots} snapshots and the last {KEPT} states{known}"


def count(config: RunConfig, run: Run) -> DiskSpace:
    """Counts what a run will write, from its configuration and its networks. All ranks of a run call it together."""
    ticks = math.ceil(config.schedule.total_kimg / config.schedule.kimg_per_tick)
    interval = config.schedule.network_snapshot_ticks
    sizes = {name: sum(t.nbytes for t in misc.params_and_buffers(module)) for name, module in run.networks.items()}
    left_out = sum(sizes.get(name, 0) for name in run.loss.leaves_out())
    trained = {id(phase.module): phase.module for phase in run.phases}.values()
    moments = 2 * sum(p.nbytes for module in trained for p in module.parameters())
    return DiskSpace(
        snapshots=0 if interval is None else math.ceil(ticks / interval) + 1,
        snapshot_bytes=sum(sizes.values()) - left_out,
        state_bytes=sum(sizes.values()) + moments + _bytes_of(run.loss.state_dict()),
    )


def _bytes_of(value: Any) -> int:
    """Of all tensors in nested mappings and lists."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return 0
    return sum(map(_bytes_of, value))


def free_bytes(folder: str | os.PathLike[str]) -> int | None:
    """Free bytes where a folder is or would be made; None if the system does not say."""
    path = os.path.abspath(folder)
    while not os.path.isdir(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return None
