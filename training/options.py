"""From the options of train.py to the configuration of a StyleGAN2 run, and what every family shares of that."""
import dataclasses
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import dnnlib
from dnnlib import EasyDict
from dnnlib.errors import UserError

from . import architectures, presets
from .data.files import DatasetError
from .presets import Preset, network_options
from .run_config import (
    AugmentationConfig,
    Component,
    DataConfig,
    EMAConfig,
    MachineConfig,
    MetricsConfig,
    NetworksConfig,
    OptimizersConfig,
    RunConfig,
    ScheduleConfig,
)

if TYPE_CHECKING:
    from .data.dataset import Dataset

_log = logging.getLogger(__name__)

TRANSFER_BASE = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/transfer-learning-source-nets/"
TRANSFER_SOURCES = {
    "ffhq256": "ffhq-res256-mirror-paper256-noaug.pkl",
    "ffhq512": "ffhq-res512-mirror-stylegan2-noaug.pkl",
    "ffhq1024": "ffhq-res1024-mirror-stylegan2-noaug.pkl",
    "celebahq256": "celebahq-res256-mirror-paper256-kimg100000-ada-target0.5.pkl",
    "lsundog256": "lsundog-res256-paper256-kimg100000-noaug.pkl",
}


class OptionError(UserError):
    """An option whose value does not fit; `flag` is its name on the command line."""

    def __init__(self, flag: str, message: str) -> None:
        super().__init__(f"{flag}: {message}")
        self.flag = flag


# Options of train.py that only StyleGAN2 networks have.
OPTION_NAMES = ("gamma", "cbase", "cmax", "w_dim", "map_depth", "mbstd_group", "freezed", "fp32", "nhwc")


def add(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator that adds the options of this family to a command: train.py has StyleGAN2's already."""
    return command


def check(opts: EasyDict, given: set[str]) -> None:
    """Checks options that mean nothing to StyleGAN2: there are none."""


def check_families(opts: EasyDict, given: set[str]) -> None:
    """Checks that no option of another family was given.

    Raises:
        OptionError: names it.
    """
    family = architectures.of_preset(opts.cfg)
    others = given.difference(family.module("options").OPTION_NAMES)
    for row in architectures.rows():
        if row.name == family.name:
            continue
        for name in sorted(others.intersection(row.module("options").OPTION_NAMES)):
            flag = "--" + name.replace("_", "-")
            if row.name == "stylegan2":
                raise OptionError(flag, f"cannot be given together with --cfg={opts.cfg}")
            raise OptionError(flag, f"can only be given together with --cfg={row.presets[0]}")


@dataclasses.dataclass(frozen=True)
class DataInfo:
    """What the launcher needs to know of a data set."""

    training_set: Component
    name: str
    resolution: int
    num_channels: int
    label_dim: int  # 0 unless labels are used


def probe_data(opts: EasyDict) -> DataInfo:
    """Opens the data set once to learn its size, and applies --cond, --subset and --mirror.

    Raises:
        OptionError: the data set cannot be read, lacks the labels --cond asks for, or is smaller than --subset.
    """
    from .data.dataset import ImageFolderDataset

    try:
        dataset = ImageFolderDataset(opts.data, use_labels=True)
    except OSError as error:
        raise OptionError("--data", str(error)) from None
    _check_labels(opts, dataset)
    size = _chosen(opts.subset, len(dataset))
    if not 1 <= size <= len(dataset):
        raise OptionError("--subset", f"expected 1 to {len(dataset)} images, found {size}")
    seed_of_subset = {"random_seed": opts.seed} if size < len(dataset) else {}
    training_set = Component("training.dataset.ImageFolderDataset", {
        "path": opts.data,
        "use_labels": bool(opts.cond),
        "max_size": size,
        "xflip": bool(opts.mirror),
        "resolution": dataset.resolution,
        **seed_of_subset,
    })
    label_dim = dataset.label_dim if opts.cond else 0
    return DataInfo(training_set, dataset.name, dataset.resolution, dataset.num_channels, label_dim)


def _check_labels(opts: EasyDict, dataset: "Dataset") -> None:
    """Refuses --cond without labels, and warns of labels that --cond says nothing about."""
    if opts.cond and not dataset.has_labels:
        raise OptionError("--cond", f"{opts.data} has no labels; write them into dataset.json "
                                    "(dataset_tool.py does so for labelled sources and for --subfolders-as-labels)")
    if opts.cond is None and _has_usable_labels(dataset):
        _log.warning("%s has labels, which are not used; --cond=true trains with them, --cond=false says that this is "
                     "meant", opts.data)


def _has_usable_labels(dataset: "Dataset") -> bool:
    try:
        return dataset.has_labels
    except DatasetError:
        return False


def transfer_url(name: str) -> str:
    """The address of a named source network, or the path or URL itself.

    Raises:
        OptionError: it is none of these.
    """
    if name in TRANSFER_SOURCES:
        return TRANSFER_BASE + TRANSFER_SOURCES[name]
    path = name if dnnlib.util.is_url(name) else os.path.expanduser(name)
    if not dnnlib.util.is_url(name) and not os.path.exists(path):
        raise OptionError("--resume", f"{path}: no such run directory, network pickle, URL or name of a source network "
                                      f"({', '.join(TRANSFER_SOURCES)})")
    return path


def run_description(opts: EasyDict, data_name: str) -> str:
    """The readable part of the run directory's name: only options that the user gave."""
    parts = [data_name]
    parts += ["cond"] if opts.cond else []
    parts += [f"subset{opts.subset}"] if opts.subset is not None else []
    parts += ["mirror"] if opts.mirror else []
    parts.append(f"auto{opts.gpus}" if opts.cfg == "auto" else opts.cfg)
    parts += [f"gamma{opts.gamma:g}"] if opts.gamma is not None else []
    parts += [f"kimg{opts.kimg}"] if opts.kimg is not None else []
    parts += [f"batch{opts.batch}"] if opts.batch is not None else []
    parts += [opts.aug] if opts.aug is not None else []
    parts += [f"p{opts.p:g}"] if opts.p is not None else []
    parts += [f"target{opts.target:g}"] if opts.target is not None else []
    parts += [opts.augpipe] if opts.augpipe is not None else []
    if opts.resume is not None:
        source = opts.resume if opts.resume in TRANSFER_SOURCES else "custom"
        parts.append("noresume" if opts.resume == "noresume" else f"resume{source}")
    parts += [f"freezed{opts.freezed}"] if opts.freezed is not None else []
    parts += [opts.desc] if opts.desc is not None else []
    return "-".join(parts)


def network_config(opts: EasyDict, preset: Preset) -> NetworksConfig:
    """Generator and discriminator built from the options, and where their weights come from.

    Raises:
        OptionError: there is no source of weights of that name.
    """
    capacity_and_precision = network_options(
        preset,
        channel_base=_chosen(opts.cbase, int(preset.fmaps * 32768)),
        channel_max=_chosen(opts.cmax, 512),
        fp32=bool(opts.fp32),
    )
    memory = {"fp16_channels_last": True} if opts.nhwc else {}
    G = Component("training.networks.Generator", {
        "z_dim": _chosen(opts.z_dim, 512),
        "w_dim": _chosen(opts.w_dim, 512),
        "mapping_kwargs": EasyDict(num_layers=_chosen(opts.map_depth, preset.map_depth)),
        "synthesis_kwargs": EasyDict(**capacity_and_precision, **memory),
    })
    frozen = {} if opts.freezed is None else {"freeze_layers": opts.freezed}
    architecture = {} if preset.d_architecture == "resnet" else {"architecture": preset.d_architecture}
    D = Component("training.networks.Discriminator", {
        "block_kwargs": EasyDict(**frozen, **memory),
        "mapping_kwargs": EasyDict(),
        "epilogue_kwargs": EasyDict(mbstd_group_size=_chosen(opts.mbstd_group, preset.mbstd_group)),
        **capacity_and_precision,
        **architecture,
    })
    return NetworksConfig(G=G, D=D, init=initial_weights(opts))


def initial_weights(opts: EasyDict) -> Component | None:
    """What copies the weights of --resume=PKL; None without it.

    Raises:
        OptionError: there is no source of weights of that name.
    """
    if opts.resume is None or opts.resume == "noresume":
        return None
    trust = {"trust_pickle": True} if opts.trust_pickle else {}
    return Component("training.transfer.from_pickle", {"url": transfer_url(opts.resume), **trust})


def _chosen(value: object, default: object) -> Any:
    """The value of an option, or its default if it was not given."""
    return default if value is None else value


class BatchPreset(Protocol):
    """What `batch_sizes` needs of a preset."""

    @property
    def batch(self) -> int:
        """Total batch size."""

    @property
    def ref_gpus(self) -> int:
        """Number of GPUs that the images per pass are worked out for."""


def batch_sizes(opts: EasyDict, preset: BatchPreset) -> tuple[int, int]:
    """The total batch and the images per pass of one GPU.

    Raises:
        OptionError: the sizes do not divide.
    """
    batch = _chosen(opts.batch, preset.batch)
    if batch % opts.gpus != 0:
        raise OptionError("--batch", f"{batch} is not a multiple of --gpus {opts.gpus}")
    batch_gpu = opts.batch_gpu
    if batch_gpu is None:
        # Without --batch a preset's share of its reference GPUs, so that fewer GPUs accumulate.
        batch_gpu = batch // opts.gpus if opts.batch is not None else batch // max(preset.ref_gpus, opts.gpus)
    if batch % (opts.gpus * batch_gpu) != 0:
        raise OptionError("--batch-gpu", f"batch {batch} is not a multiple of --gpus {opts.gpus} times {batch_gpu}")
    return batch, batch_gpu


# Option → the values of --aug that it belongs to.
_AUGS_OF = {"p": ("fixed",), "target": ("ada",), "ada_max": ("ada",), "augpipe": ("ada", "fixed")}


def augmentation_config(opts: EasyDict, default_aug: str) -> AugmentationConfig:
    """Augmentation from the options.

    Raises:
        OptionError: options that exclude each other.
    """
    aug = _chosen(opts.aug, default_aug)
    for name, augs in _AUGS_OF.items():
        if opts[name] is not None and aug not in augs:
            raise OptionError("--" + name.replace("_", "-"), f"only of use with --aug={' or '.join(augs)}, found {aug}")
    if aug == "fixed" and opts.p is None:
        raise OptionError("--aug", "fixed takes its probability from --p, which is missing")
    if aug == "noaug":
        return AugmentationConfig()
    from .ada import KIMG_FROM_SCRATCH, KIMG_TRANSFER
    from .augment import AUGPIPE_PRESETS

    pipe = Component("training.augment.AugmentPipe", AUGPIPE_PRESETS[_chosen(opts.augpipe, "bgc")])
    if aug == "fixed":
        return AugmentationConfig(pipe=pipe, p=opts.p)
    return AugmentationConfig(
        pipe=pipe,
        ada_target=_chosen(opts.target, 0.6),
        ada_kimg=KIMG_FROM_SCRATCH if initial_weights(opts) is None else KIMG_TRANSFER,
        ada_max=_chosen(opts.ada_max, 1),
    )


def adam(lr: float, beta2: float, eps: float) -> Component:
    """Adam without momentum, as GANs are trained with."""
    return Component("torch.optim.Adam", {"lr": lr, "betas": [0.0, beta2], "eps": eps})


def training_config(
    opts: EasyDict, data: DataInfo, preset: Preset | None = None, default_aug: str = "ada"
) -> RunConfig:
    """The configuration of a run that trains StyleGAN2 networks.

    Args:
        opts: options of train.py.
        data: the training set.
        preset: settings; those that --cfg names by default.
        default_aug: what --aug is by default.

    Raises:
        OptionError: options that do not fit together.
    """
    preset = preset or presets.resolve(opts.cfg, data.resolution, opts.gpus)
    batch, batch_gpu = batch_sizes(opts, preset)
    loss = Component("training.loss.StyleGAN2Loss", {"r1_gamma": _chosen(opts.gamma, preset.gamma)})
    if preset.pl_weight != 2:
        loss = loss.with_arguments(pl_weight=preset.pl_weight)
    if preset.style_mixing_prob != 0.9:
        loss = loss.with_arguments(style_mixing_prob=preset.style_mixing_prob)
    networks = network_config(opts, preset)
    config = RunConfig(
        data=data_config(opts, data),
        networks=networks,
        optimizers=OptimizersConfig(
            G=adam(_chosen(opts.glr, preset.lr), 0.99, 1e-8),
            D=adam(_chosen(opts.dlr, preset.lr), 0.99, 1e-8),
        ),
        loss=loss,
        augmentation=augmentation_config(opts, default_aug),
        ema=EMAConfig(kimg=_chosen(opts.ema_kimg, preset.ema_kimg),
                      rampup=preset.ema_rampup if networks.init is None else None),
        schedule=schedule_config(opts, preset.kimg, batch, batch_gpu),
        metrics=metrics_config(opts),
        machine=machine_config(opts),
    )
    check_minibatch_std(config)
    return config


def data_config(opts: EasyDict, data: DataInfo) -> DataConfig:
    """The training set and its loader."""
    loader = {"pin_memory": True, "num_workers": opts.workers, "prefetch_factor": 2}
    return DataConfig(training_set=data.training_set, loader=loader)


def schedule_config(opts: EasyDict, kimg: float, batch: int, batch_gpu: int) -> ScheduleConfig:
    """Length, steps and ticks; `kimg` is the preset's length."""
    return ScheduleConfig(
        total_kimg=_chosen(opts.kimg, kimg),
        batch_size=batch,
        batch_gpu=batch_gpu,
        kimg_per_tick=_chosen(opts.tick, 4),
        image_snapshot_ticks=opts.snap,
        network_snapshot_ticks=opts.snap,
        random_seed=opts.seed,
    )


def metrics_config(opts: EasyDict) -> MetricsConfig:
    """The metrics to evaluate."""
    numbers = {key: opts[key] for key in ("num_gen", "num_real") if opts[key] is not None}
    return MetricsConfig(names=tuple(opts.metrics), options={"detectors": list(opts.detector), **numbers})


def machine_config(opts: EasyDict) -> MachineConfig:
    """Processes, device and numerical modes."""
    return MachineConfig(num_gpus=opts.gpus, device=opts.device, cudnn_benchmark=not opts.nobench,
                         allow_tf32=bool(opts.allow_tf32))


def check_minibatch_std(config: RunConfig) -> None:
    """The group of the minibatch standard deviation must divide what D sees in one pass.

    Raises:
        OptionError: it does not.
    """
    group = config.networks.D.arguments.get("epilogue_kwargs", {}).get("mbstd_group_size")
    batch_gpu = config.schedule.batch_gpu
    if group is not None and batch_gpu % min(group, batch_gpu) != 0:
        raise OptionError("--mbstd-group", f"the group of {group} does not divide the {batch_gpu} images of one pass "
                                           "(--batch-gpu)")
