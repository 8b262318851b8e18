"""Keeps the channels that the content of interest depends on most (CAGC: Liu et al. 2021, arXiv:2104.02244, sec. 3.1).

Noise of ±1 is put on 5 % of the pixels inside a region of interest; the score of a channel is the mean gradient
magnitude of sum |noisy image - image| over all weights that read it, averaged over latents. The paper finds its region
with a face parser; here it is any mask or function of the user's, by default the whole image.
"""
import torch

from dnnlib.errors import UserError

from ..plan import Plan
from .registry import ScoreOptions
from .sampling import WeightGradients, latents

NUM_SAMPLES = 400
NOISY_PIXELS = 0.05


def score(network: torch.nn.Module, plan: Plan, options: ScoreOptions) -> dict[str, torch.Tensor]:
    """Set name → mean |∂ loss / ∂ weight| of each channel, [C]. One latent at a time, so no batch size matters.

    Raises:
        UserError: the region of interest is empty in all images.
    """
    generator = torch.Generator().manual_seed(options.seed)
    gradients = WeightGradients(network, plan)
    count = options.num_samples or NUM_SAMPLES
    zs, cs = latents(gradients.G, count, generator)
    total = {name: torch.zeros([size], dtype=torch.float64) for name, size in plan.sets.items()}
    empty = True
    for z, c in zip(zs.split(1), cs.split(1)):
        img = gradients.G(z, c, noise_mode="const")
        inside = _inside(img.detach(), options)
        empty = empty and not bool(inside.any())
        noisy = img.detach() + _noise(img.detach(), inside, generator)
        for name, magnitude in gradients.magnitudes((noisy - img).abs().sum()).items():
            total[name] += magnitude / count
    if empty:
        raise UserError(f"the region of interest is empty in each of the {count} images, so no channel matters",
                        field="roi")
    return total


def _inside(img: torch.Tensor, options: ScoreOptions) -> torch.Tensor:
    """The region of interest of an image [1, C, H, W], boolean [1, 1, H, W] on the CPU."""
    shape = [1, 1, *img.shape[2:]]
    if options.roi is None:
        return torch.ones(shape, dtype=torch.bool)
    return options.roi(img).to("cpu", torch.bool).reshape(shape)


def _noise(img: torch.Tensor, inside: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """±1 on a share of the pixels inside the region of interest, all image channels alike."""
    shape = [1, 1, *img.shape[2:]]
    sign = torch.randint(2, shape, generator=generator) * 2.0 - 1
    chosen = torch.rand(shape, generator=generator) < NOISY_PIXELS
    return (sign * (chosen & inside)).to(img)
