"""The presets that a student can have: how the networks of each are trained, and which options do not apply to them.

No torch here.
"""
import dataclasses
from collections.abc import Callable
from typing import Any

from dnnlib import EasyDict
from training import architectures, options, run_config
from training.biggan import options as biggan_options
from training.options import DataInfo, OptionError
from training.presets import Preset, auto_gamma
from training.run_config import RunConfig
from training.stylegan3 import options as stylegan3_options
from training.stylegan3 import presets as stylegan3_presets


@dataclasses.dataclass(frozen=True)
class Base:
    """One kind of networks.

    Attributes:
        family: of the networks, in `training.architectures`.
        loss: registered name of the student's loss.
        loss_is_signed: a generator's loss can be negative.
        from_teacher: options of train.py whose values the teacher determines.
        no_scores: scores of channels that do not apply.
        meaningless: options of this plugin that do not apply.
        config: (options, data) → configuration of the run, networks and loss still those without a teacher.
        check: called with it and the discriminators of student and teachers; raises OptionError.
        distil_lr: learning rate of distillation.
        elastic: students may be elastic: a narrower network is a slice of a wider one, and nothing else.
    """

    family: str
    loss: str
    loss_is_signed: bool
    from_teacher: tuple[str, ...]
    meaningless: tuple[str, ...]
    no_scores: tuple[str, ...]
    config: Callable[[EasyDict, DataInfo], RunConfig]
    check: Callable[[RunConfig, list[Any]], None]
    distil_lr: float = 0.008
    elastic: bool = False


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


def _stylegan2_config(opts: EasyDict, data: DataInfo) -> RunConfig:
    student_preset = preset(data.resolution, opts.gpus, opts.batch)
    return options.training_config(opts, data, student_preset, default_aug="noaug")


def _check_groups(config: RunConfig, discriminators: list[Any]) -> None:
    """The minibatch-std group of every discriminator must divide the images of one pass."""
    batch_gpu = config.schedule.batch_gpu
    for D in discriminators:
        mbstd = D.b4.mbstd
        group = None if mbstd is None else mbstd.group_size
        if group is not None and batch_gpu % min(group, batch_gpu) != 0:
            raise OptionError("--batch", f"the minibatch-std group of {group} of the teacher's or student's D does not "
                                         f"divide the {batch_gpu} images of one pass (--batch divided by --gpus, or "
                                         "--batch-gpu)")


def _biggan_config(opts: EasyDict, data: DataInfo) -> RunConfig:
    config = biggan_options.training_config(opts, data)
    if opts.ema_start is None and opts.init != "scratch":
        return config.changed(ema={"start_kimg": 0})  # the average of a student that starts trained is useful at once
    return config


def _stylegan3_config(opts: EasyDict, data: DataInfo) -> RunConfig:
    student_preset = dataclasses.replace(
        stylegan3_presets.PRESETS["stylegan3-t"],  # R differs in the networks, which are the teacher's, and in a blur
        ref_gpus=preset(data.resolution, opts.gpus, opts.batch).ref_gpus,
        ema_rampup=None,
        mbstd_group=None,
    )
    return stylegan3_options.training_config(opts, data, student_preset, default_aug="noaug")


BASES: dict[str, Base] = {
    "dgl": Base(
        family="stylegan2",
        loss="dgl.loss.DGLLoss",
        loss_is_signed=False,
        from_teacher=(
            "cbase", "cmax", "z_dim", "w_dim", "map_depth", "mbstd_group", "freezed", "resume", "fp32", "nhwc",
        ),
        meaningless=(),
        no_scores=(),
        config=_stylegan2_config,
        check=_check_groups,
        elastic=True,
    ),
    "dgl-stylegan3": Base(
        family="stylegan3",
        loss="dgl.loss.DGLStyleGAN3Loss",
        loss_is_signed=False,
        from_teacher=("cbase", "cmax", "z_dim", "w_dim", "map_depth", "mbstd_group", "freezed", "resume", "fp32"),
        meaningless=(),
        no_scores=("slimming",),
        config=_stylegan3_config,
        check=_check_groups,
    ),
    "dgl-biggan": Base(
        family="biggan",
        loss="dgl.loss.DGLHingeLoss",
        loss_is_signed=True,
        from_teacher=("ch", "attn", "z_dim", "resume"),
        meaningless=("refine", "keep_mapping"),
        no_scores=("diversity", "reconstruct", "slimming"),
        config=_biggan_config,
        check=lambda config, discriminators: None,
        distil_lr=0.001,  # its weights have no run-time gain, so a step of a given size changes them more
    ),
}

TEACHER_IMAGES = "dgl.teacher_images.TeacherImages"  # the data set of a distillation without data

for _preset, _base in BASES.items():
    architectures.register_preset(_preset, _base.family)
    run_config.LOSSES.register(_base.loss, _base.loss)
run_config.DATASETS.register(TEACHER_IMAGES, TEACHER_IMAGES)
run_config.INITIALIZERS.register("dgl.student.initialise", "dgl.student.initialise")
