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


class DiscriminatorFeatures:
    """What a discriminator sees on its way down: the activations after each of its blocks, at every scale.

    As in LPIPS (arXiv:1801.03924, equation 1, without learnt weights), the channels of every pixel are scaled to unit
    length; the squared differences are averaged over the pixels of a block and over the blocks, so that distances lie
    between 0 and 4 whatever the network. This needs no other file than the network pickle, works for any number of
    channels, and knows just what this generator was trained to imitate; distances of two networks cannot be compared.

    Args:
        D: discriminator with `block_resolutions` and a block b<resolution> for each, as StyleGAN2's; neither its label
            nor the minibatch's other images have a part in these blocks.

    Raises:
        PerceptualError: D is built otherwise.
    """

    def __init__(self, D: Any) -> None:
        resolutions = getattr(D, "block_resolutions", [])
        if not resolutions or not all(hasattr(D, f"b{res}") for res in resolutions):
            raise PerceptualError(f"the pickle's own discriminator, a {type(D).__name__}, has no blocks like "
                                  "StyleGAN2's to take features from; pass a TorchScript file", "detector")
        self._blocks = [getattr(D, f"b{res}") for res in resolutions]

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        x, img = None, images / 127.5 - 1
        features = []
        for block in self._blocks:
            x, img = block(x, img, force_fp32=True)
            unit = F.normalize(x, dim=1, eps=1e-6)  # [N, C, H, W]
            features.append(unit.flatten(1) / (x.shape[2] * x.shape[3] * len(self._blocks)) ** 0.5)
        return torch.cat(features, dim=1)
