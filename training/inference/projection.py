"""Finds the latent w whose image is closest to a given one (Karras et al. 2020, arXiv:1912.04958, appendix D)."""
import copy
import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F

from dnnlib.errors import UserError
from dnnlib.progress import Progress
from metrics.perceptual import Features
from torch_utils.network_types import Generator, image_size
from torch_utils.optimizers import Adam

_STATISTICS_SEED = 123
_STATISTICS_BATCH = 1000
_SMALLEST_OCTAVE = 8  # px


class ProjectionError(UserError, ValueError):
    """A network that cannot be used for projection, or an unsuitable target."""


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Learning rate and noise over the course of the optimisation; t runs from 0 to 1.

    Args:
        initial_learning_rate: before and after the ramps.
        initial_noise_factor: standard deviation of the noise added to w, in units of that of w itself, at the start.
        lr_rampdown_length, lr_rampup_length, noise_ramp_length: fractions of the whole.
    """

    initial_learning_rate: float = 0.1
    initial_noise_factor: float = 0.05
    lr_rampdown_length: float = 0.25
    lr_rampup_length: float = 0.05
    noise_ramp_length: float = 0.75

    def learning_rate(self, t: float) -> float:
        """Rises linearly from 0, and falls along a cosine at the end."""
        rate, left = self.initial_learning_rate, 1.0 - t
        if left < self.lr_rampdown_length:
            rate *= 0.5 - 0.5 * math.cos(math.pi * (left / self.lr_rampdown_length))
        if t < self.lr_rampup_length:
            rate *= t / self.lr_rampup_length
        return rate

    def noise_factor(self, t: float) -> float:
        """Falls quadratically to 0."""
        if t >= self.noise_ramp_length:
            return 0.0
        return self.initial_noise_factor * (1.0 - t / self.noise_ramp_length) ** 2


@torch.no_grad()
def w_statistics(G: Generator, c: torch.Tensor, num_samples: int) -> tuple[torch.Tensor, float]:
    """The mean of w over random latents, and the distance of w from it.

    Args:
        G: generator with `mapping`.
        c: label [1, c_dim] of all samples.
        num_samples: latents, drawn with a separate seed.

    Returns:
        mean [1, 1, w_dim], and the root of the mean squared distance from it (of whole vectors, not per dimension).
    """
    w = torch.cat(list(_random_w(G, c, num_samples))).to(torch.float32)
    mean = w.mean(dim=0)
    mean_square = (w - mean).square().sum() / num_samples
    return mean[None, None], mean_square.sqrt().item()


def _random_w(G: Generator, c: torch.Tensor, num_samples: int) -> Iterator[torch.Tensor]:
    """w [N, w_dim] of that many latents altogether, in batches."""
    rng = np.random.RandomState(_STATISTICS_SEED)
    for done in range(0, num_samples, _STATISTICS_BATCH):
        size = min(_STATISTICS_BATCH, num_samples - done)
        z = torch.tensor(rng.randn(size, G.z_dim), dtype=torch.float32, device=c.device)
        yield G.mapping(z, c.expand(size, -1))[:, 0]


def noise_regulariser(noises: list[torch.Tensor]) -> torch.Tensor:
    """How much noise images [H, W] resemble themselves one pixel on, at every scale: 0 for white noise.

    The sum over images, scales and both directions of the squared mean product of neighbours (ibid.).
    """
    total = torch.zeros([], device=noises[0].device if noises else None)
    for noise in noises:
        for octave in _octaves(noise):
            for dim in (0, 1):
                total = total + (octave * octave.roll(1, dims=dim)).mean().square()
    return total


def _octaves(noise: torch.Tensor) -> Iterator[torch.Tensor]:
    """The image itself, then averages of 2x2 pixels again and again, down to 8 pixels."""
    yield noise
    while noise.shape[0] > _SMALLEST_OCTAVE:
        noise = F.avg_pool2d(noise[None, None], kernel_size=2)[0, 0]
        yield noise


@torch.no_grad()
def whiten_(noise: torch.Tensor) -> None:
    """Brings a noise image [H, W] to mean 0 and mean square 1, in place."""
    noise -= noise.mean()
    noise *= noise.square().mean().rsqrt()


def project(
    G: Generator,
    target: torch.Tensor,
    *,
    features: Features,
    c: torch.Tensor | None = None,
    num_steps: int = 1000,
    w_avg_samples: int = 10000,
    initial_learning_rate: float = 0.1,
    initial_noise_factor: float = 0.05,
    lr_rampdown_length: float = 0.25,
    lr_rampup_length: float = 0.05,
    noise_ramp_length: float = 0.75,
    regularize_noise_weight: float = 1e5,
    verbose: bool = False,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Optimises one w and the noise images so that the image approaches the target; G is not changed.

    Random numbers come from torch's global generator.

    Args:
        G: generator with `mapping` and `synthesis`, any number of channels.
        target: uint8 or float [img_channels, H, W] of the size of G's images, 0..255.
        features: in which the images are compared.
        c: label [1, c_dim] of a conditional network.
        num_steps: steps of Adam.
        w_avg_samples: latents for the statistics of w.
        initial_learning_rate, initial_noise_factor, lr_rampdown_length, lr_rampup_length, noise_ramp_length: see
            `Schedule`.
        regularize_noise_weight: weight of `noise_regulariser`.
        verbose: show progress.
        device: where to compute.

    Returns:
        ws after every step, [num_steps, num_ws, w_dim], float32; the last one is the result.

    Raises:
        ProjectionError: G is not style-based, or the target is not an image such as G makes.
    """
    _check(G, target)
    device = torch.device(device)
    schedule = Schedule(
        initial_learning_rate, initial_noise_factor, lr_rampdown_length, lr_rampup_length, noise_ramp_length
    )
    G = copy.deepcopy(G).eval().requires_grad_(False).to(device)
    c = torch.zeros([1, G.c_dim], device=device) if c is None else c.to(device)
    w_avg, w_std = w_statistics(G, c, w_avg_samples)
    with torch.no_grad():
        target_features = features(target[None].to(device, torch.float32))
    noises = _noise_images(G.synthesis)
    w = w_avg.clone().requires_grad_(True)
    opt = Adam([w, *noises])

    path = []
    with Progress(num_steps, "projection", unit="step", enabled=None if verbose else False) as bar:
        for step in range(num_steps):
            t = step / num_steps
            opt.param_groups[0]["lr"] = schedule.learning_rate(t)
            noisy_w = w + torch.randn_like(w) * (w_std * schedule.noise_factor(t))
            image = G.synthesis(noisy_w.expand(-1, G.num_ws, -1), noise_mode="const", force_fp32=True)
            distance = (features((image + 1) * 127.5) - target_features).square().sum()
            opt.zero_grad(set_to_none=True)
            (distance + regularize_noise_weight * noise_regulariser(noises)).backward()
            opt.step()
            for noise in noises:
                whiten_(noise)
            path.append(w.detach().to("cpu", copy=True))
            if verbose:
                bar.desc = f"projection (distance {distance.item():.4g})"
            bar.update()
    return torch.cat(path).repeat(1, G.num_ws, 1)


def _noise_images(synthesis: torch.nn.Module) -> list[torch.Tensor]:
    """The constant noise of every layer that has one, redrawn and ready to be optimised."""
    own_buffers = (dict(layer.named_buffers(recurse=False)) for layer in synthesis.modules())
    constants = [buffers["noise_const"] for buffers in own_buffers if "noise_const" in buffers]
    return [noise.normal_().requires_grad_(True) for noise in constants]


def _check(G: Generator, target: torch.Tensor) -> None:
    if not hasattr(G, "mapping") or not hasattr(G, "synthesis"):
        raise ProjectionError(f"only style-based generators have a w to optimise, this is a "
                              f"{type(G).__name__}", field="network")
    expected = [G.img_channels, *image_size(G)]
    if list(target.shape) != expected:
        raise ProjectionError(f"target: expected an image of shape {expected}, found {list(target.shape)}")
