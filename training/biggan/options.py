"""The command-line options of --cfg=biggan, and what they turn into. No torch until a run is configured."""
from collections.abc import Callable
from typing import Any

import click

from dnnlib import EasyDict

from ..architectures import NETWORKS
from ..options import (
    DataInfo,
    OptionError,
    adam,
    augmentation_config,
    batch_sizes,
    data_config,
    initial_weights,
    machine_config,
    metrics_config,
    schedule_config,
)
from ..run_config import Component, EMAConfig, NetworksConfig, OptimizersConfig, RunConfig
from .presets import PRESETS, BigGANPreset, ema_half_life_kimg

_OPTIONS: list[Callable[[Any], Any]] = [
    click.option("--ch", help="BigGAN: channel multiplier of both networks.", show_default="the preset's",
                 type=click.IntRange(min=1), metavar="INT"),
    click.option("--attn", help="BigGAN: resolutions with self-attention, joined by underscores; 0 is none.",
                 show_default="the preset's", metavar="LIST"),
    click.option("--d-steps", help="BigGAN: steps of D per step of G, each on different images.",
                 show_default="the preset's", type=click.IntRange(min=1), metavar="INT"),
    click.option("--ema-start", help="BigGAN: thousands of images until the moving average begins; before, it is G.",
                 show_default="the preset's; 0 when starting from trained weights", type=click.IntRange(min=0),
                 metavar="INT"),
]
OPTION_NAMES = ("ch", "attn", "d_steps", "ema_start")


def add(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: adds the options of BigGAN to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def check(opts: EasyDict, given: set[str]) -> None:
    """Checks options that a BigGAN allows no choice of, and switches labels on, without which there is none.

    Raises:
        OptionError: an option that means nothing to a BigGAN.
    """
    for name in opts.metrics:
        if name.startswith("ppl"):
            raise OptionError("--metrics", f"{name} measures paths of a mapping network, which a BigGAN has not")
    if opts.cond is False:
        raise OptionError("--cond", "BigGAN is always conditional on labels; leave --cond=false out")
    opts.cond = True


def preset_of(data: DataInfo) -> BigGANPreset:
    """The preset for a data set.

    Raises:
        OptionError: there is none for its image size.
    """
    if data.resolution not in PRESETS:
        known = ", ".join(f"{res}x{res}" for res in PRESETS)
        path, side = data.training_set.arguments["path"], f"{data.resolution}x{data.resolution}"
        raise OptionError("--cfg", f"BigGAN has presets for images of {known}, those of {path} are {side}; convert "
                                   "them with dataset_tool.py --resolution")
    return PRESETS[data.resolution]


def network_config(opts: EasyDict, preset: BigGANPreset, data: DataInfo) -> NetworksConfig:
    """Generator and discriminator built from the options, and where their weights come from.

    Raises:
        OptionError: options that make no network.
    """
    ch = preset.ch if opts.ch is None else opts.ch
    attn = preset.attn if opts.attn is None else opts.attn
    if not all(part.isdigit() for part in attn.split("_")):
        raise OptionError("--attn", f"expected resolutions joined by underscores, such as 32_64, or 0, found {attn!r}")
    if opts.attn is not None:
        _check_attention(attn, data.resolution)
    z_dim = preset.z_dim if opts.z_dim is None else opts.z_dim
    shared = {"SN_eps": preset.eps}
    G = Component("training.networks_biggan.BigGANGenerator", {
        "G_ch": ch, "dim_z": z_dim, **preset.latent, "G_attn": attn, "G_init": preset.init, **shared})
    D = Component("training.networks_biggan.BigGANDiscriminator", {
        "D_ch": ch, "D_attn": attn, "D_init": preset.init, **shared})
    _check_networks(data, (G, D))
    return NetworksConfig(G=G, D=D, init=initial_weights(opts))


def _check_attention(attn: str, resolution: int) -> None:
    """Every resolution of --attn must be one that a network of this image size can attend at."""
    from .. import networks_biggan as networks

    streams = networks.GENERATOR_STREAMS[resolution], networks.DISCRIMINATOR_STREAMS[resolution]
    for part in attn.split("_") if attn != "0" else []:
        plans = networks.generator_blocks(streams[0], attention=part), networks.discriminator_blocks(
            resolution, 3, streams[1], attention=part)
        where = [name for name, plan in zip("GD", plans) if any(block.attention for block in plan)]
        if not where:
            raise OptionError("--attn", f"there is no resolution {part} in networks for {resolution}x{resolution} "
                                        "images")
        if len(where) == 1:
            click.echo(f"Note: --attn={part} puts attention into {where[0]} only", err=True)


def _check_networks(data: DataInfo, networks: tuple[Component, ...]) -> None:
    """Builds the networks without memory for their tensors, to learn now what does not go together."""
    import torch

    from torch_utils.tensor_budget import TensorBudget

    sizes = {"c_dim": data.label_dim, "img_resolution": data.resolution, "img_channels": data.num_channels}
    for network in networks:
        try:
            with torch.device("meta"), TensorBudget():
                NETWORKS.call(network.name, network.arguments, **sizes, skip_init=True)
        except ValueError as error:
            raise OptionError("--z-dim" if str(error).startswith("dim_z") else "--attn", str(error)) from None


def training_config(opts: EasyDict, data: DataInfo) -> RunConfig:
    """The configuration of a run that trains BigGAN networks.

    Raises:
        OptionError: options that do not fit together, or the data set.
    """
    preset = preset_of(data)
    batch, batch_gpu = batch_sizes(opts, preset)
    d_steps = preset.d_steps if opts.d_steps is None else opts.d_steps
    networks = network_config(opts, preset, data)
    # The gradients of a batch's passes are summed up here, not averaged; Adam does not notice if its epsilon does.
    eps = preset.eps * (batch // (opts.gpus * batch_gpu))
    half_life = ema_half_life_kimg(preset.ema_decay, batch * d_steps)
    start_kimg = preset.ema_start_kimg if networks.init is None else 0
    return RunConfig(
        data=data_config(opts, data),
        networks=networks,
        optimizers=OptimizersConfig(
            G=adam(preset.g_lr if opts.glr is None else opts.glr, 0.999, eps),
            D=adam(preset.d_lr if opts.dlr is None else opts.dlr, 0.999, eps),
            D_steps=d_steps,
            G_reg_interval=None,
            D_reg_interval=None,
        ),
        loss=Component("training.loss_biggan.HingeLoss"),
        augmentation=augmentation_config(opts, default_aug="noaug"),
        ema=EMAConfig(
            kimg=half_life if opts.ema_kimg is None else opts.ema_kimg,
            rampup=None,
            start_kimg=start_kimg if opts.ema_start is None else opts.ema_start,
            buffers=True,
        ),
        schedule=schedule_config(opts, preset.kimg, batch, batch_gpu),
        metrics=metrics_config(opts),
        machine=machine_config(opts),
    )
