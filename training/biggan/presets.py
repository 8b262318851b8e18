"""BigGAN's training presets as data, by image size. No torch here.

Rows: the public PyTorch code's settings for CIFAR-10 (32 px) and ImageNet (128 px; the released network was trained for
138,000 iterations), and those of the 256 px networks of Brock et al. 2019 (arXiv:1809.11096) with the 128 px schedule.
"""
import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class BigGANPreset:
    """One row. Thousands of images are counted by what D sees: batch · d_steps in an iteration."""

    ref_gpus: int  # batch / ref_gpus is one pass, which batch statistics are taken of
    kimg: int  # training length
    batch: int  # total batch size of one step
    d_steps: int  # steps of D per iteration
    ch: int  # channel multiplier of G and D
    z_dim: int
    attn: str  # resolutions with attention; 0 is none
    g_lr: float
    d_lr: float
    eps: float  # of spectral normalisation and of Adam
    init: str  # initial weights
    ema_start_kimg: float  # until then the average is a copy
    latent: dict[str, Any]  # how z and labels enter G
    ema_decay: float = 0.9999  # of the average, per iteration


_SHARED = {"hier": True, "G_shared": True, "shared_dim": 128}

PRESETS: dict[int, BigGANPreset] = {
    32: BigGANPreset(ref_gpus=1, kimg=25000, batch=50, d_steps=4, ch=64, z_dim=128, attn="0", g_lr=2e-4, d_lr=2e-4,
                     eps=1e-8, init="N02", ema_start_kimg=200, latent={}),
    128: BigGANPreset(ref_gpus=64, kimg=282624, batch=2048, d_steps=1, ch=96, z_dim=120, attn="64", g_lr=1e-4,
                      d_lr=4e-4, eps=1e-6, init="ortho", ema_start_kimg=40960, latent=_SHARED),
    256: BigGANPreset(ref_gpus=64, kimg=282624, batch=2048, d_steps=1, ch=96, z_dim=140, attn="128", g_lr=1e-4,
                      d_lr=4e-4, eps=1e-6, init="ortho", ema_start_kimg=40960, latent=_SHARED),
}


def ema_half_life_kimg(decay: float, num_images: int) -> float:
    """The half-life, in thousands of images, of an average that decays so per iteration of `num_images` images."""
    return num_images * math.log(0.5) / math.log(decay) / 1000
