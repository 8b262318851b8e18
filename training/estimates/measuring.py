"""What a run will take: images per hour by three steps of every phase, memory, and bytes on the disk."""
import dataclasses
import math
import statistics
import time

import psutil
import torch

from torch_utils import misc
from torch_utils.devices import resolve_device, tune_allocator

from .. import run_config, training_loop
from ..data.feed import make_feed
from ..run import Run
from ..run_config import RunConfig
from ..run_state import KEPT
from . import limits

STEPS = 3  # of every phase, after one that is not counted


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a run takes on this machine, in its first stage, without initial weights, ticks and metrics.

    Attributes:
        kimg_per_hour: thousands of images of this process per hour.
        hours: for the whole run, if no other process takes part.
        peak_bytes: memory that was needed, of the GPU if there is one, else of this process.
        disk_bytes: of all snapshots and the states that are kept.
        snapshots: how many there will be.
        shares: phase → its part of the time.
    """

    kimg_per_hour: float
    hours: float
    peak_bytes: int
    disk_bytes: int
    snapshots: int
    shares: dict[str, float]

    def lines(self) -> list[str]:
        """For people."""
        shares = ", ".join(f"{name} {share:.0%}" for name, share in self.shares.items())
        return [
            f"Measured by {STEPS} steps: {self.kimg_per_hour:.3g} kimg/h, {self.hours:.3g} h in all ({shares})",
            f"Memory: {self.peak_bytes / 2**20:,.0f} MiB; disk: {self.disk_bytes / 2**20:,.0f} MiB "
            f"({self.snapshots} snapshots and the last {KEPT} states)",
        ]


def measure(config: RunConfig) -> Estimate:
    """Builds what a run is made of, and times it. Nothing is written; initial weights are random.

    Raises:
        UserError: the run cannot start; the message names why.
    """
    device = resolve_device(config.machine.device)
    tune_allocator()
    schedule = config.schedule
    num_images = schedule.batch_size * config.optimizers.D_steps
    dataset = run_config.DATASETS.call(config.data.training_set.name, config.data.training_set.arguments)
    limits.check(config, dataset, device)
    feed = make_feed(dataset, num_images, schedule.random_seed, device, config.data.loader)
    networks = training_loop.build_networks(config.networks, dataset, device)
    if config.augmentation.pipe is not None:
        pipe = run_config.AUGMENTATIONS.call(config.augmentation.pipe.name, config.augmentation.pipe.arguments)
        networks["augment_pipe"] = pipe.to(device).requires_grad_(False).train()
    run = training_loop.build_run(config, networks, feed, num_images, device)
    seconds = _seconds(run, schedule.batch_size, schedule.batch_gpu, device)
    total = sum(seconds.values())
    kimg_per_hour = num_images / total * 3.6
    return Estimate(
        kimg_per_hour=kimg_per_hour,
        hours=schedule.total_kimg / kimg_per_hour,
        peak_bytes=_peak_bytes(device),
        disk_bytes=_snapshots(config) * _bytes_of(networks) + KEPT * _state_bytes(run),
        snapshots=_snapshots(config),
        shares={name: part / total for name, part in seconds.items()},
    )


def _seconds(run: Run, batch_size: int, batch_gpu: int, device: torch.device) -> dict[str, float]:
    """Data and every phase → median seconds per iteration; phases that are done now and then count in part."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    rounds = []
    for _ in range(STEPS + 1):
        begin = now()
        real_img, real_c = run.feed.next()
        times = {"data": now() - begin}
        batches = list(zip(real_img.split(batch_size), real_c.split(batch_size)))
        for phase in run.phases:
            begin = now()
            for batch in batches[: phase.steps]:
                training_loop.step(run, phase, *batch, batch_gpu)
            times[phase.name] = (now() - begin) / phase.interval
        rounds.append(times)
    return {name: statistics.median(times[name] for times in rounds[1:]) for name in rounds[0]}


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return psutil.Process().memory_info().rss  # which keeps its peak


def _bytes_of(networks: dict[str, torch.nn.Module]) -> int:
    return sum(t.nbytes for module in networks.values() for t in misc.params_and_buffers(module))


def _state_bytes(run: Run) -> int:
    """Networks, and two moments of every parameter that is trained."""
    trained = {id(phase.module): phase.module for phase in run.phases}.values()
    return _bytes_of(run.networks) + 2 * sum(p.nbytes for module in trained for p in module.parameters())


def _snapshots(config: RunConfig) -> int:
    ticks = math.ceil(config.schedule.total_kimg / config.schedule.kimg_per_tick)
    interval = config.schedule.network_snapshot_ticks
    return 0 if interval is None else math.ceil(ticks / interval) + 1
