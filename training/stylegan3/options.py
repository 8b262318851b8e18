"""From the options of train.py to the configuration of a StyleGAN3 run. No torch until a run is configured."""
from collections.abc import Callable
from typing import Any

from dnnlib import EasyDict

from ..options import (
    DataInfo,
    OptionError,
    adam,
    augmentation_config,
    batch_sizes,
    check_minibatch_std,
    data_config,
    initial_weights,
    machine_config,
    metrics_config,
    schedule_config,
)
from ..run_config import Component, EMAConfig, NetworksConfig, OptimizersConfig, RunConfig
from . import presets
from .presets import StyleGAN3Preset

OPTION_NAMES = ("gamma", "cbase", "cmax", "w_dim", "map_depth", "mbstd_group", "freezed", "fp32")


def add(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator that adds the options of this family to a command: train.py has them already."""
    return command


def check(opts: EasyDict, given: set[str]) -> None:
    """Checks options that mean nothing to StyleGAN3: there are none."""


def _chosen(value: object, default: object) -> Any:
    """The value of an option, or its default if it was not given."""
    return default if value is None else value


def network_config(opts: EasyDict, preset: StyleGAN3Preset, batch: int) -> NetworksConfig:
    """Generator and discriminator built from the options, and where their weights come from.

    Raises:
        OptionError: there is no source of weights of that name.
    """
    base, limit = _chosen(opts.cbase, preset.channel_base), _chosen(opts.cmax, preset.channel_max)
    full_precision = {"num_fp16_res": 0, "conv_clamp": None} if opts.fp32 else {}
    layers = {"conv_kernel": 1, "use_radial_filters": True} if preset.use_radial_filters else {}
    G = Component("training.networks_stylegan3.Generator", {
        "z_dim": _chosen(opts.z_dim, 512),
        "w_dim": _chosen(opts.w_dim, 512),
        "mapping_kwargs": EasyDict(num_layers=_chosen(opts.map_depth, preset.map_depth)),
        "channel_base": base * preset.widening,
        "channel_max": limit * preset.widening,
        "magnitude_ema_beta": presets.magnitude_ema_beta(batch),
        **layers,
        **full_precision,
    })
    frozen = {} if opts.freezed is None else {"freeze_layers": opts.freezed}
    D = Component("training.networks.Discriminator", {
        "block_kwargs": EasyDict(frozen),
        "mapping_kwargs": EasyDict(),
        "epilogue_kwargs": EasyDict(mbstd_group_size=_chosen(opts.mbstd_group, preset.mbstd_group)),
        "channel_base": base,
        "channel_max": limit,
        **(full_precision or {"num_fp16_res": 4, "conv_clamp": 256}),
    })
    return NetworksConfig(G=G, D=D, init=initial_weights(opts))


def loss_config(opts: EasyDict, preset: StyleGAN3Preset, resolution: int, batch: int) -> Component:
    """The loss; a run that starts from trained weights needs no blur."""
    gamma = _chosen(opts.gamma, presets.gamma(resolution))
    loss = Component("training.stylegan3.loss.StyleGAN3Loss", {"r1_gamma": gamma})
    if preset.blur_init_sigma and initial_weights(opts) is None:
        loss = loss.with_arguments(blur_init_sigma=preset.blur_init_sigma, blur_fade_kimg=presets.blur_fade_kimg(batch))
    return loss


def training_config(
    opts: EasyDict, data: DataInfo, preset: StyleGAN3Preset | None = None, default_aug: str = "ada"
) -> RunConfig:
    """The configuration of a run.

    Args:
        opts: options of train.py.
        data: the training set.
        preset: settings; those that --cfg names by default.
        default_aug: what --aug is by default.

    Raises:
        OptionError: options that do not fit together, or the data set's images.
    """
    if data.resolution < 16:
        raise OptionError("--cfg", f"a StyleGAN3 makes images of at least 16x16, those of the data set are "
                                   f"{data.resolution}x{data.resolution}")
    preset = preset or presets.PRESETS[opts.cfg]
    batch, batch_gpu = batch_sizes(opts, preset)
    networks = network_config(opts, preset, batch)
    config = RunConfig(
        data=data_config(opts, data),
        networks=networks,
        optimizers=OptimizersConfig(
            G=adam(_chosen(opts.glr, preset.g_lr), 0.99, 1e-8),
            D=adam(_chosen(opts.dlr, preset.d_lr), 0.99, 1e-8),
            G_reg_interval=None,
        ),
        loss=loss_config(opts, preset, data.resolution, batch),
        augmentation=augmentation_config(opts, default_aug),
        ema=EMAConfig(kimg=_chosen(opts.ema_kimg, presets.ema_kimg(batch)),
                      rampup=preset.ema_rampup if networks.init is None else None),
        schedule=schedule_config(opts, preset.kimg, batch, batch_gpu),
        metrics=metrics_config(opts),
        machine=machine_config(opts),
    )
    check_minibatch_std(config)
    return config
