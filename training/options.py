"""From the options of the command line to the arguments of the training loop. Pure but for one look at the data set."""
import dataclasses
import logging
import os
from typing import Any, Protocol

import dnnlib
from dnnlib import EasyDict
from dnnlib.util import UserError

from .data.files import DatasetError
from .presets import Preset, network_options

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


@dataclasses.dataclass(frozen=True)
class DataInfo:
    """What the launcher needs to know of a data set."""

    kwargs: EasyDict  # arguments of the data set
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
        raise OptionError("--subset", f"expected 1 to {len(dataset)} images, got {size}")
    seed_of_subset = {"random_seed": opts.seed} if size < len(dataset) else {}
    kwargs = EasyDict(
        class_name="training.dataset.ImageFolderDataset",
        path=opts.data,
        use_labels=bool(opts.cond),
        max_size=size,
        xflip=bool(opts.mirror),
        resolution=dataset.resolution,
        **seed_of_subset,
    )
    label_dim = dataset.label_dim if opts.cond else 0
    return DataInfo(kwargs, dataset.name, dataset.resolution, dataset.num_channels, label_dim)


def _check_labels(opts: EasyDict, dataset: Any) -> None:
    """Refuses --cond without labels, and warns of labels that --cond says nothing about."""
    if opts.cond and not dataset.has_labels:
        raise OptionError("--cond", f"{opts.data} has no labels; write them into dataset.json "
                                    "(dataset_tool.py does so for labelled sources and for --subfolders-as-labels)")
    if opts.cond is None and _has_usable_labels(dataset):
        _log.warning("%s has labels, which are not used; --cond=true trains with them, --cond=false says that this is "
                     "meant", opts.data)


def _has_usable_labels(dataset: Any) -> bool:
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
    """The readable part of the run directory's name: only what the user asked for."""
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
        named = opts.resume == "noresume" or opts.resume in TRANSFER_SOURCES
        parts.append("noresume" if opts.resume == "noresume" else f"resume{opts.resume if named else 'custom'}")
    parts += [f"freezed{opts.freezed}"] if opts.freezed is not None else []
    parts += [opts.desc] if opts.desc is not None else []
    return "-".join(parts)


def network_config(opts: EasyDict, preset: Preset) -> tuple[EasyDict, EasyDict]:
    """G_kwargs and D_kwargs of a network built from the options."""
    capacity_and_precision = network_options(
        preset,
        channel_base=_chosen(opts.cbase, int(preset.fmaps * 32768)),
        channel_max=_chosen(opts.cmax, 512),
        fp32=bool(opts.fp32),
    )
    memory = {"fp16_channels_last": True} if opts.nhwc else {}
    G_kwargs = EasyDict(
        class_name="training.networks.Generator",
        z_dim=_chosen(opts.z_dim, 512),
        w_dim=_chosen(opts.w_dim, 512),
        mapping_kwargs=EasyDict(num_layers=_chosen(opts.map_depth, preset.map_depth)),
        synthesis_kwargs=EasyDict(**capacity_and_precision, **memory),
    )
    frozen = {} if opts.freezed is None else {"freeze_layers": opts.freezed}
    architecture = {} if preset.d_architecture == "resnet" else {"architecture": preset.d_architecture}
    D_kwargs = EasyDict(
        class_name="training.networks.Discriminator",
        block_kwargs=EasyDict(**frozen, **memory),
        mapping_kwargs=EasyDict(),
        epilogue_kwargs=EasyDict(mbstd_group_size=_chosen(opts.mbstd_group, preset.mbstd_group)),
        **capacity_and_precision,
        **architecture,
    )
    return G_kwargs, D_kwargs


def _chosen(value: Any, default: Any) -> Any:
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


def augment_config(opts: EasyDict, default_aug: str) -> EasyDict:
    """ada_target, augment_p and augment_kwargs, as far as they apply.

    Raises:
        OptionError: options that exclude each other.
    """
    aug = _chosen(opts.aug, default_aug)
    for name, augs in _AUGS_OF.items():
        if opts[name] is not None and aug not in augs:
            raise OptionError("--" + name.replace("_", "-"), f"only of use with --aug={' or '.join(augs)}, found {aug}")
    if aug == "fixed" and opts.p is None:
        raise OptionError("--aug", "fixed takes its probability from --p, which is missing")
    found = EasyDict()
    if aug == "ada":
        found.ada_target = _chosen(opts.target, 0.6)
        if opts.ada_max is not None:
            found.ada_max = opts.ada_max
    if aug == "fixed":
        found.augment_p = opts.p
    if aug != "noaug":
        from .augment import AUGPIPE_PRESETS

        pipe = AUGPIPE_PRESETS[_chosen(opts.augpipe, "bgc")]
        found.augment_kwargs = EasyDict(class_name="training.augment.AugmentPipe", **pipe)
    return found


def training_config(opts: EasyDict, preset: Preset, data: DataInfo, default_aug: str = "ada") -> EasyDict:
    """The arguments of `training_loop`, in the order in which training_options.json has them.

    Raises:
        OptionError: options that do not fit together.
    """
    batch, batch_gpu = batch_sizes(opts, preset)
    c = run_config(opts, data)
    c.G_kwargs, c.D_kwargs = network_config(opts, preset)
    for name, rate in (("G_opt_kwargs", opts.glr), ("D_opt_kwargs", opts.dlr)):
        c[name] = EasyDict(class_name="torch.optim.Adam", lr=_chosen(rate, preset.lr), betas=[0.0, 0.99], eps=1e-8)
    c.loss_kwargs = EasyDict(class_name="training.loss.StyleGAN2Loss", r1_gamma=_chosen(opts.gamma, preset.gamma))
    if preset.pl_weight != 2:
        c.loss_kwargs.pl_weight = preset.pl_weight
    if preset.style_mixing_prob != 0.9:
        c.loss_kwargs.style_mixing_prob = preset.style_mixing_prob
    c.update(
        total_kimg=_chosen(opts.kimg, preset.kimg),
        batch_size=batch,
        batch_gpu=batch_gpu,
        ema_kimg=preset.ema_kimg,
        ema_rampup=preset.ema_rampup,
    )
    c.update(further_config(opts, default_aug))
    check_minibatch_std(c)
    return c


def run_config(opts: EasyDict, data: DataInfo) -> EasyDict:
    """Arguments of `training_loop` that say how it runs and what on, whatever the networks."""
    return EasyDict(
        num_gpus=opts.gpus,
        image_snapshot_ticks=opts.snap,
        network_snapshot_ticks=opts.snap,
        metrics=opts.metrics,
        random_seed=opts.seed,
        training_set_kwargs=data.kwargs,
        data_loader_kwargs=EasyDict(pin_memory=True, num_workers=opts.workers, prefetch_factor=2),
    )


def further_config(opts: EasyDict, default_aug: str) -> EasyDict:
    """Arguments of `training_loop` for augmentation, transfer learning, ticks, devices and metrics.

    Raises:
        OptionError: options that do not fit together.
    """
    c = augment_config(opts, default_aug)
    if opts.resume is not None and opts.resume != "noresume":
        url = transfer_url(opts.resume)
        c.init_kwargs = EasyDict(func_name="training.transfer.from_pickle", url=url)
        if opts.trust_pickle:
            c.init_kwargs.trust_pickle = True
        c.ada_kimg = 100
        c.ema_rampup = None
    if opts.tick is not None:
        c.kimg_per_tick = opts.tick
    if opts.nobench:
        c.cudnn_benchmark = False
    if opts.allow_tf32:
        c.allow_tf32 = True
    c.device = opts.device
    c.metric_kwargs = EasyDict(detectors=list(opts.detector))
    c.metric_kwargs.update({key: opts[key] for key in ("num_gen", "num_real") if opts[key] is not None})
    return c


def check_minibatch_std(c: EasyDict) -> None:
    """The group of the minibatch standard deviation must divide what D sees in one pass.

    Raises:
        OptionError: it does not.
    """
    group = c.D_kwargs.get("epilogue_kwargs", {}).get("mbstd_group_size")
    if group is not None and c.batch_gpu % min(group, c.batch_gpu) != 0:
        raise OptionError("--mbstd-group", f"the group of {group} does not divide the {c.batch_gpu} images of one pass "
                                           "(--batch-gpu)")
