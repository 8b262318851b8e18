"""Train a StyleGAN2-ADA or BigGAN network, or compress one (--cfg=dgl, dgl-stylegan3, dgl-biggan)."""
import contextlib
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import IO, Any

import click

import dnnlib
from dnnlib import EasyDict
from dnnlib.cli import (
    CommaList,
    Command,
    FiniteFloatRange,
    device_option,
    trust_detector_option,
    trust_pickle_option,
)
from dnnlib.errors import UserError
from dnnlib.files import check_writable_dir, new_run_dir, next_run_dir
from dnnlib.locks import sole_writer
from training import architectures, options, resume_options, run_config
from training.run_config import RunConfig

PLUGINS: list[ModuleType] = []

# The plugin that compresses trained networks: without its folder and these lines, this is a complete StyleGAN2-ADA.
from dgl import options as dgl_options  # noqa: E402

PLUGINS.append(dgl_options)
AUGPIPE_NAMES = [
    "blit", "geom", "color", "filter", "noise", "cutout", "bg", "bgc", "bgcf", "bgcfn", "bgcfnc",
]
POSITIVE = click.IntRange(min=1)
NOT_NEGATIVE = FiniteFloatRange(min=0)
UNIT = FiniteFloatRange(min=0, max=1)


class PowerOfTwo(click.ParamType):
    """Option type: 1, 2, 4, 8, ..."""

    name = "int"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number."""
        number = int(value) if re.fullmatch(r"\d+", str(value)) else 0
        if number < 1 or number & (number - 1):
            self.fail(f"expected a power of two of at least 1, found {value!r}", param, ctx)
        return number


class Preset(click.ParamType):
    """Option type: a preset of any family that is registered."""

    name = "choice"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """All presets, for the help text."""
        return f"[{'|'.join(architectures.preset_names())}]"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name."""
        if value not in architectures.preset_names():
            known = ", ".join(map(repr, architectures.preset_names()))
            self.fail(f"{value!r} is not one of {known}.", param, ctx)
        return value


def family_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: adds the options of every family and plugin."""
    modules = [row.module("options") for row in architectures.rows()]
    for module in reversed([*modules, *PLUGINS]):
        command = module.add(command)
    return command


# Field of the library → the option that sets it.
FIELDS = {"total_kimg": "kimg", "batch_size": "batch", "num_gpus": "gpus", "random_seed": "seed", "url": "resume"}


@click.command(cls=Command, fields=FIELDS)
# Data, preset and output.
@click.option("--data", help="Training data: a folder or a zip made by dataset_tool.py.  With --cfg=dgl, 'teacher' is "
              "the teacher's own images.  [required unless resuming a run; default of --recipe=distil and mobile: "
              "teacher]",
              metavar="PATH")
@click.option("--cond", help="Condition the networks on the labels of dataset.json.", show_default="false", type=bool,
              metavar="BOOL")
@click.option("--mirror", help="Add the mirrored copy of every image.", show_default="false", type=bool, metavar="BOOL")
@click.option("--subset", help="Use a random subset of this many images.", show_default="all of them", type=int,
              metavar="INT")
@click.option("--outdir", help="Parent of the run directories.  [required unless resuming a run; default with "
              "--cfg=dgl: runs]", metavar="DIR")
@click.option("--desc", help="Text to add to the name of the run directory.", metavar="STR")
@click.option("--cfg", help="Preset.", type=Preset(), default="auto", show_default=True)
@click.option("--seed", help="Random seed.", type=click.IntRange(min=0), default=0,
              show_default=True, metavar="INT")
@click.option("-n", "--dry-run", help="Print the resolved options, and what the run will take: images per hour by "
              "three measured steps, memory, disk.  Create nothing.", is_flag=True)
@click.option("--estimate/--no-estimate", help="Whether --dry-run measures.", default=True, show_default=True)
# Schedule.
@click.option("--kimg", help="Training length in thousands of images.", show_default="the preset's", type=POSITIVE,
              metavar="INT")
@click.option("--batch", help="Images per step, over all GPUs.", show_default="the preset's", type=POSITIVE,
              metavar="INT")
@click.option("--batch-gpu", help="Images per pass on one GPU; gradients accumulate over the passes of a batch.",
              show_default="the preset's", type=POSITIVE, metavar="INT")
@click.option("--glr", help="Learning rate of the generator.", show_default="the preset's", type=NOT_NEGATIVE,
              metavar="FLOAT")
@click.option("--dlr", help="Learning rate of the discriminator.", show_default="the preset's", type=NOT_NEGATIVE,
              metavar="FLOAT")
@click.option("--gamma", help="R1 weight.", show_default="the preset's", type=NOT_NEGATIVE, metavar="FLOAT")
@click.option("--ema-kimg", help="Half-life of the generator's moving average in thousands of images.",
              show_default="the preset's; BigGAN: a decay of 0.9999 per step of G",
              type=FiniteFloatRange(min=0, min_open=True), metavar="FLOAT")
# Networks.
@click.option("--z-dim", help="Size of the latent z.", show_default="512, BigGAN: the preset's", type=POSITIVE,
              metavar="INT")
@click.option("--w-dim", help="Size of the intermediate latent w.", show_default="512", type=POSITIVE, metavar="INT")
@click.option("--map-depth", help="Layers of the mapping network.", show_default="the preset's", type=POSITIVE,
              metavar="INT")
@click.option("--cbase", help="Capacity: channels at resolution r are cbase / r, ...", show_default="the preset's",
              type=POSITIVE, metavar="INT")
@click.option("--cmax", help="... but at most this many.", show_default="512", type=POSITIVE, metavar="INT")
@click.option("--mbstd-group", help="Group size of the minibatch standard deviation.", show_default="the preset's",
              type=POSITIVE, metavar="INT")
@click.option("--fp32", help="Disable half precision.", show_default="false", type=bool, metavar="BOOL")
@click.option("--nhwc", help="Use channels-last memory with half precision.", show_default="false", type=bool,
              metavar="BOOL")
# Initial weights.
@click.option("--resume", help="A run directory, or 'latest' for the newest of --outdir: resumes that run exactly. A "
              "network pickle, its URL, or ffhq256, ffhq512, ffhq1024, celebahq256, lsundog256: starts a new run from "
              "its weights. 'noresume' does neither.", show_default="noresume", metavar="[DIR|PKL|URL|NAME]")
@click.option("--freezed", help="Freeze the first N layers of D.", show_default="0", type=click.IntRange(min=0),
              metavar="INT")
@trust_pickle_option
@trust_detector_option
# Augmentation of the discriminator's images.
@click.option("--aug", help="Augmentation.", show_default="ada; noaug with --cfg=biggan and all that compress",
              type=click.Choice(["noaug", "ada", "fixed"]))
@click.option("--augpipe", help="Set of augmentations.", show_default="bgc", type=click.Choice(AUGPIPE_NAMES))
@click.option("--p", help="Probability of every augmentation with --aug=fixed.", type=UNIT, metavar="FLOAT")
@click.option("--target", help="Target of --aug=ada.", show_default="0.6", type=UNIT, metavar="FLOAT")
@click.option("--ada-max", help="Upper bound of the probability with --aug=ada.", show_default="1",
              type=FiniteFloatRange(min=0, max=1, min_open=True), metavar="FLOAT")
# Ticks, snapshots and metrics.
@click.option("--tick", help="Length of a tick in thousands of images.", show_default="4", type=POSITIVE, metavar="INT")
@click.option("--snap", help="Ticks between snapshots of images and networks.", type=POSITIVE, default=50,
              show_default=True, metavar="INT")
@click.option("--metrics", help="Metrics to run at every network snapshot, comma-separated, or none.", type=CommaList(),
              default="fid50k_full", show_default=True, metavar="LIST")
@click.option("--num-gen", help="Generated images per metric; scores with another number than the metric's own are not "
              "comparable.", type=POSITIVE, metavar="INT")
@click.option("--num-real", help="Real images per metric, likewise.", type=POSITIVE, metavar="INT")
@click.option("--detector", help="TorchScript feature detector for the metrics instead of the published one: path or "
              "URL, optionally #sha256=...; repeatable.", multiple=True, metavar="[PATH|URL]")
# Machine.
@click.option("--gpus", help="Number of processes, one per GPU; a power of two.", type=PowerOfTwo(), default=1,
              show_default=True, metavar="INT")
@click.option("--workers", help="Data loading processes.", type=click.IntRange(min=0), default=3, show_default=True,
              metavar="INT")
@click.option("--allow-tf32", help="Use TF32 in matrix products and convolutions.", show_default="false", type=bool,
              metavar="BOOL")
@click.option("--nobench", help="Disable cuDNN benchmarking.", show_default="false", type=bool, metavar="BOOL")
@device_option
@family_options
@click.pass_context
def main(ctx: click.Context, **values: Any) -> None:
    """Train a GAN: StyleGAN2 with adaptive discriminator augmentation, StyleGAN3 or BigGAN; or, with --cfg=dgl, a
    compressed student of a trained network, by distillation without data or with guidance by the teacher's
    discriminator (--recipe=paper).

    \b
    Examples:
      # Train from random weights, for two million images.
      python train.py --data=shoes.zip --outdir=runs --kimg=2000
    \b
      # Train a class-conditional network on four GPUs; compute the inception score as well.
      python train.py --data=birds.zip --cond=true --outdir=runs --gpus=4 --metrics=fid50k_full,is50k
    \b
      # Fine-tune published weights on portraits; freeze the first layers of D.
      python train.py --data=portraits.zip --mirror=true --outdir=runs --resume=ffhq256 --freezed=4
    \b
      # Compress a trained network to half its width, without data; train on real images afterwards.
      python train.py --cfg=dgl --teacher=ffhq.pkl --width=0.5
      python train.py --cfg=dgl --teacher=ffhq.pkl --width=0.5 --game-kimg=10 --data=ffhq.zip
    \b
      # Train a BigGAN, and compress one.
      python train.py --cfg=biggan --data=cifar10.zip --outdir=runs --metrics=fid50k_full,is50k
      python train.py --cfg=dgl-biggan --teacher=weights/138k --width=0.5 --data=imagenet.zip --outdir=runs
    \b
      # Resume after an interruption; SIGTERM and Ctrl-C save the state and end with status 143 or 130.
      python train.py --resume=runs/00000-shoes-auto1-kimg2000

    The presets are those of StyleGAN2-ADA: auto adapts to the resolution and the number of GPUs, stylegan2 reproduces
    config-f of the StyleGAN2 paper, paper256, paper512 and paper1024 the results of the StyleGAN2-ADA paper, cifar
    those on CIFAR-10. stylegan3-t and stylegan3-r train the two configurations of StyleGAN3. biggan trains a
    class-conditional BigGAN with the settings of its image size. dgl takes its architecture from --teacher: it means
    dgl-stylegan3 for a StyleGAN3 and dgl-biggan for a BigGAN.
    """
    opts = EasyDict(values)
    given = {name for name in opts if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE}
    if "estimate" in given and not opts.dry_run:
        raise click.UsageError("--estimate and --no-estimate go with --dry-run")
    is_main = os.environ.get("RANK", "0") == "0"  # under torchrun every process comes here
    _set_up_logging(is_main)
    _take_over_processes(opts, given)
    if opts.detector:
        from metrics import detector

        detector.check_given(opts.detector)
    if opts.resume == "latest":
        _require(opts, "outdir")
    run_dir = resume_options.run_to_resume(opts)
    resume = run_dir is not None
    if run_dir is not None:
        config = resume_options.resumed_config(run_dir, opts, given, PLUGINS)
    else:
        config, description = _configured(opts, given)
        run_dir = str(next_run_dir(opts.outdir, description))
    if is_main:
        shown = {**config.to_dict(), "run_dir": run_dir, **({"resume_state": True} if resume else {})}
        click.echo(f"Resolved options:\n{json.dumps(shown, indent=2)}\n")
    # A run directory may be untrusted: what it pins is trusted only if the user says so now.
    untrusted = "none" if resume else "pinned"
    trust = "all" if opts.trust_detector else untrusted
    if not opts.dry_run:
        at_end = [function for plugin in PLUGINS if (function := plugin.at_end(opts)) is not None]
        _launch(config, run_dir, resume, trust, at_end)
    elif is_main:
        if opts.estimate:
            _print_estimate(config, run_dir, trust)
        click.echo("Nothing was started (--dry-run).")


def _print_estimate(config: RunConfig, run_dir: str, trust: str) -> None:
    """Measures a run that does not start; `trust` as of `_worker`."""
    from metrics import detector
    from training.estimates import measuring

    logging.info("measuring three steps of every phase; --no-estimate leaves that out")
    with detector.trust(detector.Trust(trust)):
        click.echo("\n".join(measuring.measure(config).lines(run_dir)))


def _set_up_logging(is_main: bool) -> None:
    """One process only prints notes and warnings."""
    level = logging.INFO if is_main else logging.ERROR
    logging.basicConfig(level=level, format="%(levelname)s: %(message)s")


def _take_over_processes(opts: EasyDict, given: set[str]) -> None:
    """Under torchrun, its number of processes replaces --gpus."""
    text = os.environ.get("WORLD_SIZE", "")
    if not text.isdigit():
        return
    started = int(text)
    if "gpus" in given and opts.gpus != started:
        raise click.UsageError(f"--gpus: torchrun started {started} processes, found {opts.gpus}; leave --gpus out")
    opts.gpus = started
    given.add("gpus")


def _require(opts: EasyDict, *names: str) -> None:
    for name in names:
        if not opts[name]:
            raise click.UsageError(f"Missing option '--{name}'.")


def _configured(opts: EasyDict, given: set[str]) -> tuple[RunConfig, str]:
    """The configuration of a new run, and its description."""
    try:
        for plugin in PLUGINS:
            plugin.complete(opts, given)
    except options.OptionError as error:
        raise click.UsageError(str(error)) from None
    _require(opts, "outdir", "data")
    for name in ("outdir", "data"):
        opts[name] = os.path.expanduser(opts[name])
    from metrics import metric_main

    for name in opts.metrics:
        if not metric_main.is_valid_metric(name):
            raise click.BadParameter(f"no metric is called {name!r}; valid ones: "
                                     f"{', '.join(metric_main.list_valid_metrics())}", param_hint="'--metrics'")
        if name == "agreement":
            raise click.BadParameter("agreement compares with another network; score the snapshots with "
                                     "calc_metrics.py --metrics=agreement --teacher=PKL", param_hint="'--metrics'")
    family = architectures.of_preset(opts.cfg).module("options")
    configure = next((plugin.training_config for plugin in PLUGINS if opts.cfg in plugin.CFGS), None)
    try:
        options.check_families(opts, given)
        family.check(opts, given)
        for plugin in PLUGINS:
            plugin.check(opts, given)
        generated = [data for plugin in PLUGINS if (data := plugin.generated_data(opts)) is not None]
        data = generated[0] if generated else options.probe_data(opts)
        config = family.training_config(opts, data) if configure is None else configure(opts, given, data)
    except options.OptionError as error:
        raise click.UsageError(str(error)) from None
    check_writable_dir(opts.outdir, "--outdir")
    return config, options.run_description(opts, data.name)


AtEnd = list[Callable[[RunConfig, str], str]]  # called with a complete run and its folder; say what they wrote


def _launch(config: RunConfig, run_dir: str, resume: bool, trust: str, at_end: AtEnd) -> None:
    """Makes the run directory and starts the processes; under torchrun this process is one of them already."""
    from torch_utils import distributed
    from torch_utils.devices import resolve_device
    from training.reporting import provenance

    device_type = resolve_device(config.machine.device).type
    under_torchrun = "WORLD_SIZE" in os.environ
    if under_torchrun:
        distributed.init(device_type)
    is_new = distributed.is_main() and not resume
    if is_new:
        outdir, name = os.path.split(run_dir)
        made_by = provenance()
        run_dir = str(new_run_dir(outdir, name.split("-", 1)[1], lambda path: {
            run_config.FILE_NAME: {**config.to_dict(), "run_dir": str(path), "provenance": made_by}
        }))
    run_dir = distributed.broadcast_object(run_dir)
    try:
        if under_torchrun or config.machine.num_gpus == 1:
            _run(config, run_dir, resume, trust, at_end)
        else:
            arguments = (config, run_dir, resume, trust, at_end, device_type)
            distributed.launch(_process, arguments, num_procs=config.machine.num_gpus)
    except distributed.RankError as error:
        click.echo(f"To resume this run: python train.py --resume={run_dir}", err=True)
        raise click.ClickException(str(error)) from error
    except UserError:
        if is_new and not os.path.exists(os.path.join(run_dir, "state")):  # it never began: leave nothing behind
            shutil.rmtree(run_dir, ignore_errors=True)
        raise


def _process(config: RunConfig, run_dir: str, resume: bool, trust: str, at_end: AtEnd, device_type: str) -> None:
    """One of several local processes."""
    from torch_utils import distributed

    distributed.init(device_type)
    _set_up_logging(distributed.is_main())
    try:
        _run(config, run_dir, resume, trust, at_end)
    finally:
        distributed.shutdown()


def _run(config: RunConfig, run_dir: str, resume: bool, trust: str, at_end: AtEnd) -> None:
    """The training and what comes after its end, for which the main process is alone."""
    from torch_utils import distributed

    status, is_main = _worker(config, run_dir, resume, trust), distributed.is_main()
    distributed.shutdown()
    if status:
        sys.exit(status)
    if is_main:
        for function in at_end:
            click.echo(f"Written: {function(config, run_dir)}")


def _worker(config: RunConfig, run_dir: str, resume: bool, trust: str) -> int:
    """One process of the training.

    Args:
        config: of the run.
        run_dir: its folder.
        resume: resume it.
        trust: a value of `metrics.detector.Trust`.

    Returns:
        Exit status: 0, or 128 and the number of the signal that interrupted the run, as shells count it.
    """
    from metrics import detector
    from torch_utils import devices, distributed
    from training.training_loop import training_loop

    devices.tune_allocator()
    if config.machine.num_gpus != distributed.world_size():
        raise UserError(f"expected {config.machine.num_gpus} processes, found {distributed.world_size()}")
    with contextlib.ExitStack() as stack:
        stack.enter_context(distributed.naming_lost_ranks())
        stack.enter_context(detector.trust(detector.Trust(trust)))
        if distributed.is_main():
            console = sys.stderr
            stack.enter_context(sole_writer(run_dir))
            stack.enter_context(dnnlib.util.Logger(os.path.join(run_dir, "log.txt"), file_mode="a", should_flush=True))
            stack.enter_context(_log_to(sys.stderr, console))
        number = training_loop(config, run_dir, resume)
        if number is not None and distributed.is_main():
            click.echo(f"To resume this run: python train.py --resume={run_dir}")
    return 0 if number is None else 128 + number


@contextlib.contextmanager
def _log_to(stream: IO[str], console: IO[str]) -> Iterator[None]:
    """In here, what would be logged on the console goes to `stream`."""
    handlers = [handler for handler in logging.getLogger().handlers
                if isinstance(handler, logging.StreamHandler) and handler.stream is console]
    for handler in handlers:
        handler.setStream(stream)
    try:
        yield
    finally:
        for handler in handlers:
            handler.setStream(console)


if __name__ == "__main__":
    main()
