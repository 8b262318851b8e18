"""The training loop: the order of events, and nothing else."""
import copy
import dataclasses
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

import dnnlib
from dnnlib.progress import Progress
from metrics import metric_main
from metrics.detector import DetectorUnavailable
from torch_utils import distributed, misc, training_stats

from . import image_grid, optimization, pickles, reporting, run_state
from .ada import AdaController
from .data_feed import DataFeed
from .loss import Loss, Phase

MAX_NONFINITE_STEPS = 20  # optimizer steps in a row with NaN or infinite gradients before the run is stopped
_log = logging.getLogger(__name__)


class TrainingStopped(dnnlib.util.UserError):
    """Training cannot go on; its state has been saved."""


@dataclasses.dataclass
class Run:
    """Everything that an exact resume must restore, together."""

    networks: dict[str, torch.nn.Module]  # G, D, G_ema, and augment_pipe if there is one
    phases: list[Phase]
    loss: Loss
    ada: AdaController | None
    feed: DataFeed
    guard: optimization.GradientGuard
    collector: training_stats.Collector
    cur_nimg: int = 0
    batch_idx: int = 0
    cur_tick: int = 0
    tick_start_nimg: int = 0
    stage: int = 0
    elapsed_sec: float = 0.0  # before this process
    stats_bytes: int = 0

    _COUNTERS = ("cur_nimg", "batch_idx", "cur_tick", "tick_start_nimg", "stage", "elapsed_sec", "stats_bytes")

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values; statistics are those of every rank. Collective."""
        return {
            **{name: getattr(self, name) for name in self._COUNTERS},
            "networks": {name: module.state_dict() for name, module in self.networks.items()},
            "optimizers": [opt.state_dict() for opt in optimization.optimizers(self.phases)],
            "loss": self.loss.state_dict(),
            "ada": None if self.ada is None else self.ada.state_dict(),
            "data": self.feed.state_dict(self.cur_nimg),
            "guard": self.guard.state_dict(),
            "stats": distributed.gather_objects(training_stats.get_state()),
            "collector": self.collector.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores all but the data position, which the feed was built with."""
        for name in self._COUNTERS:
            setattr(self, name, state[name])
        for name, module in self.networks.items():
            module.load_state_dict(state["networks"][name])
        for opt, saved in zip(optimization.optimizers(self.phases), state["optimizers"], strict=True):
            opt.load_state_dict(saved)
        self.loss.load_state_dict(state["loss"])
        if self.ada is not None:
            self.ada.load_state_dict(state["ada"])
        self.guard.load_state_dict(state["guard"])
        if len(state["stats"]) == distributed.world_size():
            training_stats.set_state(state["stats"][distributed.rank()])
        self.collector.load_state_dict(state["collector"])


def training_loop(
    run_dir: str = ".",  # output folder
    training_set_kwargs: Mapping[str, Any] = {},  # class_name and arguments of the data set
    data_loader_kwargs: Mapping[str, Any] = {},  # arguments of torch.utils.data.DataLoader
    G_kwargs: Mapping[str, Any] = {},  # class_name and arguments of the generator
    D_kwargs: Mapping[str, Any] = {},  # the same of the discriminator
    G_opt_kwargs: Mapping[str, Any] = {},  # class_name and arguments of G's optimizer
    D_opt_kwargs: Mapping[str, Any] = {},  # the same of D's
    augment_kwargs: Mapping[str, Any] | None = None,  # class_name and arguments of the augmentation; None is none
    loss_kwargs: Mapping[str, Any] = {},  # class_name and arguments of the loss
    init_kwargs: Mapping[str, Any] | None = None,  # func_name and arguments of what sets initial weights; None is none
    metrics: Sequence[str] = (),  # names of the metrics to run at network snapshots
    metric_kwargs: Mapping[str, Any] = {},  # further options of every metric
    random_seed: int = 0,  # of everything random
    batch_size: int = 4,  # images per iteration, all ranks together
    batch_gpu: int = 4,  # images per pass on one rank; more in a batch are accumulated
    ema_kimg: float = 10,  # half-life of the moving average of G, in thousands of images
    ema_rampup: float | None = None,  # cap of that half-life as a fraction of the images seen; None is no cap
    G_reg_interval: int | None = 4,  # iterations between regularisations of G; None does it in every one
    D_reg_interval: int | None = 16,  # the same of D
    augment_p: float = 0,  # (initial) probability of augmentation
    ada_target: float | None = None,  # target of adaptive augmentation; None keeps augment_p
    ada_interval: int = 4,  # iterations between its adjustments
    ada_kimg: float = 500,  # thousands of images in which p can go from 0 to 1
    ada_max: float = 1,  # upper bound of p
    total_kimg: float = 25000,  # training length, in thousands of images
    kimg_per_tick: float = 4,  # length of a tick
    image_snapshot_ticks: int | None = 50,  # ticks between image grids; None is never
    network_snapshot_ticks: int | None = 50,  # ticks between network pickles, states and metrics; None is never
    resume_state: bool = False,  # continue from the newest state in run_dir, if there is one
    cudnn_benchmark: bool = True,  # let cuDNN choose algorithms by trial
    allow_tf32: bool = False,  # let matrix products and convolutions use TF32
    device: str = "auto",  # auto, cpu, cuda or mps
    abort_fn: Callable[[], bool] | None = None,  # asked once per tick; True ends the run
    progress_fn: Callable[[int, int], None] | None = None,  # told (cur_kimg, total_kimg) at the start and every tick
) -> None:
    """Trains until total_kimg, a signal, or abort_fn; every rank calls it with equal arguments.

    SIGTERM and SIGINT end the run after the iteration under way, with its state saved.

    Raises:
        UserError: anything a user can put right, named.
    """
    # Set up.
    start_time = time.time()
    main = distributed.is_main()
    target_device = misc.resolve_device(device)
    torch.backends.cudnn.benchmark = cudnn_benchmark
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allow_tf32
    training_stats.init_multiprocessing(
        distributed.rank(), sync_device=target_device if distributed.world_size() > 1 else None
    )
    _seed(random_seed, 0)
    state = run_state.load_common(run_dir) if resume_state else None
    if resume_state and main:
        _say("Continuing from image " + f"{state['cur_nimg']:,}" if state else "No state was saved yet: starting over")

    # Data.
    dataset = dnnlib.util.construct_class_by_name(**training_set_kwargs)
    feed = DataFeed(
        dataset,
        batch_size=batch_size,
        seed=random_seed,
        device=target_device,
        loader_kwargs=data_loader_kwargs,
        state=state["data"] if state else None,
    )
    if main:
        _say(f"Training set: {len(dataset)} images {dataset.image_shape}, labels {dataset.label_shape}")

    # Networks.
    common = {
        "c_dim": dataset.label_dim,
        "img_resolution": dataset.resolution,
        "img_channels": dataset.num_channels,
    }
    G, D = (
        dnnlib.util.construct_class_by_name(**{**kwargs, **common}).train().requires_grad_(False).to(target_device)
        for kwargs in (G_kwargs, D_kwargs)
    )
    networks: dict[str, torch.nn.Module] = {"G": G, "D": D, "G_ema": copy.deepcopy(G).eval()}
    G_ema = networks["G_ema"]
    if init_kwargs is not None and state is None:
        lines = dnnlib.util.call_func_by_name(networks=networks, **init_kwargs) if main else []
        for line in lines:
            _say(line)
    augment_pipe = None
    if augment_kwargs is not None and (augment_p > 0 or ada_target is not None):
        augment_pipe = dnnlib.util.construct_class_by_name(**augment_kwargs)
        augment_pipe = augment_pipe.train().requires_grad_(False).to(target_device)
        augment_pipe.p.fill_(augment_p)
        networks["augment_pipe"] = augment_pipe
    for module in networks.values():
        for tensor in misc.params_and_buffers(module):
            distributed.broadcast_(tensor.data)
    if main:
        _print_summaries(G_ema, D, target_device)

    # Loss, phases, and everything that goes with them.
    loss: Loss = dnnlib.util.construct_class_by_name(
        device=target_device, G=G, D=D, augment_pipe=augment_pipe, **loss_kwargs
    )
    phases = [
        *optimization.make_phases("G", G, G_opt_kwargs, G_reg_interval),
        *optimization.make_phases("D", D, D_opt_kwargs, D_reg_interval),
        *loss.extra_phases(),
    ]
    ada = None
    if augment_pipe is not None and ada_target is not None:
        ada = AdaController(augment_pipe, ada_target, batch_size, ada_interval, ada_kimg, ada_max)
    run = Run(
        networks=networks,
        phases=phases,
        loss=loss,
        ada=ada,
        feed=feed,
        guard=optimization.GradientGuard(target_device),
        collector=training_stats.Collector(regex=".*"),
    )
    if state is not None:
        run.load_state_dict(state)
    run.stage = max(run.stage, loss.stage(run.cur_nimg))
    state = None

    # Samples and logs.
    grid = _SampleGrid(dataset, G_ema, random_seed, batch_gpu, target_device, run_dir) if main else None
    if grid is not None and run.cur_nimg == 0:
        grid.save_reals()
        grid.save_fakes("fakes_init.png")
    writer = reporting.StatsWriter(run_dir, run.stats_bytes) if main else None
    stopwatch = reporting.Stopwatch(target_device)
    skipped_metrics: set[str] = set()
    metric_values: dict[str, float] = {}
    if progress_fn is not None:
        progress_fn(run.cur_nimg // 1000, int(total_kimg))

    # Train.
    tick_start_time = time.time()
    maintenance_time = tick_start_time - start_time
    local_batch = batch_size // distributed.world_size()
    progress = Progress(total_kimg, "training", unit="kimg", enabled=None if main else False)
    with _catch_signals() as caught, progress as bar:
        bar.set(run.cur_nimg / 1000)
        while run.cur_nimg < total_kimg * 1000:
            # One batch for all phases that are due.
            stage = loss.stage(run.cur_nimg)
            if stage > run.stage:
                _start_stage(run, stage)
            _seed(random_seed, run.batch_idx + 1)
            stopwatch.start("data")
            real_img, real_c = feed.next()
            stopwatch.stop("data")
            for phase in phases:
                if run.batch_idx % phase.interval != 0:
                    continue
                gen_z = torch.randn([local_batch, G.z_dim], device=target_device)
                gen_c = feed.random_labels(local_batch)
                stopwatch.start(phase.name)
                phase.opt.zero_grad(set_to_none=True)
                phase.module.requires_grad_(True)
                for chunk in zip(*(t.split(batch_gpu) for t in (real_img, real_c, gen_z, gen_c))):
                    loss.accumulate_gradients(phase.name, *chunk, gain=phase.interval, cur_nimg=run.cur_nimg)
                phase.module.requires_grad_(False)
                optimization.step(phase, run.guard)
                stopwatch.stop(phase.name)

            # The averages.
            distributed.mean_([buffer for name, buffer in G.named_buffers() if name.endswith("w_avg")])
            optimization.update_ema(
                G_ema, G, optimization.ema_beta(batch_size, ema_kimg, ema_rampup, run.cur_nimg)
            )
            run.cur_nimg += batch_size
            run.batch_idx += 1
            bar.set(run.cur_nimg / 1000)
            if ada is not None:
                ada.step(run.batch_idx)

            # Tick?
            interrupted = distributed.any_rank(bool(caught))
            done = run.cur_nimg >= total_kimg * 1000
            tick_over = run.cur_tick == 0 or run.cur_nimg >= run.tick_start_nimg + kimg_per_tick * 1000
            if interrupted or (done and not tick_over):  # who goes on from here must not find a tick cut short
                _save_state(run, run_dir, start_time)
            if interrupted and not done:
                bar.clear()
                if main:
                    _say(f"Interrupted at image {run.cur_nimg:,}; go on with --resume={run_dir}")
                break
            if not (done or tick_over):
                continue

            # Status.
            tick_end_time = time.time()
            values = {
                "Progress/tick": run.cur_tick,
                "Progress/kimg": run.cur_nimg / 1e3,
                "Timing/total_sec": run.elapsed_sec + tick_end_time - start_time,
                "Timing/sec_per_tick": tick_end_time - tick_start_time,
                "Timing/sec_per_kimg": (tick_end_time - tick_start_time)
                / max(run.cur_nimg - run.tick_start_nimg, 1) * 1e3,
                "Timing/maintenance_sec": maintenance_time,
                **reporting.resources(target_device),
                "Progress/augment": 0.0 if augment_pipe is None else float(augment_pipe.p),
            }
            for name, value in values.items():
                training_stats.report0(name, value)
            training_stats.report0("Timing/total_hours", values["Timing/total_sec"] / 3600)
            training_stats.report0("Timing/total_days", values["Timing/total_sec"] / 86400)
            training_stats.report0("Progress/nonfinite_steps", int(run.guard.steps))
            bar.clear()
            if main:
                _say(reporting.status_line(values))
            if abort_fn is not None and not done and abort_fn():
                done = True
                if main:
                    _say("Aborting...")

            # Snapshots and metrics.
            if grid is not None and _due(image_snapshot_ticks, run.cur_tick, done):
                grid.save_fakes(f"fakes{run.cur_nimg // 1000:06d}.png")
            snapshot_due = _due(network_snapshot_ticks, run.cur_tick, done)
            if snapshot_due:
                for module in (G, D, G_ema):
                    misc.check_ddp_consistency(module)
                data = pickles.snapshot_data({"augment_pipe": None, **networks}, dict(training_set_kwargs))
                path = Path(run_dir, f"network-snapshot-{run.cur_nimg // 1000:06d}.pkl")
                if main:
                    pickles.save_networks(data, path)
                for metric in [m for m in metrics if m not in skipped_metrics]:
                    try:
                        result = metric_main.calc_metric(
                            metric,
                            G=data["G_ema"],
                            dataset_kwargs=training_set_kwargs,
                            device=target_device,
                            **metric_kwargs,
                        )
                    except DetectorUnavailable as error:
                        skipped_metrics.add(metric)
                        if main:
                            _say(f"Metric {metric} is left out of this run: {error}")
                        continue
                    metric_values.update(result.results)
                    if main:
                        metric_main.report_metric(result, run_dir=run_dir, snapshot_pkl=str(path))
                del data

            # Statistics.
            stopwatch.report()
            run.collector.update()
            if writer is not None:
                writer.write(
                    run.collector.as_dict(), metric_values, run.cur_nimg, run.elapsed_sec + time.time() - start_time
                )
                run.stats_bytes = writer.num_bytes
            if progress_fn is not None:
                progress_fn(run.cur_nimg // 1000, int(total_kimg))

            # Next tick.
            run.cur_tick += 1
            run.tick_start_nimg = run.cur_nimg
            broken = int(run.guard.longest) > MAX_NONFINITE_STEPS
            if (snapshot_due and tick_over) or broken:
                _save_state(run, run_dir, start_time)
            if broken:
                raise TrainingStopped(
                    f"stopped at image {run.cur_nimg:,}: gradients were not finite in {int(run.guard.longest)} steps "
                    "in a row. Start from an earlier snapshot with a lower --glr and --dlr, or a larger --gamma"
                )
            if done:
                break
            tick_start_time = time.time()
            maintenance_time = tick_start_time - tick_end_time
    if writer is not None:
        writer.close()
    if main and not caught:
        _say("Training is done")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _seed(random_seed: int, step: int) -> None:
    """Seeds everything for one iteration, so that a resumed run draws what an unbroken one would have drawn."""
    sequence = np.random.SeedSequence([random_seed, distributed.rank(), step])
    torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1)))


def _due(interval: int | None, cur_tick: int, done: bool) -> bool:
    return interval is not None and (done or cur_tick % interval == 0)


def _start_stage(run: Run, stage: int) -> None:
    """A new stage of training: every optimizer forgets its moments."""
    run.stage = stage
    for opt in optimization.optimizers(run.phases):
        opt.state.clear()
    run.loss.begin_stage()
    if distributed.is_main():
        _say(f"Stage {stage + 1} of training begins at image {run.cur_nimg:,}")


def _save_state(run: Run, run_dir: str, start_time: float) -> None:
    """Saves the state; collective. The times of this process count from its own start."""
    before = run.elapsed_sec
    run.elapsed_sec = before + time.time() - start_time
    state = run.state_dict()
    run.elapsed_sec = before
    if distributed.is_main():
        run_state.save(run_dir, state)


@contextmanager
def _catch_signals() -> Iterator[list[int]]:
    """Collects SIGTERM and SIGINT in a list instead of dying of them; a second SIGINT interrupts at once."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def note(number: int, frame: Any) -> None:
        if number == signal.SIGINT and caught:
            raise KeyboardInterrupt
        caught.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print_summaries(G: torch.nn.Module, D: torch.nn.Module, device: torch.device) -> None:
    """Tables of both networks, from a pass that draws no random numbers."""
    z, c = torch.zeros([1, G.z_dim], device=device), torch.zeros([1, G.c_dim], device=device)
    with torch.no_grad():
        img = misc.print_module_summary(G, [z, c])
        misc.print_module_summary(D, [img, c])


class _SampleGrid:
    """The same latents and labels, drawn again and again as the generator improves."""

    def __init__(
        self,
        dataset: Any,
        G_ema: torch.nn.Module,
        random_seed: int,
        batch: int,
        device: torch.device,
        run_dir: str,
    ) -> None:
        self.size, items = image_grid.choose_items(dataset)
        self.G_ema = G_ema
        self.batch = batch
        self.run_dir = run_dir
        self.dataset = dataset
        self.items = items
        generator = torch.Generator().manual_seed(random_seed)
        self.z = torch.randn([len(items), G_ema.z_dim], generator=generator).to(device)
        labels = np.stack([dataset.get_label(item) for item in items])
        self.c = torch.from_numpy(labels).to(device)

    def save_reals(self) -> None:
        images = np.stack([self.dataset[item][0] for item in self.items])
        image_grid.save_grid(images, Path(self.run_dir, "reals.png"), (0, 255), self.size)

    def save_fakes(self, name: str) -> None:
        images = image_grid.generate(self.G_ema, self.z, self.c, self.batch)
        image_grid.save_grid(images, Path(self.run_dir, name), (-1, 1), self.size)
