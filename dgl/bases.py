"""What a student can be based on: for each preset, how its networks are trained and which options do not apply to them.

No torch here.
"""
import dataclasses
from collections.abc import Callable
from typing import Any

from dnnlib import EasyDict
from training import options as config
from training.biggan import options as config_biggan
from training.options import DataInfo, OptionError
from training.presets import Preset, auto_gamma


@dataclasses.dataclass(frozen=True)
class Base:
    """One kind of networks.

    Attributes:
        family: name of the architecture.
        generator: class name of the teacher's generator.
        loss: class name of the student's loss.
        loss_is_signed: a generator's loss can be negative.
        from_teacher: options of train.py whose values the teacher determines.
        no_scores: scores of channels that do not apply.
        meaningless: options of this plugin that do not apply.
        config: (options, data) → arguments of the training loop, networks and loss still those without a teacher.
        check: called with these arguments and the discriminators of student and teachers; raises OptionError.
    """

    family: str
    generator: str
    loss: str
    loss_is_signed: bool
    from_teacher: tuple[str, ...]
    meaningless: tuple[str, ...]
    no_scores: tuple[str, ...]
    config: Callable[[EasyDict, DataInfo], EasyDict]
    check: Callable[[EasyDict, list[Any]], None]


def preset(resolution: int, gpus: int, batch: int | None) -> Preset:
    """The training settings of a student: those of StyleGAN2, with the R1 weight of the resolution."""
    total = 32 if batch is None else batch
    per_gpu = min(total, max(4096 // resolution, 1))  # images that one pass of a full-width network takes
    return Preset(
        ref_gpus=max(gpus, total // per_gpu),
        kimg=25000,
        batch=32,
        mbstd_group=None,  # the teacher's
        fmaps=1,
        lr=0.002,
        gamma=10 if resolution >= 1024 else auto_gamma(resolution, total),
        ema_kimg=10,
        ema_rampup=None,
        map_depth=8,
    )


def _stylegan2_config(opts: EasyDict, data: DataInfo) -> EasyDict:
    return config.training_config(opts, preset(data.resolution, opts.gpus, opts.batch), data, default_aug="noaug")


def _check_groups(c: EasyDict, discriminators: list[Any]) -> None:
    """The minibatch-std group of every discriminator must divide the images of one pass."""
    for D in discriminators:
        mbstd = D.b4.mbstd
        group = None if mbstd is None else mbstd.group_size
        if group is not None and c.batch_gpu % min(group, c.batch_gpu) != 0:
            raise OptionError("--batch", f"the minibatch-std group of {group} of the teacher's or student's D does not "
                                         f"divide the {c.batch_gpu} images of one pass (--batch divided by --gpus, or "
                                         "--batch-gpu)")


def _biggan_config(opts: EasyDict, data: DataInfo) -> EasyDict:
    c = config_biggan.training_config(opts, data)
    if opts.ema_start is None and opts.init != "scratch":
        c.ema_start_kimg = 0  # the average of a student that starts trained is worth something at once
    return c


BASES: dict[str, Base] = {
    "dgl": Base(
        family="stylegan2",
        generator="Generator",
        loss="dgl.loss.DGLLoss",
        loss_is_signed=False,
        from_teacher=(
            "cbase", "cmax", "z_dim", "w_dim", "map_depth", "mbstd_group", "freezed", "resume", "fp32", "nhwc",
        ),
        meaningless=(),
        no_scores=(),
        config=_stylegan2_config,
        check=_check_groups,
    ),
    "dgl-biggan": Base(
        family="biggan",
        generator="BigGANGenerator",
        loss="dgl.loss.DGLHingeLoss",
        loss_is_signed=True,
        from_teacher=("ch", "attn", "z_dim", "resume"),
        meaningless=("refine",),
        no_scores=("diversity",),
        config=_biggan_config,
        check=lambda c, discriminators: None,
    ),
}
