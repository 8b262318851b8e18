"""The training loop: its steps in the order of time, and nothing else."""
import contextlib
import copy
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from dnnlib.signals import catch_signals
from torch_utils import distributed, misc, training_stats
from torch_utils.devices import resolve_device, set_numerical_modes
from torch_utils.gradient_guard import GradientGuard
from torch_utils.ops.backend import choice as cuda_kernels

from . import architectures, optimization, run_config, run_state
from .ada import AdaController, build_augmentation
from .data import image_grid
from .data.dataset import Dataset
from .data.feed import Feed, make_feed
from .ema import ema_beta, update_ema
from .estimates import disk, limits
from .loss import Loss, Phase, Step
from .maintenance import Maintenance
from .reporting import Stopwatch, print_line, print_summaries, progress_bar
from .run import Run
from .run_config import NetworksConfig, RunConfig


def training_loop(
    config: RunConfig,
    run_dir: str = ".",
    resume: bool = False,
    abort_fn: Callable[[], bool] | None = None,
    progress_fn: Callable[[int, int], None] | None = None,
) -> int | None:
    """Trains until `total_kimg`, a signal, or abort_fn; every rank calls it with equal arguments.

    SIGTERM and SIGINT end the run after the iteration under way, with its state saved.

    Args:
        config: all that determines the run.
        run_dir: its folder.
        resume: resume from the newest state in run_dir, if there is one.
        abort_fn: called once per tick; True ends the run.
        progress_fn: called with (cur_kimg, total_kimg) at the start and after every tick.

    Returns:
        The number of the signal that interrupted the run, None if the run came to its end.

    Raises:
        UserError: something that the user can correct; the message names it.
    """
    start_time = time.time()
    schedule = config.schedule
    num_images = schedule.batch_size * config.optimizers.D_steps  # per iteration
    total_nimg = schedule.total_kimg * 1000

    # Device, random numbers, data, networks, and everything else that an exact resume restores.
    device = resolve_device(config.machine.device)
    set_numerical_modes(config.machine.cudnn_benchmark, config.machine.allow_tf32)
    cuda_kernels.prepare(device)
    training_stats.init_multiprocessing(distributed.rank(), device if distributed.world_size() > 1 else None)
    with run_state.restoring(run_dir) if resume else contextlib.nullcontext():
        _seed(schedule.random_seed, 0)
        run, dataset = _set_up(config, run_dir if resume else None, num_images, device)
    if run.finished_nimg == run.cur_nimg >= total_nimg:
        print_line(f"This run is complete at {run.cur_nimg / 1000:g} kimg")
        return None

    # Sample images, progress, and the work between ticks.
    grid, space = None, disk.count(config, run)
    if distributed.is_main():
        print_line(space.line(run_dir))
        seed = schedule.random_seed
        grid = image_grid.SampleGrid(dataset, run.networks["G_ema"], seed, schedule.batch_gpu, run_dir)
        if run.cur_nimg == 0:
            grid.save_reals()
            grid.save_fakes("fakes_init.png")
            for name, reference in run.loss.references().items():
                grid.save_fakes(f"{name}.png", reference)
    maintenance = Maintenance(run, config, run_dir, grid, device, start_time)
    report_progress = progress_fn or (lambda cur_kimg, total_kimg: None)
    report_progress(run.cur_nimg // 1000, int(schedule.total_kimg))
    bar = progress_bar(schedule.total_kimg, run.cur_nimg / 1000)

    interrupted_by = None
    with catch_signals() as caught_signals, bar:
        while True:
            # End of a tick, or of the run.
            bar.set(run.cur_nimg / 1000)
            done = run.cur_nimg >= total_nimg
            if done or run.tick_is_over(schedule.kimg_per_tick):
                bar.clear()
                done = done or _is_aborted(abort_fn)
                maintenance.end_tick(done)
                report_progress(run.cur_nimg // 1000, int(schedule.total_kimg))
            if done:
                print_line("Training is done")
                break

            # Gradients and optimizer steps.
            _seed(schedule.random_seed, run.batch_idx + 1)
            _optimize(run, schedule.batch_size, schedule.batch_gpu, maintenance.stopwatch)

            # Moving average of G.
            distributed.mean_(architectures.running_buffers(run.networks["G"]))
            ema = config.ema
            beta = ema_beta(num_images, ema.kimg, ema.rampup, run.cur_nimg, ema.start_kimg, ema.later_start_kimg,
                            ema.later_kimg)
            update_ema(run.networks["G_ema"], run.networks["G"], beta, ema.buffers)
            run.cur_nimg += num_images
            run.batch_idx += 1

            # Adaptive augmentation.
            if run.ada is not None:
                run.ada.step(run.batch_idx)

            # Signals.
            if distributed.any_rank(bool(caught_signals)):
                interrupted_by = max(max(numbers, default=0) for numbers in distributed.gather_objects(caught_signals))
                maintenance.save_state()
                bar.clear()
                print_line(f"Interrupted at image {run.cur_nimg:,}; the state is saved")
                break
    maintenance.close()
    return interrupted_by


def _seed(random_seed: int, step: int) -> None:
    """Seeds everything for one iteration, so that a resumed run draws the same numbers as an uninterrupted one."""
    sequence = np.random.SeedSequence([random_seed, distributed.rank(), step])
    torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1)))


def _set_up(config: RunConfig, resume_from: str | None, num_images: int, device: torch.device) -> tuple[Run, Dataset]:
    """The run at its beginning, or as the newest state in the folder `resume_from` has it, and its training set."""
    state = None if resume_from is None else run_state.resume(resume_from)

    # Training data.
    dataset = run_config.DATASETS.call(config.data.training_set.name, config.data.training_set.arguments)
    limits.check(config, dataset, device)
    position = None if state is None else state["data"]
    feed = make_feed(dataset, num_images, config.schedule.random_seed, device, config.data.loader, position)
    print_line(f"Training set: {len(dataset)} images {dataset.image_shape}, labels {dataset.label_shape}")

    # Networks and their initial weights, the same on every rank.
    networks = build_networks(config.networks, dataset, device)
    if config.networks.init is not None and state is None:  # on every rank: none waits for one that scores for long
        init = config.networks.init
        for line in run_config.INITIALIZERS.call(init.name, init.arguments, networks=networks):
            print_line(line)
    pipe = build_augmentation(config.augmentation, device)
    if pipe is not None:
        networks["augment_pipe"] = pipe
    for module in networks.values():
        for tensor in misc.params_and_buffers(module):
            distributed.broadcast_(tensor.data)
    print_summaries(networks["G_ema"], networks["D"], device)

    # Loss, phases and the rest.
    run = build_run(config, networks, feed, num_images, device)
    run.label_kind = dataset.label_kind
    if state is not None:
        run.load_state_dict(state)
    return run, dataset


def build_networks(config: NetworksConfig, dataset: Dataset, device: torch.device) -> dict[str, torch.nn.Module]:
    """G, D and G_ema for the images and labels of a data set; gradients are only taken in `_trainable`."""
    sizes = limits.network_sizes(dataset)
    networks: dict[str, torch.nn.Module] = {}
    for name, component in (("G", config.G), ("D", config.D)):
        networks[name] = architectures.NETWORKS.call(component.name, {**component.arguments, **sizes})
        networks[name].to(device).requires_grad_(False).train()
    return {**networks, "G_ema": copy.deepcopy(networks["G"]).eval()}


def build_run(
    config: RunConfig, networks: dict[str, torch.nn.Module], feed: Feed, num_images: int, device: torch.device
) -> Run:
    """Loss, optimizers and controllers of networks; `num_images` per iteration."""
    G, D, augment_pipe = networks["G"], networks["D"], networks.get("augment_pipe")
    loss: Loss = run_config.LOSSES.call(
        config.loss.name, config.loss.arguments, device=device, G=G, D=D, augment_pipe=augment_pipe)
    ada, augmentation, opt = None, config.augmentation, config.optimizers
    if augment_pipe is not None and augmentation.ada_target is not None:
        ada = AdaController(augment_pipe, augmentation.ada_target, num_images, augmentation.ada_interval,
                            augmentation.ada_kimg, augmentation.ada_max)
    phases = [
        *optimization.make_phases("G", G, opt.G.to_dict(), opt.G_reg_interval),
        *optimization.make_phases("D", D, opt.D.to_dict(), opt.D_reg_interval, opt.D_steps),
        *loss.extra_phases(),
    ]
    guard, collector = GradientGuard(device), training_stats.Collector(regex=".*")
    return Run(networks=networks, phases=phases, loss=loss, ada=ada, feed=feed, guard=guard, collector=collector)


def _is_aborted(abort_fn: Callable[[], bool] | None) -> bool:
    """Whether the caller's function ends the run, which is then printed."""
    if abort_fn is None or not abort_fn():
        return False
    print_line("Stopped by abort_fn")
    return True


def _optimize(run: Run, batch_size: int, batch_gpu: int, stopwatch: Stopwatch) -> None:
    """The steps of every phase that is due, each step of a phase on another batch of real images."""
    stage = run.loss.stage(run.cur_nimg)
    if stage > run.stage:
        run.start_stage(stage)
        print_line(f"Stage {stage + 1} of training begins at image {run.cur_nimg:,}")
    stopwatch.start("data")
    real_img, real_c = run.feed.next() if run.loss.needs_images(run.cur_nimg) else run.feed.skip()
    stopwatch.stop("data")
    share = batch_size // distributed.world_size()
    batches = list(zip(real_img.split(share), real_c.split(share)))
    for phase in run.phases:
        if run.batch_idx % phase.interval != 0:
            continue
        stopwatch.start(phase.name)
        for batch in batches[: phase.steps]:
            step(run, phase, *batch, batch_gpu)
        stopwatch.stop(phase.name)


def step(run: Run, phase: Phase, real_img: torch.Tensor, real_c: torch.Tensor, batch_gpu: int) -> None:
    """One step of one phase, with real images [N, C, H, W] and labels [N, c_dim], `batch_gpu` of them at a time."""
    G: Any = run.networks["G"]
    gen_z = torch.randn([len(real_img), G.z_dim], device=real_img.device)
    gen_c = run.feed.random_labels(len(real_img))
    chunks = zip(*(whole.split(batch_gpu) for whole in (real_img, real_c, gen_z, gen_c)))
    with _trainable(phase.module):
        phase.opt.zero_grad(set_to_none=True)
        for real, real_label, z, label in chunks:
            step = Step(real, real_label, z, label, phase.interval, run.cur_nimg)
            run.loss.accumulate_gradients(phase.network, phase.part, step)
    optimization.step(phase, run.guard)


@contextlib.contextmanager
def _trainable(module: torch.nn.Module) -> Iterator[None]:
    """In here the module's parameters require gradients; before and after, they do not."""
    try:
        module.requires_grad_(True)
        yield
    finally:
        module.requires_grad_(False)
