"""Agreement: how close a generator's images are to those of a reference network, latent by latent.

For networks that were made from another one (compressed, quantised, exported) and are meant to draw the same images:
distances of distributions cannot tell whether they do.
"""
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from dnnlib.errors import UserError
from metrics import image_similarity as similarity
from metrics.detector import Detector, DetectorSpec, load
from metrics.options import MetricOptions, Reference
from metrics.perceptual import DetectorFeatures, block_distance, block_features
from metrics.samples import rank_blocks, sample_rng
from torch_utils import distributed
from torch_utils.network_types import Generator, image_size


def compute_agreement(opts: MetricOptions, name: str, num_gen: int) -> dict[str, float]:
    """PSNR in dB of the mean squared error, and means over images of structural similarity and perceptual distance.

    Images are clamped to [-1, 1], of the same latents and uniformly drawn classes, with constant noise. From 176 px on
    the similarity is MS-SSIM, below SSIM. The distance is LPIPS if a detector of `opts` knows it, else that of the
    features of the reference's discriminator (`metrics.perceptual.block_distance`); without either it is left out.

    Returns:
        `name`_psnr, `name`_ssim or `name`_ms_ssim, and `name`_distance@D or `name`_lpips@DETECTOR.

    Raises:
        UserError: there is no reference, or its images or latents are of another size.
    """
    teacher = opts.reference
    if teacher is None:
        raise UserError("agreement compares with another network; pass its pickle", "teacher")
    net = opts.generator()
    _check_alike(net, teacher)
    reference = teacher.G.eval().requires_grad_(False).to(opts.device)
    number, batch = opts.count_gen(num_gen, 1), opts.gen_batch()
    key, distance = _perceptual(opts, teacher)
    side = min(image_size(net))
    likeness, compare = ("ms_ssim", similarity.ms_ssim) if side >= similarity.MULTISCALE_PX else (
        "ssim", similarity.ssim)
    has_window = side >= similarity.WINDOW
    opts.protocol |= {"teacher": {"name": teacher.name, "sha256": teacher.sha256}, "noise": "const",
                      "labels": "uniform", "similarity": likeness if has_window else None}
    sums = torch.zeros([3], dtype=torch.float64)
    with opts.progress(number, "pairs of images") as bar, torch.no_grad():
        for indices in rank_blocks(opts, number, batch):
            indices = range(indices.start, min(indices.stop, number))
            if not indices:
                continue
            z, c = _inputs(opts, net, indices)
            call = {**opts.G_kwargs, "noise_mode": "const"}
            a, b = (G(z=z, c=c, **call).to(torch.float32).clamp(-1, 1) for G in (net, reference))
            values = [(a - b).square().mean(dim=[1, 2, 3])]
            values.append(compare(a, b) if has_window else torch.zeros(len(a)))
            values.append(distance(a, b) if distance is not None else torch.zeros(len(a)))
            sums += torch.stack([value.double().sum().cpu() for value in values])
            bar.update(len(indices) * opts.num_gpus)
    sums = distributed.sum_(sums.to(opts.device) if opts.device.type == "cuda" else sums).cpu() / number
    results = {f"{name}_psnr": similarity.psnr(float(sums[0]))}
    if has_window:
        results[f"{name}_{likeness}"] = float(sums[1])
    if distance is not None:
        results[f"{name}_{key}"] = float(sums[2])
    return results


def _inputs(opts: MetricOptions, net: Generator, indices: range) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents [n, z_dim] and one-hot labels [n, c_dim] of uniformly drawn classes, for numbered samples."""
    z, c = [], np.zeros([len(indices), net.c_dim], dtype=np.float32)
    for row, index in enumerate(indices):
        random = sample_rng(opts.seed, index)
        z.append(random.randn(net.z_dim))
        if net.c_dim > 0:
            c[row, random.randint(net.c_dim)] = 1
    return (torch.from_numpy(np.stack(z).astype(np.float32)).to(opts.device), torch.from_numpy(c).to(opts.device))


Distance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _perceptual(opts: MetricOptions, teacher: Reference) -> tuple[str, Distance | None]:
    """The key and the function of the distance of images [N, C, H, W] in [-1, 1] → [N]."""
    for spec in opts.detectors:
        detector = load(spec if isinstance(spec, DetectorSpec) else DetectorSpec.parse(spec), opts.device, opts.verbose)
        if _knows_lpips(detector):
            opts.protocol["detector"] = {"name": detector.name, "sha256": detector.sha256}
            return f"lpips@{detector.name}", _lpips(DetectorFeatures(detector))
    if teacher.D is None:
        return "", None
    D = teacher.D.eval().requires_grad_(False).to(opts.device)

    def by_discriminator(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return block_distance(*(block_features(D, x, force_fp32=True) for x in (a, b)))

    return "distance@D", by_discriminator


def _lpips(features: DetectorFeatures) -> Distance:
    def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        pair = [features((x + 1) * 127.5) for x in (a, b)]
        return (pair[0] - pair[1]).square().sum(dim=1)

    return distance


def _knows_lpips(detector: Detector) -> bool:
    forward: Any = detector.module.forward
    return any(argument.name == "return_lpips" for argument in forward.schema.arguments)


def _check_alike(net: Generator, teacher: Reference) -> None:
    own_kind, expected_kind = (
        {**{name: getattr(G, name) for name in ("img_resolution", "img_channels", "z_dim", "c_dim")},
         "height and width": image_size(G)} for G in (net, teacher.G))
    for attribute, own in own_kind.items():
        expected = expected_kind[attribute]
        if own != expected:
            raise UserError(f"expected a network of the same images and latents, but {attribute} of {teacher.name} is "
                            f"{expected}, that of the network is {own}; pass the network that it was made from",
                            "teacher")
