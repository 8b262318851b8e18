"""Perceptual path length: how much the image changes per small step in latent space.

Source: Karras et al. 2019, arXiv:1812.04948, section 4.1; crop, noise and outlier rejection as in the published scores.
"""
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from dnnlib.errors import UserError
from metrics.detector import VGG16, Detector
from metrics.feature_stats import FeatureStats
from metrics.options import MetricOptions
from metrics.samples import LabelSource, rank_blocks, sample_rngs, torch_seeded
from torch_utils.network_types import Generator

EPSILON = 1e-4
_MAX_RESOLUTION = 256  # px; larger images are averaged down to it before the detector sees them


@dataclass(frozen=True)
class PathKind:
    """Which paths are measured: in z or in the intermediate w, anywhere or at their start, of cropped images or not."""

    space: Literal["z", "w"]
    sampling: Literal["full", "end"]
    crop: bool


def compute_ppl(opts: MetricOptions, name: str, kind: PathKind, num_pairs: int) -> dict[str, float]:
    """The path length of a generator with parts `mapping` and `synthesis`, under `name` or ppl@DETECTOR.

    NaN on ranks other than 0.

    Raises:
        UserError: the generator has no such parts.
    """
    detector = opts.load_detector(VGG16)
    num_pairs = opts.count_gen(num_pairs, at_least=1)
    net = opts.generator()
    if not hasattr(net, "mapping") or not hasattr(net, "synthesis"):
        raise UserError(f"{name}: expected a generator with parts mapping and synthesis, found a {type(net).__name__}")
    block = min(max(opts.gen_batch() // 2, 1), num_pairs)  # a pair is two images
    labels = LabelSource(opts, net.c_dim)
    distances = FeatureStats(capture_all=True, max_items=num_pairs)
    with opts.progress(num_pairs, name) as bar, torch.no_grad():
        for indices in rank_blocks(opts, num_pairs, block):
            steps = _draw_steps(opts, labels, net.z_dim, indices, kind)
            with torch_seeded(opts, indices.start):
                randomise_noise(net)
            images = _images_along(steps, net, opts.G_kwargs, kind)
            distances.append_blocks(_squared_speed(detector, prepare_images(images, kind.crop, net.img_resolution)))
            bar.set(distances.num_items)
    value = mean_without_outliers(distances.get_all()[:, 0]) if opts.rank == 0 else float("nan")
    return {opts.result_key(name, "ppl", detector, VGG16): value}


@dataclass(frozen=True)
class _Steps:
    """Short steps on the ways between pairs of latents.

    Attributes:
        ends: the latents, [2, n, z_dim].
        places: from 0 to 1 on the way; where the steps begin, then where they end, [2 * n, 1].
        labels: common to both latents, [n, c_dim].
    """

    ends: torch.Tensor
    places: torch.Tensor
    labels: torch.Tensor


def _draw_steps(opts: MetricOptions, labels: LabelSource, z_dim: int, indices: range, kind: PathKind) -> _Steps:
    """The steps of numbered pairs."""

    def draw(rng: np.random.RandomState) -> tuple[np.ndarray, ...]:
        ends = rng.randn(2, z_dim)
        begin = rng.uniform(size=1) if kind.sampling == "full" else np.zeros(1)
        return ends, begin, labels.draw(rng)

    drawn = zip(*map(draw, sample_rngs(opts.seed, indices)), strict=True)
    ends, begins, chosen = (torch.from_numpy(np.array(rows, dtype=np.float32)).to(opts.device) for rows in drawn)
    return _Steps(ends.transpose(0, 1), torch.cat([begins, begins + EPSILON]), chosen)


def _images_along(steps: _Steps, net: Generator, G_kwargs: dict[str, Any], kind: PathKind) -> torch.Tensor:
    """The images where the steps begin, then those where they end, [2 * n, C, H, W]."""
    of_mapping = {key: value for key, value in G_kwargs.items() if key.startswith("truncation")}
    of_synthesis = {key: value for key, value in G_kwargs.items() if key not in of_mapping}

    def mapped(z: torch.Tensor) -> torch.Tensor:
        """[2 * n, z_dim] → [2 * n, num_ws, w_dim]."""
        return net.mapping(z, steps.labels.repeat(2, 1), **of_mapping)

    if kind.space == "w":
        start, end = mapped(steps.ends.flatten(0, 1)).unflatten(0, (2, -1)).repeat(1, 2, 1, 1)
        ws = start.lerp(end, steps.places.unsqueeze(2))
    else:
        start, end = steps.ends.repeat(1, 2, 1)
        ws = mapped(slerp(start, end, steps.places))
    return net.synthesis(ws, **(of_synthesis | {"noise_mode": "const", "force_fp32": True}))


def _squared_speed(detector: Detector, images: torch.Tensor) -> torch.Tensor:
    """The detector's squared distance over each step, divided by EPSILON^2; [n, 1]."""
    features = detector((images + 1) * 127.5, resize_images=False, return_lpips=True)
    return features.unflatten(0, (2, -1)).diff(dim=0).square().sum(dim=2).T / EPSILON**2


def _unit(x: torch.Tensor) -> torch.Tensor:
    return F.normalize(x, dim=1, eps=0)


def slerp(start: torch.Tensor, end: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Unit vectors on the great circle from the direction of start to that of end [n, D], `place` [n, 1] of the way."""
    start, end = _unit(start), _unit(end)
    cosine = (start * end).sum(dim=1, keepdim=True)
    ahead = _unit(end - cosine * start)  # from start along the circle
    turned = cosine.acos() * place
    return _unit(turned.cos() * start + turned.sin() * ahead)


def prepare_images(images: torch.Tensor, crop: bool, img_resolution: int) -> torch.Tensor:
    """Cuts images [N, C, H, W] optionally to the face of an aligned portrait, and averages them down.

    The crop is rows 3/8..7/8 and columns 2/8..6/8. The factor of the averaging follows from the whole image's
    resolution, so that crops of any resolution show the detector the same detail.
    """
    if crop:
        eighth = images.shape[2] // 8
        images = images.narrow(2, 3 * eighth, 4 * eighth).narrow(3, 2 * eighth, 4 * eighth)
    return F.avg_pool2d(images, max(img_resolution // _MAX_RESOLUTION, 1))


def randomise_noise(net: torch.nn.Module) -> None:
    """Fills the constant noise images of a generator with new ones."""
    noise_images = (image for name, image in net.named_buffers() if name.endswith(".noise_const"))
    for image in noise_images:
        image.normal_()


def mean_without_outliers(distances: np.ndarray) -> float:
    """The mean of the distances [N] from the 1st to the 99th percentile, both values included."""
    exact = distances.astype(np.float64)
    least, most = np.percentile(exact, 1, method="lower"), np.percentile(exact, 99, method="higher")
    return float(exact[(least <= exact) & (exact <= most)].mean())
