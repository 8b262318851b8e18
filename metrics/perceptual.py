"""Features in which the squared Euclidean distance of two images says how different they look."""
from typing import Any, Protocol

import torch
import torch.nn.functional as F

from dnnlib.errors import UserError
from metrics.detector import Detector

_MAX_DETECTOR_PX = 256  # larger images are averaged down to it


class PerceptualError(UserError, ValueError):
    """A network or a detector that gives no features for these images."""


class Features(Protocol):
    """Images [N, C, H, W], 0..255, to vectors [N, F] whose squared distance is a perceptual one; differentiable."""

    def __call__(self, images: torch.Tensor) -> torch.Tensor: ...


class DetectorFeatures:
    """LPIPS features (arXiv:1801.03924) of a TorchScript detector that knows `return_lpips`, such as vgg16.pt.

    Images of more than 256 pixels are averaged down to 256.
    """

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        if images.shape[1] not in (1, 3):
            raise PerceptualError(f"{self._detector.name} takes grey or RGB images, the network makes ones of "
                                  f"{images.shape[1]} channels; use `detector=D`", "detector")
        if images.shape[2] > _MAX_DETECTOR_PX:
            images = F.interpolate(images, size=(_MAX_DETECTOR_PX, _MAX_DETECTOR_PX), mode="area")
        return self._detector(images, resize_images=False, return_lpips=True)


def block_features(D: Any, img: torch.Tensor, force_fp32: bool = False) -> list[torch.Tensor]:
    """The activations of a StyleGAN2 discriminator after each of its blocks, from high to low resolution.

    The channel vector of every pixel is scaled to unit length, as perceptual distances do (LPIPS, Zhang et al. 2018,
    arXiv:1801.03924, equation 1).

    Args:
        D: discriminator with `block_resolutions` and a block b<resolution> for each.
        img: [N, img_channels, H, W], nominally in [-1, 1].
        force_fp32: compute blocks of half precision in single precision.

    Returns:
        [N, C, h, w] float32 of each block.
    """
    x, features = None, []
    for res in D.block_resolutions:
        x, img = getattr(D, f"b{res}")(x, img, force_fp32=force_fp32)
        maps = x.to(torch.float32)
        features.append(maps * (maps.square().sum(dim=1, keepdim=True) + 1e-8).rsqrt())
    return features


def block_distance(a: list[torch.Tensor], b: list[torch.Tensor]) -> torch.Tensor:
    """Distance between two lists of `block_features`, [N], from 0 to 4.

    It is the squared distance of the channel vectors, averaged over pixels and then over blocks.
    """
    return torch.stack([(x - y).square().sum(dim=1).mean(dim=[1, 2]) for x, y in zip(a, b)]).mean(dim=0)


class DiscriminatorFeatures:
    """The `block_features` of a discriminator as one vector, whose squared distances are `block_distance`.

    They lie between 0 and 4 whatever the network. This needs no other file than the network pickle, works for any
    number of channels, and judges by what this generator was trained against; distances of two networks cannot be
    compared.

    Args:
        D: discriminator with `block_resolutions` and a block b<resolution> for each, as StyleGAN2's; neither its label
            nor the other images of the minibatch affect these blocks.

    Raises:
        PerceptualError: D is built otherwise.
    """

    def __init__(self, D: Any) -> None:
        resolutions = getattr(D, "block_resolutions", [])
        if not resolutions or not all(hasattr(D, f"b{res}") for res in resolutions):
            raise PerceptualError(f"the pickle's own discriminator, a {type(D).__name__}, has no blocks like "
                                  "StyleGAN2's to take features from; pass a TorchScript file", "detector")
        self._D = D

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Features [N, F] of images [N, C, H, W], 0..255."""
        blocks = block_features(self._D, images / 127.5 - 1, force_fp32=True)
        return torch.cat([x.flatten(1) / (x.shape[2:].numel() * len(blocks)) ** 0.5 for x in blocks], dim=1)
