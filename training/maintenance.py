"""What happens between the ticks of a training run: status, sample images, snapshots, metrics, statistics, state."""
import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dnnlib.util import UserError
from metrics import metric_main
from metrics.detector import DetectorUnavailable
from torch_utils import distributed, misc, training_stats

from . import reporting, run_state
from .checkpoints import pickles
from .data.image_grid import SampleGrid
from .run import Run

MAX_NONFINITE_STEPS = 20  # optimizer steps in a row with NaN or infinite gradients before a run is stopped


class TrainingStopped(UserError):
    """Training cannot go on; its state has been saved."""


def say(line: str) -> None:
    """Prints a line, on the main process only."""
    if distributed.is_main():
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


@dataclasses.dataclass(frozen=True)
class Schedule:
    """When what is due, in ticks; None is never. Everything is due at the end of a run."""

    kimg_per_tick: float
    image_ticks: int | None
    network_ticks: int | None

    def images_due(self, tick: int, done: bool) -> bool:
        return _is_due(self.image_ticks, tick, done)

    def networks_due(self, tick: int, done: bool) -> bool:
        return _is_due(self.network_ticks, tick, done)


def _is_due(every: int | None, tick: int, done: bool) -> bool:
    if every is None:
        return False
    return done or not tick % every


class Clock:
    """Measures one stretch of time after the other, without a gap.

    Args:
        start: when the first one began, as `time.time()` tells it.
    """

    def __init__(self, start: float) -> None:
        self._start = self._lap_start = start

    def lap(self) -> float:
        """Ends the present stretch, and says how many seconds it took."""
        now = time.time()
        seconds, self._lap_start = now - self._lap_start, now
        return seconds

    def total(self) -> float:
        """Seconds since the first stretch began."""
        return time.time() - self._start


class Maintenance:
    """Looks after one run; every rank has one and calls it alike.

    Args:
        run: the run.
        run_dir: its folder.
        schedule: when what is due.
        grid: the sample images; None on other ranks than the main one.
        metrics: names of the metrics to evaluate at network snapshots.
        metric_kwargs: further options of every metric.
        training_set_kwargs: options of the data set.
        device: where the networks are.
        start_time: of this process, seconds.
    """

    def __init__(
        self,
        run: Run,
        run_dir: str,
        schedule: Schedule,
        grid: SampleGrid | None,
        metrics: Sequence[str],
        metric_kwargs: Mapping[str, Any],
        training_set_kwargs: Mapping[str, Any],
        device: torch.device,
        start_time: float,
    ) -> None:
        self.run = run
        self.run_dir = run_dir
        self.schedule = schedule
        self.grid = grid
        self.metrics = list(metrics)
        self.metric_kwargs = metric_kwargs
        self.training_set_kwargs = training_set_kwargs
        self.device = device
        self.stopwatch = reporting.Stopwatch(device)
        self._metric_values: dict[str, float] = {}
        self._writer = reporting.StatsWriter(run_dir, run.stats_bytes) if distributed.is_main() else None
        self._clock = Clock(start_time)
        self._maintenance_sec = self._clock.lap()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def save_state(self) -> None:
        """Saves the state of the run as it is now. Collective."""
        self._write_state(self._state())

    def end_tick(self, done: bool) -> None:
        """Ends the present tick; at the end of the run (`done`) also one that is not over yet.

        The state is saved before and after, so that a process killed in between repeats this and nothing else.

        Raises:
            TrainingStopped: gradients have not been finite for too long.
        """
        run, tick = self.run, self.run.cur_tick
        is_over = run.tick_is_over(self.schedule.kimg_per_tick)
        snapshot_due = self.schedule.networks_due(tick, done)
        before = self._state() if snapshot_due else None
        if before is not None:
            self._write_state(before)
        self._report_status(self._clock.lap())
        if self.grid is not None and self.schedule.images_due(tick, done):
            self.grid.save_fakes(f"fakes{run.cur_nimg // 1000:06d}.png")
        if snapshot_due:
            self._save_networks()
        self._write_statistics()
        run.cur_tick, run.tick_start_nimg = tick + 1, run.cur_nimg
        if done:
            run.finished_nimg = run.cur_nimg
        num_bad = run.guard.take_longest()
        if num_bad > MAX_NONFINITE_STEPS or (snapshot_due and is_over):
            self._write_state(self._state())
        elif before is not None:  # who goes on from here must not find a tick cut short
            self._write_state({**before, "finished_nimg": run.finished_nimg})
        if num_bad > MAX_NONFINITE_STEPS:
            raise TrainingStopped(
                f"stopped at image {run.cur_nimg:,}: gradients were not finite in {num_bad} steps in a row. Start from "
                "an earlier snapshot with a lower --glr and --dlr, or, of a StyleGAN2, a larger --gamma"
            )
        self._maintenance_sec = self._clock.lap()

    def _elapsed_sec(self) -> float:
        return self.run.elapsed_sec + self._clock.total()

    def _state(self) -> dict[str, Any]:
        return {**self.run.state_dict(), "elapsed_sec": self._elapsed_sec()}

    def _write_state(self, state: dict[str, Any]) -> None:
        if distributed.is_main():
            run_state.save(self.run_dir, state)

    def _report_status(self, tick_sec: float) -> None:
        """The status line, and its numbers as statistics."""
        run, elapsed_sec = self.run, self._elapsed_sec()
        values = {
            "Progress/tick": run.cur_tick,
            "Progress/kimg": run.cur_nimg / 1e3,
            "Timing/total_sec": elapsed_sec,
            "Timing/sec_per_tick": tick_sec,
            "Timing/sec_per_kimg": tick_sec / max(run.cur_nimg - run.tick_start_nimg, 1) * 1e3,
            "Timing/maintenance_sec": self._maintenance_sec,
            **reporting.resources(self.device),
            "Progress/augment": run.augment_p,
            "Timing/total_hours": elapsed_sec / 3600,
            "Timing/total_days": elapsed_sec / 86400,
            "Progress/nonfinite_steps": int(run.guard.steps),
        }
        for name, value in values.items():
            training_stats.report0(name, value)
        say(reporting.status_line(values))

    def _save_networks(self) -> None:
        """The network snapshot, and its metrics."""
        networks = self.run.networks
        for name in ("G", "D", "G_ema"):
            misc.check_ddp_consistency(networks[name])
        data = pickles.snapshot_data({"augment_pipe": None, **networks}, dict(self.training_set_kwargs))
        path = Path(self.run_dir, f"network-snapshot-{self.run.cur_nimg // 1000:06d}.pkl")
        if distributed.is_main():
            pickles.save_networks(data, path)
        for metric in list(self.metrics):
            try:
                result = metric_main.calc_metric(
                    metric,
                    G=data["G_ema"],
                    dataset_kwargs=self.training_set_kwargs,
                    device=self.device,
                    **self.metric_kwargs,
                )
            except DetectorUnavailable as error:
                self.metrics.remove(metric)
                say(f"Metric {metric} is left out of this run: {error}")
                continue
            self._metric_values.update(result.results)
            if distributed.is_main():
                metric_main.report_metric(result, run_dir=self.run_dir, snapshot_pkl=str(path))

    def _write_statistics(self) -> None:
        self.stopwatch.report()
        self.run.collector.update()
        if self._writer is not None:
            stats = self.run.collector.as_dict()
            self._writer.write(stats, self._metric_values, self.run.cur_nimg)
            self.run.stats_bytes = self._writer.num_bytes
