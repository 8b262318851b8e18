"""Train a StyleGAN2-ADA or BigGAN network, or compress one (--cfg=dgl, --cfg=dgl-biggan)."""
import json
import logging
import os
import re
import shutil
import sys
from typing import Any

import click

import dnnlib
from dgl import options as dgl_options
from dnnlib import EasyDict
from dnnlib.cli import CommaList, Command, device_option, trust_pickle_option
from dnnlib.files import check_writable_dir, new_run_dir, next_run_dir
from dnnlib.util import UserError
from training.biggan import options as config_biggan

PRESET_NAMES = [
    "auto", "stylegan2", "paper256", "paper512", "paper1024", "cifar", config_biggan.CFG, *dgl_options.CFGS,
]
AUGPIPE_NAMES = [
    "blit", "geom", "color", "filter", "noise", "cutout", "bg", "bgc", "bgcf", "bgcfn", "bgcfnc",
]
POSITIVE = click.IntRange(min=1)
NOT_NEGATIVE = click.FloatRange(min=0)
UNIT = click.FloatRange(min=0, max=1)


class PowerOfTwo(click.ParamType):
    """Option type: 1, 2, 4, 8, ..."""

    name = "int"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        number = int(value) if re.fullmatch(r"\d+", str(value)) else 0
        if number < 1 or number & (number - 1):
            self.fail(f"expected a power of two of at least 1, got {value!r}", param, ctx)
        return number


@click.command(cls=Command, context_settings={"show_default": False})
# What is learnt, and where the run goes.
@click.option("--data", help="Training data, a folder or a zip made by dataset_tool.py.  "
              "[required unless resuming a run]", metavar="PATH")
@click.option("--cond", help="Condition the networks on the labels of dataset.json.  [default: false]",
              type=bool, metavar="BOOL")
@click.option("--mirror", help="Add the mirror image of every image.  [default: false]", type=bool, metavar="BOOL")
@click.option("--subset", help="Keep a random choice of that many images.  [default: all of them]", type=int,
              metavar="INT")
@click.option("--outdir", help="Parent of the run directories.  [required unless resuming a run]", metavar="DIR")
@click.option("--desc", help="Text to add to the name of the run directory.", metavar="STR")
@click.option("--cfg", help="Preset.  [default: auto]", type=click.Choice(PRESET_NAMES), default="auto")
@click.option("--seed", help="Where all random numbers start from.  [default: 0]",
              type=click.IntRange(min=0), default=0, metavar="INT")
@click.option("-n", "--dry-run", help="Print the resolved options and exit, creating nothing.", is_flag=True)
# How long, and in which steps.
@click.option("--kimg", help="Training length in thousands of images.  [default: the preset's]", type=POSITIVE,
              metavar="INT")
@click.option("--batch", help="Images per step, over all GPUs.  [default: the preset's]", type=POSITIVE, metavar="INT")
@click.option("--batch-gpu", help="Images per pass on one GPU; the rest of a batch is accumulated.  "
              "[default: the preset's]", type=POSITIVE, metavar="INT")
@click.option("--glr", help="Learning rate of the generator.  [default: the preset's]", type=NOT_NEGATIVE,
              metavar="FLOAT")
@click.option("--dlr", help="Learning rate of the discriminator.  [default: the preset's]", type=NOT_NEGATIVE,
              metavar="FLOAT")
@click.option("--gamma", help="R1 weight.  [default: the preset's]", type=NOT_NEGATIVE, metavar="FLOAT")
# The networks.
@click.option("--z-dim", help="Size of the latent z.  [default: 512, BigGAN: the preset's]",
              type=POSITIVE, metavar="INT")
@click.option("--w-dim", help="Size of the intermediate latent w.  [default: 512]", type=POSITIVE, metavar="INT")
@click.option("--map-depth", help="Layers of the mapping network.  [default: the preset's]", type=POSITIVE,
              metavar="INT")
@click.option("--cbase", help="Capacity: channels at resolution r are cbase / r, ...  [default: the preset's]",
              type=POSITIVE, metavar="INT")
@click.option("--cmax", help="... but at most this many.  [default: 512]", type=POSITIVE, metavar="INT")
@click.option("--mbstd-group", help="Group size of the minibatch standard deviation.  [default: the preset's]",
              type=POSITIVE, metavar="INT")
@click.option("--fp32", help="No half precision anywhere.  [default: false]", type=bool, metavar="BOOL")
@click.option("--nhwc", help="Channels-last memory with half precision.  [default: false]", type=bool, metavar="BOOL")
# What they start from.
@click.option("--resume", help="RUN_DIR or 'latest' (of --outdir) goes on exactly where that run stopped; a network "
              "pickle, its URL, or ffhq256, ffhq512, ffhq1024, celebahq256, lsundog256 starts a new run from its "
              "weights; 'noresume' does neither.  [default: noresume]", metavar="[DIR|PKL|URL|NAME]")
@click.option("--freezed", help="Freeze the first N layers of D.  [default: 0]", type=click.IntRange(min=0),
              metavar="INT")
@trust_pickle_option
# Augmentation of what the discriminator sees.
@click.option("--aug", help="Augmentation.  [default: ada; noaug with --cfg=biggan, dgl and dgl-biggan]",
              type=click.Choice(["noaug", "ada", "fixed"]))
@click.option("--augpipe", help="Set of augmentations.  [default: bgc]", type=click.Choice(AUGPIPE_NAMES))
@click.option("--p", help="Probability of every augmentation with --aug=fixed.", type=UNIT, metavar="FLOAT")
@click.option("--target", help="Target of --aug=ada.  [default: 0.6]", type=UNIT, metavar="FLOAT")
@click.option("--ada-max", help="Upper bound of the probability with --aug=ada.  [default: 1]",
              type=click.FloatRange(min=0, max=1, min_open=True), metavar="FLOAT")
# What is measured and kept on the way.
@click.option("--tick", help="Length of a tick in thousands of images.  [default: 4]", type=POSITIVE, metavar="INT")
@click.option("--snap", help="Ticks between snapshots of images and networks.  [default: 50]", type=POSITIVE,
              default=50, metavar="INT")
@click.option("--metrics", help="Metrics to run at every network snapshot, comma-separated, or none.  "
              "[default: fid50k_full]", type=CommaList(), default="fid50k_full", metavar="LIST")
@click.option("--num-gen", help="Generated images per metric; other than the metric's own number is not comparable.",
              type=POSITIVE, metavar="INT")
@click.option("--num-real", help="Real images per metric, likewise.", type=POSITIVE, metavar="INT")
@click.option("--detector", help="TorchScript feature detector for the metrics instead of the published one: path or "
              "URL, optionally #sha256=...; repeatable.", multiple=True, metavar="[PATH|URL]")
# The machine.
@click.option("--gpus", help="Number of processes, one per GPU; a power of two.  [default: 1]", type=PowerOfTwo(),
              default=1, metavar="INT")
@click.option("--workers", help="Data loading processes.  [default: 3]", type=click.IntRange(min=0), default=3,
              metavar="INT")
@click.option("--allow-tf32", help="TF32 in matrix products and convolutions.  [default: false]", type=bool,
              metavar="BOOL")
@click.option("--nobench", help="No cuDNN benchmarking.  [default: false]", type=bool, metavar="BOOL")
@device_option
@config_biggan.add
@dgl_options.add
@click.pass_context
def main(ctx: click.Context, **options: Any) -> None:
    """Train a GAN: StyleGAN2 with adaptive discriminator augmentation, or, with --cfg=dgl, a compressed student of a
    trained one under its teacher's discriminator (DGL-GAN).

    \b
    Examples:
      # From nothing, for two million images.
      python train.py --data=shoes.zip --outdir=runs --kimg=2000
    \b
      # All classes of a labelled data set with one network, on four GPUs; the inception score as well.
      python train.py --data=birds.zip --cond=true --outdir=runs --gpus=4 --metrics=fid50k_full,is50k
    \b
      # From published weights to one's own portraits; the first layers of D stay as they are.
      python train.py --data=portraits.zip --mirror=true --outdir=runs --resume=ffhq256 --freezed=4
    \b
      # Compress a trained network to half its width.
      python train.py --cfg=dgl --teacher=ffhq.pkl --width=0.5 --data=ffhq.zip --outdir=runs
    \b
      # Train a BigGAN, and compress one.
      python train.py --cfg=biggan --data=cifar10.zip --outdir=runs --metrics=fid50k_full,is50k
      python train.py --cfg=dgl-biggan --teacher=weights/138k --width=0.5 --data=imagenet.zip --outdir=runs
    \b
      # Go on after an interruption.
      python train.py --resume=runs/00000-shoes-auto1-kimg2000

    The presets are those of StyleGAN2-ADA: auto adapts to the resolution and the number of GPUs, stylegan2 reproduces
    config-f of the StyleGAN2 paper, paper256, paper512 and paper1024 the results of the StyleGAN2-ADA paper, cifar
    those on CIFAR-10. biggan trains a class-conditional BigGAN with the settings of its image size. dgl and dgl-biggan
    take their architecture from --teacher.
    """
    asked = EasyDict(options)
    given = {name for name in asked if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE}
    speaks = os.environ.get("RANK", "0") == "0"  # under torchrun every process comes here
    _set_up_logging(speaks)
    _take_over_processes(asked, given)
    if asked.detector:
        from metrics import detector

        detector.check_given(asked.detector)
    run_dir = _run_to_continue(asked)
    if run_dir is not None:
        plan = _continued(run_dir, asked, given)
    else:
        plan = _configured(asked, given)
        run_dir = str(next_run_dir(asked.outdir, plan.pop("description")))
    plan.run_dir = run_dir
    if speaks:
        click.echo(f"Resolved options:\n{json.dumps(plan, indent=2)}\n")
    if not asked.dry_run:
        _launch(plan, resuming=bool(plan.get("resume_state")))
    elif speaks:
        click.echo("Nothing was started (--dry-run).")


def _set_up_logging(is_main: bool) -> None:
    """Notes and warnings come from one process only."""
    level = logging.INFO if is_main else logging.ERROR
    logging.basicConfig(level=level, format="%(levelname)s: %(message)s")


def _take_over_processes(asked: EasyDict, given: set[str]) -> None:
    """Under torchrun, its number of processes is that of --gpus."""
    text = os.environ.get("WORLD_SIZE", "")
    if not text.isdigit():
        return
    started = int(text)
    if "gpus" in given and asked.gpus != started:
        raise click.UsageError(f"--gpus: torchrun started {started} processes, got {asked.gpus}; leave --gpus out")
    asked.gpus = started
    given.add("gpus")


def _need(asked: EasyDict, *names: str) -> None:
    for name in names:
        if not asked[name]:
            raise click.UsageError(f"Missing option '--{name}'.")


def _configured(asked: EasyDict, given: set[str]) -> EasyDict:
    """The arguments of a new run, and its description."""
    _need(asked, "outdir", "data")
    for name in ("outdir", "data"):
        asked[name] = os.path.expanduser(asked[name])
    from metrics import metric_main
    from training import options as config
    from training import presets

    for name in asked.metrics:
        if not metric_main.is_valid_metric(name):
            raise click.BadParameter(f"no metric is called {name!r}; valid ones: "
                                     f"{', '.join(metric_main.list_valid_metrics())}", param_hint="'--metrics'")
    try:
        config_biggan.check(asked, given)
        data = config.probe_data(asked)
        dgl_options.check(asked, given)
        if asked.cfg in dgl_options.CFGS:
            plan = dgl_options.training_config(asked, given, data)
        elif asked.cfg == config_biggan.CFG:
            plan = config_biggan.training_config(asked, data)
        else:
            plan = config.training_config(asked, presets.resolve(asked.cfg, data.resolution, asked.gpus), data)
    except config.OptionError as error:
        raise click.UsageError(str(error)) from None
    check_writable_dir(asked.outdir, "--outdir")
    plan.description = config.run_description(asked, data.name)
    return plan


# Options that may differ when a run goes on: they do not change what it computes.
FREE_WHEN_RESUMING = {"gpus", "kimg", "snap", "metrics", "detector", "num_gen", "num_real", "workers", "device",
                      "resume", "outdir", "dry_run", "nobench", "trust_pickle"}


def _run_to_continue(asked: EasyDict) -> str | None:
    """The run directory that --resume names, if it names one."""
    if asked.resume is None:
        return None
    if asked.resume != "latest":
        path = os.path.expanduser(asked.resume)
        if not os.path.isdir(path):
            return None
        if not os.path.isfile(os.path.join(path, "training_options.json")):
            from training.biggan.checkpoints import network_files

            if network_files(path):
                return None  # networks to start from, not a run to go on with
            raise UserError(f"--resume: {path} is a folder without training_options.json, so it is no run directory")
        return path
    _need(asked, "outdir")
    outdir = os.path.expanduser(asked.outdir)
    names = sorted(os.listdir(outdir)) if os.path.isdir(outdir) else []
    runs = [name for name in names if os.path.isfile(os.path.join(outdir, name, "training_options.json"))]
    if not runs:
        raise UserError(f"--resume: there is no run directory in {outdir}")
    return os.path.join(outdir, runs[-1])


def _continued(run_dir: str, asked: EasyDict, given: set[str]) -> EasyDict:
    """The arguments of a run that goes on: its own, and what may be changed."""
    fixed = sorted(given - FREE_WHEN_RESUMING)
    path = os.path.join(run_dir, "training_options.json")
    with open(path, encoding="utf-8") as f:
        plan = EasyDict(json.load(f))
    if fixed:
        changed = ", ".join("--" + name.replace("_", "-") for name in fixed)
        start = "--init" if dgl_options.guides(plan) else "--resume"
        raise UserError(f"--resume: a run goes on with its own options; leave out {changed}, or start a new run from "
                        f"one of its pickles with {start}={os.path.join(run_dir, 'network-snapshot-….pkl')}")
    for name in ("provenance", "run_dir"):
        plan.pop(name, None)
    if "gpus" in given:
        _share_anew(plan, asked.gpus)
    _renew(plan, asked, given)
    plan.resume_state = True
    return plan


def _renew(plan: EasyDict, asked: EasyDict, given: set[str]) -> None:
    """Replaces those arguments of a run that options which may differ say otherwise."""
    values = {**asked, "detector": list(asked.detector), "nobench": not asked.nobench}
    places: dict[str, tuple[Any, ...]] = {  # option → the dictionary that it changes, and its names there
        "kimg": (plan, "total_kimg"),
        "snap": (plan, "image_snapshot_ticks", "network_snapshot_ticks"),
        "metrics": (plan, "metrics"),
        "detector": (plan.metric_kwargs, "detectors"),
        "num_gen": (plan.metric_kwargs, "num_gen"),
        "num_real": (plan.metric_kwargs, "num_real"),
        "workers": (plan.data_loader_kwargs, "num_workers"),
        "device": (plan, "device"),
        "nobench": (plan, "cudnn_benchmark"),
    }
    for option, (arguments, *names) in places.items():
        if option in given:
            arguments.update(dict.fromkeys(names, values[option]))


def _share_anew(plan: EasyDict, gpus: int) -> None:
    """Lets a run go on with another number of processes."""
    if gpus == plan.num_gpus:
        return
    if plan.batch_size % (gpus * plan.batch_gpu) != 0:
        raise UserError(f"--gpus: {gpus} processes cannot share this run's batch of {plan.batch_size} in passes of "
                        f"{plan.batch_gpu} images; it was started with {plan.num_gpus}")
    logging.warning("the run goes on with %d instead of %d processes: no image is left out, but random numbers are "
                    "not those of an unbroken run", gpus, plan.num_gpus)
    plan.num_gpus = gpus


def _launch(plan: EasyDict, resuming: bool) -> None:
    """Makes the run directory and starts the processes; under torchrun this process is one of them already."""
    from torch_utils import distributed
    from torch_utils.devices import resolve_device
    from training.provenance import provenance

    device_type = resolve_device(plan.device).type
    under_torchrun = "WORLD_SIZE" in os.environ
    if under_torchrun:
        distributed.init(device_type)
    is_new = distributed.is_main() and not resuming
    if is_new:
        outdir, name = os.path.split(plan.run_dir)
        made_by = provenance()
        plan.run_dir = str(new_run_dir(outdir, name.split("-", 1)[1], lambda path: {
            "training_options.json": {**plan, "run_dir": str(path), "provenance": made_by}
        }))
    plan.run_dir = distributed.broadcast_object(plan.run_dir)
    try:
        if under_torchrun or plan.num_gpus == 1:
            _worker(plan)
            distributed.shutdown()
        else:
            distributed.launch(_process, (dict(plan), device_type), num_procs=plan.num_gpus)
    except distributed.RankError as error:
        click.echo(f"To go on with this run: python train.py --resume={plan.run_dir}", err=True)
        raise click.ClickException(str(error)) from error
    except UserError:
        if is_new and not os.path.exists(os.path.join(plan.run_dir, "state")):  # it never began: leave nothing behind
            shutil.rmtree(plan.run_dir, ignore_errors=True)
        raise


def _process(plan: dict[str, Any], device_type: str) -> None:
    """One of several local processes."""
    from torch_utils import distributed

    distributed.init(device_type)
    _set_up_logging(distributed.is_main())
    try:
        _worker(EasyDict(plan))
    finally:
        distributed.shutdown()


def _worker(plan: EasyDict) -> None:
    """One process of the training."""
    from torch_utils import devices, distributed
    from training.training_loop import training_loop

    devices.tune_allocator()
    plan = EasyDict(plan)
    num_gpus = plan.pop("num_gpus")
    if num_gpus != distributed.world_size():
        raise UserError(f"expected {num_gpus} processes, found {distributed.world_size()}")
    if not distributed.is_main():
        training_loop(**plan)
        return
    with dnnlib.util.Logger(os.path.join(plan.run_dir, "log.txt"), file_mode="a", should_flush=True):
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.setStream(sys.stderr)
        training_loop(**plan)


if __name__ == "__main__":
    main()
