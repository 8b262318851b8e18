"""The command-line options of --cfg=biggan, and what they turn into. No torch until a run is configured."""
from collections.abc import Callable
from typing import Any

import click

import dnnlib
from dnnlib import EasyDict

from ..options import DataInfo, OptionError, batch_sizes, further_config, run_config
from .presets import PRESETS, BigGANPreset, ema_half_life_kimg

CFG = "biggan"  # presets of plugins for the same networks end in it, too

_OPTIONS: list[Callable[[Any], Any]] = [
    click.option("--ch", help="BigGAN: channel multiplier of both networks.  [default: the preset's]",
                 type=click.IntRange(min=1), metavar="INT"),
    click.option("--attn", help="BigGAN: resolutions with self-attention, joined by underscores; 0 is none.  "
                 "[default: the preset's]", metavar="LIST"),
    click.option("--d-steps", help="BigGAN: steps of D per step of G, each on images of its own.  [default: the "
                 "preset's]", type=click.IntRange(min=1), metavar="INT"),
    click.option("--ema-kimg", help="BigGAN: half-life of the generator's average, in thousands of images.  [default: "
                 "a decay of 0.9999 per step of G]", type=click.FloatRange(min=0, min_open=True), metavar="FLOAT"),
    click.option("--ema-start", help="BigGAN: thousands of images until the average begins; before, it is a copy.  "
                 "[default: the preset's; 0 when starting from trained weights]", type=click.IntRange(min=0),
                 metavar="INT"),
]
_NAMES = ("ch", "attn", "d_steps", "ema_kimg", "ema_start")
_OF_STYLES = ("gamma", "cbase", "cmax", "w_dim", "map_depth", "mbstd_group", "freezed", "fp32", "nhwc")


def add(command: Any) -> Any:
    """Decorator: adds the options of BigGAN to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def check(opts: EasyDict, given: set[str]) -> None:
    """Checks which options were given, and switches labels on, without which there is no BigGAN.

    Raises:
        OptionError: an option of BigGAN without it, or one that means nothing to it.
    """
    own = opts.cfg.endswith(CFG)
    for name in given.intersection(_OF_STYLES if own else _NAMES):
        raise OptionError("--" + name.replace("_", "-"), f"cannot be given together with --cfg={opts.cfg}" if own else
                          f"can only be given together with --cfg={CFG}")
    for name in opts.metrics if own else ():
        if name.startswith("ppl"):
            raise OptionError("--metrics", f"{name} measures paths of a mapping network, which a BigGAN has not")
    if own and opts.cond is False:
        raise OptionError("--cond", "BigGAN is always conditional on labels; leave --cond=false out")
    if own:
        opts.cond = True


def preset_of(data: DataInfo) -> BigGANPreset:
    """The preset for a data set.

    Raises:
        OptionError: there is none for its image size.
    """
    if data.resolution not in PRESETS:
        known = ", ".join(f"{res}x{res}" for res in PRESETS)
        raise OptionError("--cfg", f"BigGAN has presets for images of {known}, those of {data.kwargs.path} are "
                                   f"{data.resolution}x{data.resolution}; convert them with dataset_tool.py "
                                   "--resolution")
    return PRESETS[data.resolution]


def network_config(opts: EasyDict, preset: BigGANPreset, resolution: int) -> tuple[EasyDict, EasyDict]:
    """G_kwargs and D_kwargs."""
    ch = preset.ch if opts.ch is None else opts.ch
    attn = preset.attn if opts.attn is None else opts.attn
    if not all(part.isdigit() for part in attn.split("_")):
        raise OptionError("--attn", f"expected resolutions joined by underscores, such as 32_64, or 0, got {attn!r}")
    if opts.attn is not None:
        _check_attention(attn, resolution)
    z_dim = preset.z_dim if opts.z_dim is None else opts.z_dim
    G_kwargs = EasyDict(class_name="training.networks_biggan.BigGANGenerator", G_ch=ch, dim_z=z_dim, **preset.latent,
                        G_attn=attn, G_init=preset.init, SN_eps=preset.eps)
    D_kwargs = EasyDict(class_name="training.networks_biggan.BigGANDiscriminator", D_ch=ch, D_attn=attn,
                        D_init=preset.init, SN_eps=preset.eps)
    return G_kwargs, D_kwargs


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


def _check_networks(data: DataInfo, networks: tuple[EasyDict, EasyDict]) -> None:
    """Builds the networks without memory for their tensors, to learn now what does not go together."""
    import torch

    sizes = EasyDict(c_dim=data.label_dim, img_resolution=data.resolution, img_channels=data.num_channels)
    for kwargs in networks:
        try:
            with torch.device("meta"):
                dnnlib.util.construct_class_by_name(**EasyDict(**kwargs, **sizes, skip_init=True))
        except ValueError as error:
            raise OptionError("--z-dim" if str(error).startswith("dim_z") else "--attn", str(error)) from None


def training_config(opts: EasyDict, data: DataInfo) -> EasyDict:
    """The arguments of `training_loop`.

    Raises:
        OptionError: options that do not fit together, or the data set.
    """
    preset = preset_of(data)
    batch, batch_gpu = batch_sizes(opts, preset)
    d_steps = preset.d_steps if opts.d_steps is None else opts.d_steps
    c = run_config(opts, data)
    c.G_kwargs, c.D_kwargs = network_config(opts, preset, data.resolution)
    _check_networks(data, (c.G_kwargs, c.D_kwargs))
    # The gradients of a batch's passes are summed up here, not averaged; Adam does not notice if its epsilon does.
    eps = preset.eps * (batch // (opts.gpus * batch_gpu))
    for name, given, rate in (("G_opt_kwargs", opts.glr, preset.g_lr), ("D_opt_kwargs", opts.dlr, preset.d_lr)):
        lr = rate if given is None else given
        c[name] = EasyDict(class_name="torch.optim.Adam", lr=lr, betas=[0.0, 0.999], eps=eps)
    c.loss_kwargs = EasyDict(class_name="training.loss_biggan.HingeLoss")
    half_life = ema_half_life_kimg(preset.ema_decay, batch * d_steps)
    c.update(
        total_kimg=preset.kimg if opts.kimg is None else opts.kimg,
        batch_size=batch,
        batch_gpu=batch_gpu,
        D_steps=d_steps,
        G_reg_interval=None,
        D_reg_interval=None,
        ema_kimg=half_life if opts.ema_kimg is None else opts.ema_kimg,
        ema_rampup=None,
        ema_start_kimg=preset.ema_start_kimg,
        ema_buffers=True,
    )
    c.update(further_config(opts, default_aug="noaug"))
    if "init_kwargs" in c:
        c.ema_start_kimg = 0
    if opts.ema_start is not None:
        c.ema_start_kimg = opts.ema_start
    return c
