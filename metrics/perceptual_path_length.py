"""Perceptual path length: how much the image changes per small step in latent space.

Source: Karras et al. 2019, arXiv:1812.04948, section 4.1; crop, noise and outlier rejection as in the published scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from dnnlib.util import UserError
from metrics.detector import VGG16, Detector
from metrics.feature_stats import FeatureStats
from metrics.options import MetricOptions
from metrics.samples import LabelSource, rank_blocks, sample_rng, torch_seeded

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
    """
    detector = opts.load_detector(VGG16)
    num_pairs = opts.count_gen(num_pairs, at_least=1)
    net = opts.generator()
    if not hasattr(net, "mapping") or not hasattr(net, "synthesis"):
        raise UserError(f"{name}: expected a generator with parts mapping and synthesis, found a {type(net).__name__}")
    block = min(max(opts.gen_batch() // 2, 1), num_pairs)  # a pair is two images
    labels = LabelSource(opts, net.c_dim)
    found = FeatureStats(capture_all=True, max_items=num_pairs)
    with opts.progress(num_pairs, name) as bar, torch.no_grad():
        for indices in rank_blocks(opts, num_pairs, block):
            ends = _draw_ends(opts, labels, net.z_dim, indices, kind)
            with torch_seeded(opts, indices.start):
                randomise_noise(net)
            found.append_blocks(_distances(net, detector, opts.G_kwargs, ends, kind).unsqueeze(1))
            bar.set(found.num_items)
    value = mean_without_outliers(found.get_all()[:, 0]) if opts.rank == 0 else float("nan")
    return {opts.result_key(name, "ppl", detector, VGG16): value}


def _draw_ends(
    opts: MetricOptions, labels: LabelSource, z_dim: int, indices: range, kind: PathKind
) -> tuple[torch.Tensor, ...]:
    """Both ends [n, z_dim], their common label [n, c_dim] and the place in between [n, 1] of numbered pairs."""
    rows = []
    for index in indices:
        rng = sample_rng(opts.seed, index)
        z0, z1 = rng.randn(2, z_dim)
        place = rng.uniform(size=1) if kind.sampling == "full" else np.zeros(1)
        rows.append((z0, z1, labels.draw(rng), place))
    return tuple(
        torch.from_numpy(np.stack(column).astype(np.float32)).to(opts.device) for column in zip(*rows, strict=True)
    )


def _distances(
    net: Any, detector: Detector, G_kwargs: dict[str, Any], ends: tuple[torch.Tensor, ...], kind: PathKind
) -> torch.Tensor:
    """The detector's squared distance over a step of EPSILON at each pair's place, divided by EPSILON^2; [n]."""
    z0, z1, c, place = ends
    truncation = {key: value for key, value in G_kwargs.items() if key.startswith("truncation")}
    steps = torch.cat([place, place + EPSILON])
    if kind.space == "w":
        w0, w1 = net.mapping(torch.cat([z0, z1]), torch.cat([c, c]), **truncation).chunk(2)
        ws = w0.repeat(2, 1, 1).lerp(w1.repeat(2, 1, 1), steps.unsqueeze(2))
    else:
        z = slerp(z0.repeat(2, 1), z1.repeat(2, 1), steps)
        ws = net.mapping(z, torch.cat([c, c]), **truncation)
    rest = {key: value for key, value in G_kwargs.items() if key not in truncation}
    images = net.synthesis(ws, **(rest | {"noise_mode": "const", "force_fp32": True}))
    prepared = (prepare_images(images, kind.crop, net.img_resolution) + 1) * 127.5
    here, there = detector(prepared, resize_images=False, return_lpips=True).chunk(2)
    return (here - there).square().sum(dim=1) / EPSILON**2


def slerp(a: torch.Tensor, b: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Points on the great circle through the directions of a and b [n, D], t [n, 1] of the way; of unit length."""
    a = F.normalize(a, dim=1, eps=0)
    b = F.normalize(b, dim=1, eps=0)
    cosine = (a * b).sum(dim=1, keepdim=True)
    angle = t * cosine.acos()
    tangent = F.normalize(b - cosine * a, dim=1, eps=0)
    return F.normalize(a * angle.cos() + tangent * angle.sin(), dim=1, eps=0)


def prepare_images(images: torch.Tensor, crop: bool, img_resolution: int) -> torch.Tensor:
    """Cuts images [N, C, H, W] to the face of an aligned portrait, if asked, and averages them down.

    The crop is rows 3/8..7/8 and columns 2/8..6/8. The factor of the averaging follows from the whole image's
    resolution, so that crops of any resolution show the detector the same detail.
    """
    if crop:
        eighth = images.shape[2] // 8
        images = images[:, :, 3 * eighth : 7 * eighth, 2 * eighth : 6 * eighth]
    factor = img_resolution // _MAX_RESOLUTION
    return F.avg_pool2d(images, factor) if factor > 1 else images


def randomise_noise(net: torch.nn.Module) -> None:
    """Fills the constant noise images of a generator with new ones."""
    for name, buffer in net.named_buffers():
        if name.endswith(".noise_const"):
            buffer.normal_()


def mean_without_outliers(distances: np.ndarray) -> float:
    """The mean of the distances [N] from the 1st to the 99th percentile, both values included."""
    distances = distances.astype(np.float64)
    low = np.percentile(distances, 1, method="lower")
    high = np.percentile(distances, 99, method="higher")
    return float(distances[(distances >= low) & (distances <= high)].mean())
