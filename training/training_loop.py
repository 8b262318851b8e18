"""The training loop: the order of events, and nothing else."""
import copy
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

import dnnlib
from dnnlib.progress import Progress
from torch_utils import distributed, misc, training_stats
from torch_utils.devices import resolve_device
from torch_utils.ops.backend import choice as cuda_kernels

from . import optimization, run_state
from .ada import AdaController
from .data import image_grid
from .data.feed import DataFeed
from .loss import Loss, Phase, Step
from .maintenance import Maintenance, Schedule, say
from .reporting import Stopwatch
from .run import Run

RUNNING_MEANS = ("w_avg", "stored_mean", "stored_var")  # buffers of G that every rank updates with its own samples


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
    ema_start_kimg: float = 0,  # until then the average is a copy of G
    ema_buffers: bool = False,  # average G's buffers too, instead of copying them
    D_steps: int = 1,  # optimizer steps of D per iteration, each on a batch of its own
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
    start_time = time.time()
    target = resolve_device(device)
    torch.backends.cudnn.benchmark = cudnn_benchmark
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allow_tf32
    training_stats.init_multiprocessing(distributed.rank(), target if distributed.world_size() > 1 else None)
    cuda_kernels.prepare(target)
    _seed(random_seed, 0)
    state = run_state.load_common(run_dir) if resume_state else None
    if resume_state:
        if distributed.is_main():
            run_state.remove_unfinished(run_dir)
        say(f"Continuing from image {state['cur_nimg']:,}" if state else "No state was saved yet: starting over")

    dataset = dnnlib.util.construct_class_by_name(**training_set_kwargs)
    feed = DataFeed(
        dataset,
        batch_size=batch_size * D_steps,
        seed=random_seed,
        device=target,
        loader_kwargs=data_loader_kwargs,
        state=state["data"] if state else None,
    )
    say(f"Training set: {len(dataset)} images {dataset.image_shape}, labels {dataset.label_shape}")
    networks = _networks(dataset, G_kwargs, D_kwargs, target)
    if init_kwargs is not None and state is None:  # on every rank: others would wait for one that scores for long
        for line in dnnlib.util.call_func_by_name(networks=networks, **init_kwargs):
            say(line)
    if augment_kwargs is not None and (augment_p > 0 or ada_target is not None):
        networks["augment_pipe"] = _build(augment_kwargs, target)
        networks["augment_pipe"].get_buffer("p").fill_(augment_p)
    for module in networks.values():
        for tensor in misc.params_and_buffers(module):
            distributed.broadcast_(tensor.data)
    if distributed.is_main():
        _print_summaries(networks["G_ema"], networks["D"], target)

    G, D, augment_pipe = networks["G"], networks["D"], networks.get("augment_pipe")
    loss: Loss = dnnlib.util.construct_class_by_name(device=target, G=G, D=D, augment_pipe=augment_pipe, **loss_kwargs)
    ada = None
    if augment_pipe is not None and ada_target is not None:
        ada = AdaController(augment_pipe, ada_target, batch_size * D_steps, ada_interval, ada_kimg, ada_max)
    run = Run(
        networks=networks,
        phases=[
            *optimization.make_phases("G", G, G_opt_kwargs, G_reg_interval),
            *optimization.make_phases("D", D, D_opt_kwargs, D_reg_interval, D_steps),
            *loss.extra_phases(),
        ],
        loss=loss,
        ada=ada,
        feed=feed,
        guard=optimization.GradientGuard(target),
        collector=training_stats.Collector(regex=".*"),
    )
    if state is not None:
        run.load_state_dict(state)
        state = None
    total_nimg = total_kimg * 1000
    num_images = batch_size * D_steps  # per iteration
    if run.finished_nimg == run.cur_nimg >= total_nimg:
        say("This run is complete; to train longer, pass --kimg")
        return

    grid = None
    if distributed.is_main():
        grid = image_grid.SampleGrid(dataset, networks["G_ema"], random_seed, batch_gpu, run_dir)
        if run.cur_nimg == 0:
            grid.save_reals()
            grid.save_fakes("fakes_init.png")
    schedule = Schedule(kimg_per_tick, image_snapshot_ticks, network_snapshot_ticks)
    upkeep = Maintenance(
        run, run_dir, schedule, grid, metrics, metric_kwargs, training_set_kwargs, target, start_time
    )
    if progress_fn is not None:
        progress_fn(run.cur_nimg // 1000, int(total_kimg))
    bar = Progress(
        total_kimg,
        "training",
        unit="kimg",
        enabled=None if distributed.is_main() else False,
        initial=run.cur_nimg / 1000,
    )
    with _catch_signals() as caught, bar:
        while True:
            bar.set(run.cur_nimg / 1000)
            done = run.cur_nimg >= total_nimg
            if done or run.tick_is_over(kimg_per_tick):
                bar.clear()
                done = done or _is_aborted(abort_fn)
                upkeep.end_tick(done)
                if progress_fn is not None:
                    progress_fn(run.cur_nimg // 1000, int(total_kimg))
            if done:
                say("Training is done")
                break
            _seed(random_seed, run.batch_idx + 1)
            _optimize(run, batch_size, batch_gpu, upkeep.stopwatch)
            distributed.mean_([buffer for name, buffer in G.named_buffers() if name.endswith(RUNNING_MEANS)])
            beta = optimization.ema_beta(num_images, ema_kimg, ema_rampup, run.cur_nimg)
            if run.cur_nimg < ema_start_kimg * 1000:
                beta = 0.0
            optimization.update_ema(networks["G_ema"], G, beta, ema_buffers)
            run.cur_nimg += num_images
            run.batch_idx += 1
            if ada is not None:
                ada.step(run.batch_idx)
            if distributed.any_rank(bool(caught)):
                upkeep.save_state()
                bar.clear()
                say(f"Interrupted at image {run.cur_nimg:,}; go on with --resume={run_dir}")
                break
    upkeep.close()


def _seed(random_seed: int, step: int) -> None:
    """Seeds everything for one iteration, so that a resumed run draws what an unbroken one would have drawn."""
    sequence = np.random.SeedSequence([random_seed, distributed.rank(), step])
    torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1)))


def _networks(
    dataset: Any, G_kwargs: Mapping[str, Any], D_kwargs: Mapping[str, Any], device: torch.device
) -> dict[str, torch.nn.Module]:
    """G, D and G_ema for the images and labels of a data set."""
    shape = {"img_resolution": dataset.resolution, "img_channels": dataset.num_channels}
    networks = {
        name: _build(kwargs, device, c_dim=dataset.label_dim, **shape)
        for name, kwargs in (("G", G_kwargs), ("D", D_kwargs))
    }
    average = copy.deepcopy(networks["G"])
    average.eval()
    return {**networks, "G_ema": average}


def _build(kwargs: Mapping[str, Any], device: torch.device, **sizes: int) -> torch.nn.Module:
    """A module from its class_name and arguments, in training mode; gradients are only taken in `_trainable`."""
    module = dnnlib.util.construct_class_by_name(**{**kwargs, **sizes})
    module.to(device)
    module.requires_grad_(False)
    return module.train()


def _is_aborted(abort_fn: Callable[[], bool] | None) -> bool:
    """Whether the caller's function ends the run, which is then said."""
    if abort_fn is None or not abort_fn():
        return False
    say("Stopped by abort_fn")
    return True


def _optimize(run: Run, batch_size: int, batch_gpu: int, stopwatch: Stopwatch) -> None:
    """The steps of every phase that is due, each step of a phase on another batch of real images."""
    stage = run.loss.stage(run.cur_nimg)
    if stage > run.stage:
        run.start_stage(stage)
        say(f"Stage {stage + 1} of training begins at image {run.cur_nimg:,}")
    stopwatch.start("data")
    real_img, real_c = run.feed.next()
    stopwatch.stop("data")
    share = batch_size // distributed.world_size()
    batches = list(zip(real_img.split(share), real_c.split(share)))
    for phase in run.phases:
        if run.batch_idx % phase.interval != 0:
            continue
        stopwatch.start(phase.name)
        for batch in batches[: phase.steps]:
            _step(run, phase, *batch, batch_gpu)
        stopwatch.stop(phase.name)


def _step(run: Run, phase: Phase, real_img: torch.Tensor, real_c: torch.Tensor, batch_gpu: int) -> None:
    """One step of one phase."""
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


@contextmanager
def _trainable(module: torch.nn.Module) -> Iterator[None]:
    """In here the module's parameters require gradients; before and after, they do not."""
    try:
        module.requires_grad_(True)
        yield
    finally:
        module.requires_grad_(False)


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


def _print_summaries(G: Any, D: Any, device: torch.device) -> None:
    """Tables of both networks, from a pass that draws no random numbers."""
    data, label = (torch.zeros([1, dim], device=device) for dim in (G.z_dim, G.c_dim))
    was_training = D.training
    D.eval()  # one that estimates something in training mode must not see these images
    with torch.no_grad():
        for network in (G, D):  # which sees what G made
            data = misc.print_module_summary(network, [data, label])
    D.train(was_training)
