"""The options of train.py that resume a run: which run, what may be changed, and the configuration with the changes."""
import logging
import os
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from dnnlib import EasyDict

from . import architectures, run_config
from .options import OptionError, check_minibatch_std
from .run_config import RunConfig

_log = logging.getLogger(__name__)

# Options that may differ when a run is resumed: they do not change what it is trained for.
FREE_WHEN_RESUMING = {"gpus", "batch", "batch_gpu", "kimg", "snap", "metrics", "detector", "num_gen", "num_real",
                      "workers", "device", "resume", "outdir", "dry_run", "estimate", "nobench", "trust_pickle",
                      "trust_detector"}


def run_to_resume(opts: EasyDict) -> str | None:
    """The run directory that --resume names; None if it names none. 'latest' needs --outdir.

    Raises:
        OptionError: it is a folder of something else, or there is no run to resume.
    """
    if opts.resume is None:
        return None
    if opts.resume != "latest":
        path = os.path.expanduser(opts.resume)
        if not os.path.isdir(path):
            return None
        if not os.path.isfile(os.path.join(path, run_config.FILE_NAME)):
            from .checkpoints import safetensors_files

            is_known = any(row.files and row.module("files").network_files(path) for row in architectures.rows())
            if is_known or safetensors_files.is_checkpoint(path):
                return None  # networks to start from, not a run to resume
            raise OptionError("--resume", f"{path} is a folder without {run_config.FILE_NAME}, so it is no run "
                                          "directory")
        return path
    outdir = os.path.expanduser(opts.outdir)
    names = sorted(os.listdir(outdir)) if os.path.isdir(outdir) else []
    runs = [name for name in names if os.path.isfile(os.path.join(outdir, name, run_config.FILE_NAME))]
    if not runs:
        raise OptionError("--resume", f"there is no run directory in {outdir}")
    return os.path.join(outdir, runs[-1])


def resumed_config(run_dir: str, opts: EasyDict, given: set[str], plugins: Sequence[ModuleType]) -> RunConfig:
    """The configuration of a run that is resumed: its own, with the changes that options ask for.

    Args:
        run_dir: folder of the run.
        opts: options of train.py.
        given: names of those that were given.
        plugins: options modules of the plugins of train.py.

    Raises:
        UserError: the configuration cannot be read; OptionError: an option that cannot be changed, or does not fit.
    """
    config = run_config.read(run_dir)
    if _trusts_pickles(config.to_dict()) and not opts.trust_pickle:
        raise OptionError("--resume", f"{os.path.join(run_dir, run_config.FILE_NAME)} asks to run the code that "
                                      "network files carry; if you trust them and it, pass --trust-pickle as well")
    fixed = sorted(given.difference(FREE_WHEN_RESUMING, *(plugin.FREE_WHEN_RESUMING for plugin in plugins)))
    if fixed:
        changed = ", ".join("--" + name.replace("_", "-") for name in fixed)
        start = next((plugin.START_FLAG for plugin in plugins if plugin.guides(config)), "--resume")
        snapshot = os.path.join(run_dir, "network-snapshot-….pkl")
        raise OptionError("--resume", f"cannot change {changed} when resuming; remove it, or start a new run from one "
                                      f"of its pickles with {start}={snapshot}")
    for plugin in plugins:
        plugin.check_resumed(config, opts, given)
    gpus, batch, batch_gpu = (opts[name] if name in given else None for name in ("gpus", "batch", "batch_gpu"))
    config = _shared_out(config, gpus, batch, batch_gpu, plugins)
    for plugin in plugins:
        plugin.check_shared_out(config)
    return _with_changes(config, opts, given)


def _trusts_pickles(options: Any) -> bool:
    """Whether `trust_pickle` is set anywhere in the options of a run."""
    if isinstance(options, dict):
        return bool(options.get("trust_pickle")) or any(map(_trusts_pickles, options.values()))
    return isinstance(options, (list, tuple)) and any(map(_trusts_pickles, options))


def _with_changes(config: RunConfig, opts: EasyDict, given: set[str]) -> RunConfig:
    """The configuration of a run with the changes that options ask for."""

    def chosen(**fields: tuple[str, Any]) -> dict[str, Any]:
        """Field → value, of those whose option was given. Fields are given as (option, value)."""
        return {field: value for field, (option, value) in fields.items() if option in given}

    return config.changed(
        schedule=chosen(total_kimg=("kimg", opts.kimg), image_snapshot_ticks=("snap", opts.snap),
                        network_snapshot_ticks=("snap", opts.snap)),
        metrics={
            **chosen(names=("metrics", tuple(opts.metrics))),
            "options": {**config.metrics.options, **chosen(
                detectors=("detector", list(opts.detector)), num_gen=("num_gen", opts.num_gen),
                num_real=("num_real", opts.num_real))},
        },
        data={"loader": {**config.data.loader, **chosen(num_workers=("workers", opts.workers))}},
        machine=chosen(device=("device", opts.device), cudnn_benchmark=("nobench", not opts.nobench)),
    )


def _shared_out(
    config: RunConfig, gpus: int | None, batch: int | None, batch_gpu: int | None, plugins: Sequence[ModuleType]
) -> RunConfig:
    """The configuration of a run that is resumed with other processes, batches or passes; None is as they were."""
    schedule, started_with = config.schedule, config.machine.num_gpus
    gpus, batch = gpus or started_with, batch or schedule.batch_size
    if (gpus, batch, batch_gpu or schedule.batch_gpu) == (started_with, schedule.batch_size, schedule.batch_gpu):
        return config
    if batch % gpus != 0:
        raise OptionError("--gpus", f"{gpus} processes cannot share a batch of {batch} images; this run was started "
                                    f"with {started_with} and {schedule.batch_size}")
    share = batch // gpus
    if batch_gpu is not None and share % batch_gpu != 0:
        raise OptionError("--batch-gpu", f"the {share} images of a process are not a multiple of {batch_gpu}")
    sizes = [size for size in range(min(share, schedule.batch_gpu), 0, -1) if share % size == 0]
    for size in sizes if batch_gpu is None else [batch_gpu]:
        changed = config.changed(schedule={"batch_size": batch, "batch_gpu": size}, machine={"num_gpus": gpus})
        try:
            check_minibatch_std(changed)
            break
        except OptionError:
            if size in (1, batch_gpu):
                raise
    is_same = any(plugin.is_same_for_any_processes(config) for plugin in plugins)
    if gpus != started_with and not is_same:
        _log.warning("the run is resumed with %d instead of %d processes: no image is left out, but random numbers are "
                     "not those of an unbroken run", gpus, started_with)
    if batch != schedule.batch_size:
        _log.warning("the run is resumed with batches of %d instead of %d images: the image count, the moving average "
                     "of G and the augmentation go by images and are kept; learning rates, intervals of regularisation "
                     "and the averages inside G go by steps, so the run is neither that of the old nor of the new size",
                     batch, schedule.batch_size)
    if changed.schedule.batch_gpu != schedule.batch_gpu and not is_same:
        _log.warning("passes are of %d instead of %d images, over which the minibatch standard deviation is taken",
                     changed.schedule.batch_gpu, schedule.batch_gpu)
    return changed
