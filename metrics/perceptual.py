"""Features in which the squared Euclidean distance of two images measures how different they look."""
from collections.abc import Iterator
from typing import Protocol

import torch
import torch.nn.functional as F

from dnnlib.errors import UserError
from metrics.detector import Detector
from torch_utils.network_types import Discriminator

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


def block_features(D: Discriminator, img: torch.Tensor, force_fp32: bool = False) -> list[torch.Tensor]:
    """The activations of a discriminator after each of its blocks, from high to low resolution.

    The channel vector of every pixel is scaled to unit length, as perceptual distances do (LPIPS, Zhang et al. 2018,
    arXiv:1801.03924, equation 1).

    Args:
        D: discriminator of StyleGAN2, with `block_resolutions` and a block b<resolution> for each, or of BigGAN, with
            `blocks`. Neither labels nor the other images of the minibatch affect these blocks.
        img: [N, img_channels, H, W], nominally in [-1, 1].
        force_fp32: compute blocks of half precision in single precision.

    Returns:
        [N, C, h, w] float32 of each block.
    """
    features = []
    for x in _activations(D, img, force_fp32):
        maps = x.to(torch.float32)
        features.append(maps * (maps.square().sum(dim=1, keepdim=True) + 1e-8).rsqrt())
    return features


def num_blocks(D: Discriminator) -> int:
    """How many `block_features` a discriminator has."""
    return len(D.block_resolutions) if hasattr(D, "block_resolutions") else len(D.blocks)


def _activations(D: Discriminator, img: torch.Tensor, force_fp32: bool) -> Iterator[torch.Tensor]:
    """What the blocks return, [N, C, h, w] each."""
    if hasattr(D, "block_resolutions"):
        x = None
        for res in D.block_resolutions:
            x, img = getattr(D, f"b{res}")(x, img, force_fp32=force_fp32)
            yield x
        return
    x = img if D.input_conv is None else D.input_conv(img)
    for stage in D.blocks:
        for layer in stage:
            x = layer(x)
        yield x


def block_errors(a: list[torch.Tensor], b: list[torch.Tensor]) -> list[torch.Tensor]:
    """Squared distances of the channel vectors of two lists of `block_features`: [N, h, w] of each block, 0 to 4."""
    return [(x - y).square().sum(dim=1) for x, y in zip(a, b)]


def block_distance(a: list[torch.Tensor], b: list[torch.Tensor]) -> torch.Tensor:
    """`block_errors` averaged over pixels and then over blocks, [N]."""
    return torch.stack([error.mean(dim=[1, 2]) for error in block_errors(a, b)]).mean(dim=0)


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

    def __init__(self, D: Discriminator) -> None:
        resolutions = getattr(D, "block_resolutions", [])
        if not resolutions or not all(hasattr(D, f"b{res}") for res in resolutions):
            raise PerceptualError(f"the pickle's own discriminator, a {type(D).__name__}, has no blocks like "
                                  "StyleGAN2's to take features from; pass a TorchScript file", "detector")
        self._D = D

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Features [N, F] of images [N, C, H, W], 0..255."""
        blocks = block_features(self._D, images / 127.5 - 1, force_fp32=True)
        return torch.cat([x.flatten(1) / (x.shape[2:].numel() * len(blocks)) ** 0.5 for x in blocks], dim=1)
