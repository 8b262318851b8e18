"""The work between the ticks of a training run: status, sample images, snapshots, metrics, statistics, state."""
import time
from pathlib import Path
from typing import Any

import torch

from dnnlib.errors import UserError
from metrics import metric_main
from metrics.detector import DetectorUnavailable
from metrics.shared_features import SharedFeatures
from torch_utils import distributed, misc, training_stats
from torch_utils.network_types import Generator

from . import reporting, run_state
from .checkpoints import pickles
from .data.image_grid import SampleGrid
from .reporting import print_line
from .run import Run
from .run_config import RunConfig

MAX_NONFINITE_STEPS = 20  # optimizer steps in a row with NaN or infinite gradients before a run is stopped


class TrainingStopped(UserError):
    """Training diverged and was stopped; its state has been saved."""


def _is_due(interval: int | None, tick: int, done: bool) -> bool:
    """Whether something that is done every `interval` ticks (None: never), and at the end of a run, is due."""
    return interval is not None and (done or tick % interval == 0)


class Clock:
    """Measures consecutive intervals of time, without gaps.

    Args:
        start: when the first one began, by `time.time()`.
    """

    def __init__(self, start: float) -> None:
        self._start = self._lap_start = start

    def lap(self) -> float:
        """Ends the present interval and returns its seconds."""
        now = time.time()
        seconds, self._lap_start = now - self._lap_start, now
        return seconds

    def total(self) -> float:
        """Seconds since the first interval began."""
        return time.time() - self._start


class Maintenance:
    """Does the work between the ticks of one run; every rank has one and calls it alike.

    Args:
        run: the run.
        config: its configuration.
        run_dir: its folder.
        grid: the sample images; None on other ranks than the main one.
        device: where the networks are.
        start_time: of this process, seconds.
    """

    def __init__(
        self,
        run: Run,
        config: RunConfig,
        run_dir: str,
        grid: SampleGrid | None,
        device: torch.device,
        start_time: float,
    ) -> None:
        self.run = run
        self.config = config
        self.run_dir = run_dir
        self.grid = grid
        self.device = device
        self.metrics = list(config.metrics.names)
        self.stopwatch = reporting.Stopwatch(device)
        self._metric_values: dict[str, float] = {}
        self._writer = reporting.StatsWriter(run_dir, run.stats_bytes) if distributed.is_main() else None
        self._clock = Clock(start_time)
        self._maintenance_sec = self._clock.lap()

    def close(self) -> None:
        """Closes the files of statistics."""
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
        schedule, tick = self.config.schedule, self.run.cur_tick
        tick_is_over = self.run.tick_is_over(schedule.kimg_per_tick)
        snapshot_due = _is_due(schedule.network_snapshot_ticks, tick, done)
        state_before = self._save_state_before_snapshot() if snapshot_due else None
        self._report_status(self._clock.lap())
        if _is_due(schedule.image_snapshot_ticks, tick, done):
            self._save_images()
        if snapshot_due:
            self._evaluate(self._save_networks())
        self._write_statistics()
        self._count_tick(done)
        nonfinite_steps = self.run.guard.take_longest()
        self._save_state_after_tick(state_before, tick_is_over, nonfinite_steps)
        self._stop_if_diverged(nonfinite_steps)
        self._maintenance_sec = self._clock.lap()

    def _count_tick(self, done: bool) -> None:
        """The next tick begins here; `done` marks the run as brought to its end."""
        run = self.run
        run.cur_tick, run.tick_start_nimg = run.cur_tick + 1, run.cur_nimg
        if done:
            run.finished_nimg = run.cur_nimg

    def _save_state_before_snapshot(self) -> dict[str, Any]:
        state = self._state()
        self._write_state(state)
        return state

    def _save_state_after_tick(
        self, state_before: dict[str, Any] | None, tick_is_over: bool, nonfinite_steps: int
    ) -> None:
        """Saves the state that a resumed run begins with.

        A tick cut short by the end of the run is not in it: a run resumed from this state must see the full tick.
        """
        if nonfinite_steps > MAX_NONFINITE_STEPS or (state_before is not None and tick_is_over):
            self._write_state(self._state())
        elif state_before is not None:
            self._write_state({**state_before, "finished_nimg": self.run.finished_nimg})

    def _stop_if_diverged(self, nonfinite_steps: int) -> None:
        if nonfinite_steps > MAX_NONFINITE_STEPS:
            raise TrainingStopped(
                f"stopped at image {self.run.cur_nimg:,}: gradients were not finite in {nonfinite_steps} steps in a "
                "row. Start from an earlier snapshot with lower learning rates (`glr`, `dlr`) or, of a StyleGAN2, a "
                "larger `gamma`"
            )

    def _save_images(self) -> None:
        if self.grid is not None:
            self.grid.save_fakes(f"fakes{self.run.cur_nimg // 1000:06d}.png")

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
        print_line(reporting.status_line(values))

    def _save_networks(self) -> Any:
        """Writes the network snapshot; returns the average generator in it."""
        left_out = self.run.loss.leaves_out()
        networks = {name: module for name, module in self.run.networks.items() if name not in left_out}
        for name in sorted({"G", "D", "G_ema"}.difference(left_out)):
            misc.check_ddp_consistency(networks[name])
        training_set = self.config.data.training_set.to_dict()
        data = pickles.snapshot_data({"augment_pipe": None, **networks}, training_set, self.run.loss.notes(),
                                     self.run.label_kind)
        if distributed.is_main():
            pickles.save_networks(data, self._snapshot_path())
        return data["G_ema"]

    def _snapshot_path(self) -> Path:
        return Path(self.run_dir, f"network-snapshot-{self.run.cur_nimg // 1000:06d}.pkl")

    def _evaluate(self, G_ema: Generator) -> None:
        """The metrics of a generator; one whose detector is unavailable is left out from then on."""
        training_set = self.config.data.training_set.to_dict()
        shared = SharedFeatures() if len(self.metrics) > 1 else None
        for metric in list(self.metrics):
            try:
                result = metric_main.calc_metric(metric, G=G_ema, dataset_kwargs=training_set, device=self.device,
                                                 shared=shared, **self.config.metrics.options)
            except DetectorUnavailable as error:
                self.metrics.remove(metric)
                print_line(f"Metric {metric} is left out of this run: {error}")
                continue
            self._metric_values.update(result.results)
            if distributed.is_main():
                metric_main.report_metric(result, run_dir=self.run_dir, snapshot_pkl=str(self._snapshot_path()))

    def _write_statistics(self) -> None:
        self.stopwatch.report()
        self.run.collector.update()
        if self._writer is not None:
            stats = self.run.collector.as_dict()
            self._writer.write(stats, self._metric_values, self.run.cur_nimg)
            self.run.stats_bytes = self._writer.num_bytes
