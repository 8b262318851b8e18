"""The activations of a discriminator as perceptual features: no external network is needed."""
from typing import Any

import torch


def block_features(D: Any, img: torch.Tensor) -> list[torch.Tensor]:
    """The output of every block of a StyleGAN2 discriminator, [N, C, H, W] each, from high to low resolution.

    Every pixel's channel vector is scaled to unit length, as perceptual distances do (Zhang et al. 2018,
    arXiv:1801.03924, equation 1).
    """
    x, features = None, []
    for res in D.block_resolutions:
        x, img = getattr(D, f"b{res}")(x, img)
        maps = x.to(torch.float32)
        features.append(maps * (maps.square().sum(dim=1, keepdim=True) + 1e-8).rsqrt())
    return features


def distance(a: list[torch.Tensor], b: list[torch.Tensor]) -> torch.Tensor:
    """Mean over the blocks of the squared distance, averaged over pixels, [N]."""
    return torch.stack([(x - y).square().sum(dim=1).mean(dim=[1, 2]) for x, y in zip(a, b)]).mean(dim=0)
