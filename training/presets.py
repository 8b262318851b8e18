"""Training presets as data, and the pure function that turns one into numbers. No torch here.

Rows and the `auto` heuristic: Karras et al. 2020 (arXiv:2006.06676), table 9 and appendix C, as the public
StyleGAN2-ADA command line defines them.
"""
import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
    """One row. `None` is a value: no EMA ramp-up."""

    ref_gpus: int  # number of GPUs that batch_gpu is worked out for
    kimg: int  # training length
    batch: int  # total batch size
    mbstd_group: int | None  # group size of the minibatch standard deviation
    fmaps: float  # channel_base / 32768
    lr: float  # learning rate of G and D
    gamma: float  # R1 weight
    ema_kimg: float  # half-life of the generator's moving average
    ema_rampup: float | None  # cap of that half-life, as a fraction of the images seen
    map_depth: int  # mapping layers
    pl_weight: float = 2
    style_mixing_prob: float = 0.9
    d_architecture: str = "resnet"


PRESETS: dict[str, Preset] = {
    "stylegan2": Preset(ref_gpus=8, kimg=25000, batch=32, mbstd_group=4, fmaps=1, lr=0.002, gamma=10, ema_kimg=10,
                        ema_rampup=None, map_depth=8),
    "paper256": Preset(ref_gpus=8, kimg=25000, batch=64, mbstd_group=8, fmaps=0.5, lr=0.0025, gamma=1, ema_kimg=20,
                       ema_rampup=None, map_depth=8),
    "paper512": Preset(ref_gpus=8, kimg=25000, batch=64, mbstd_group=8, fmaps=1, lr=0.0025, gamma=0.5, ema_kimg=20,
                       ema_rampup=None, map_depth=8),
    "paper1024": Preset(ref_gpus=8, kimg=25000, batch=32, mbstd_group=4, fmaps=1, lr=0.002, gamma=2, ema_kimg=10,
                        ema_rampup=None, map_depth=8),
    "cifar": Preset(ref_gpus=2, kimg=100000, batch=64, mbstd_group=32, fmaps=1, lr=0.0025, gamma=0.01, ema_kimg=500,
                    ema_rampup=0.05, map_depth=2, pl_weight=0, style_mixing_prob=0, d_architecture="orig"),
}


def auto_gamma(resolution: int, batch: int) -> float:
    """The R1 weight that the `auto` preset guesses: 0.0002 · resolution² / batch."""
    return 0.0002 * resolution**2 / batch


def auto_preset(resolution: int, gpus: int) -> Preset:
    """The preset `auto`, which adapts to the image size and the number of GPUs."""
    batch = max(min(gpus * min(4096 // resolution, 32), 64), gpus)
    return Preset(
        ref_gpus=gpus,
        kimg=25000,
        batch=batch,
        mbstd_group=min(batch // gpus, 4),
        fmaps=1 if resolution >= 512 else 0.5,
        lr=0.002 if resolution >= 1024 else 0.0025,
        gamma=auto_gamma(resolution, batch),
        ema_kimg=batch * 10 / 32,
        ema_rampup=0.05,
        map_depth=2,
    )


def resolve(cfg: str, resolution: int, gpus: int, rows: Mapping[str, Preset] = PRESETS) -> Preset:
    """The row that `cfg` names, for this image size and number of GPUs.

    Raises:
        ValueError: no such preset; the message lists the valid ones.
    """
    if cfg == "auto":
        return auto_preset(resolution, gpus)
    if cfg not in rows:
        raise ValueError(f"unknown preset {cfg!r}; known: auto, {', '.join(rows)}")
    return rows[cfg]


def network_options(preset: Preset, *, channel_base: int, channel_max: int, fp32: bool) -> dict[str, Any]:
    """The constructor arguments that G's synthesis network and D have in common."""
    return {
        "channel_base": channel_base,
        "channel_max": channel_max,
        "num_fp16_res": 0 if fp32 else 4,
        "conv_clamp": None if fp32 else 256,
    }
