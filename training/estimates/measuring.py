"""What a run will take: images per hour by three steps of every phase, memory, and bytes on the disk."""
import dataclasses
import os
import statistics
import sys
import time

import psutil
import torch

from dnnlib.util import format_time_brief
from torch_utils.devices import resolve_device, set_numerical_modes, tune_allocator
from torch_utils.ops.backend import choice as cuda_kernels

from .. import run_config, training_loop
from ..ada import build_augmentation
from ..data.feed import make_feed
from ..run import Run
from ..run_config import RunConfig
from . import disk, limits

STEPS = 3  # of every phase, after one that is not counted
MAX_SECONDS = 60  # of all steps of a stage: the step that passes it is the last


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of a run between two changes of what is trained.

    Attributes:
        kimg: its length in thousands of images.
        kimg_per_hour: thousands of images of all processes per hour, in steps as they are at its end.
        steps: how many were measured.
        shares: "data" or phase → its part of the time.
    """

    kimg: float
    kimg_per_hour: float
    steps: int
    shares: dict[str, float]

    @property
    def hours(self) -> float:
        """Without snapshots and metrics."""
        return self.kimg / self.kimg_per_hour

    def line(self) -> str:
        """For people."""
        shares = ", ".join(f"{name} {share:.0%}" for name, share in self.shares.items() if share >= 0.005)
        steps = "1 step" if self.steps == 1 else f"{self.steps} steps"
        return f"Measured by {steps}: {self.kimg_per_hour:.3g} kimg/h for {self.kimg:g} kimg ({shares})"


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a run takes on this machine, without initial weights, snapshots, metrics and exchange of gradients.

    Attributes:
        stages: of the run, in their order.
        num_processes: that share the images.
        peak_bytes: memory that one process needed, of the GPU if there is one.
        disk: what is written.
    """

    stages: list[Stage]
    num_processes: int
    peak_bytes: int
    disk: disk.DiskSpace

    @property
    def hours(self) -> float:
        """Of the whole run."""
        return sum(stage.hours for stage in self.stages)

    def lines(self, run_dir: str | os.PathLike[str]) -> list[str]:
        """For people, with what is free where the run's folder would be."""
        alone = "" if self.num_processes == 1 else (
            f", if {self.num_processes} processes exchange gradients in no time and each is as fast as one alone")
        return [
            *(stage.line() for stage in self.stages),
            f"Time: {format_time_brief(self.hours * 3600)} without snapshots and metrics{alone}",
            f"Memory: {self.peak_bytes / 2**20:,.0f} MiB{'' if self.num_processes == 1 else ' per process'}",
            self.disk.line(run_dir),
        ]


def measure(config: RunConfig) -> Estimate:
    """Builds what one process of a run is made of, and times it. Nothing is written; initial weights are random.

    Raises:
        UserError: the run cannot start; the message names why.
    """
    device = resolve_device(config.machine.device)
    tune_allocator()
    set_numerical_modes(config.machine.cudnn_benchmark, config.machine.allow_tf32)
    cuda_kernels.prepare(device)
    schedule, num_processes = config.schedule, config.machine.num_gpus
    share = schedule.batch_size // num_processes
    num_images = share * config.optimizers.D_steps
    dataset = run_config.DATASETS.call(config.data.training_set.name, config.data.training_set.arguments)
    limits.check(config, dataset, device)
    feed = make_feed(dataset, num_images, schedule.random_seed, device, config.data.loader)
    networks = training_loop.build_networks(config.networks, dataset, device)
    pipe = build_augmentation(config.augmentation, device)
    if pipe is not None:
        networks["augment_pipe"] = pipe
    run = training_loop.build_run(config, networks, feed, num_images * num_processes, device)
    stages = []
    for start, end in _bounds(run, round(schedule.total_kimg * 1000)):
        run.cur_nimg = end - 1
        if run.loss.stage(start) > run.stage:
            run.start_stage(run.loss.stage(start))
        rounds = _rounds(run, share, schedule.batch_gpu, device)
        seconds = {name: statistics.median(times[name] for times in rounds) for name in rounds[0]}
        total = sum(seconds.values())
        stages.append(Stage(
            kimg=(end - start) / 1000,
            kimg_per_hour=num_images * num_processes / total * 3.6,
            steps=len(rounds),
            shares={name: part / total for name, part in seconds.items()},
        ))
    return Estimate(stages, num_processes, _peak_bytes(device), disk.count(config, run))


def _bounds(run: Run, total_nimg: int) -> list[tuple[int, int]]:
    """First image of every stage, and the first one after it."""
    starts = [0]
    while run.loss.stage(starts[-1]) < run.loss.stage(total_nimg - 1):
        before, after = starts[-1], total_nimg - 1  # the next stage begins after the one and not after the other
        while after - before > 1:
            middle = (before + after) // 2
            if run.loss.stage(middle) > run.loss.stage(starts[-1]):
                after = middle
            else:
                before = middle
        starts.append(after)
    return list(zip(starts, [*starts[1:], total_nimg]))


def _rounds(run: Run, share: int, batch_gpu: int, device: torch.device) -> list[dict[str, float]]:
    """Data and every phase → seconds per iteration; phases that are done now and then count in part.

    The first round is left out, unless it takes so long that it remains the only one.

    Args:
        run: what is timed, at the image where it is to be timed.
        share: images of this process per step.
        batch_gpu: images per pass.
        device: of the networks.
    """

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    rounds: list[dict[str, float]] = []
    first = now()
    while not rounds or (len(rounds) <= STEPS and now() - first < MAX_SECONDS):
        begin = now()
        real_img, real_c = run.feed.next() if run.loss.needs_images(run.cur_nimg) else run.feed.skip()
        times = {"data": now() - begin}
        batches = list(zip(real_img.split(share), real_c.split(share)))
        for phase in run.phases:
            begin = now()
            for batch in batches[: phase.steps]:
                training_loop.step(run, phase, *batch, batch_gpu)
            times[phase.name] = (now() - begin) / phase.interval
        rounds.append(times)
    return rounds[1:] or rounds


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return psutil.Process().memory_info().rss
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
