"""What a teacher's discriminator can do for a student: measures of its logits, its gradient, and its features."""
import dataclasses
from collections.abc import Iterator

import torch

from metrics.perceptual import block_distance, block_features
from torch_utils.network_types import Discriminator

_BATCH = 16


@dataclasses.dataclass(frozen=True)
class Images:
    """Images [N, C, H, W] in [-1, 1] and their labels [N, c_dim]."""
    img: torch.Tensor
    c: torch.Tensor


@torch.no_grad()
def logits(D: Discriminator, images: Images) -> torch.Tensor:
    """A discriminator's logits, float64 [N]. Images go in groups of 16, which the minibatch statistics see."""
    return torch.cat([D(img, c, force_fp32=True)[:own, 0] for img, c, own in _groups(images)]).double()


def _groups(images: Images) -> Iterator[tuple[torch.Tensor, torch.Tensor, int]]:
    """Groups of 16 images with their labels, and how many of them have not been in another: the last group is filled up
    with images from the front.
    """
    count = len(images.img)
    for start in range(0, count, _BATCH):
        index = torch.arange(start, start + _BATCH, device=images.img.device) % count
        yield images.img[index], images.c[index], min(_BATCH, count - start)


def auc(higher: torch.Tensor, lower: torch.Tensor) -> float:
    """Probability that a value of the first sample [N] exceeds one of the second [M]; ties count half."""
    below = torch.searchsorted(lower.sort().values, higher.contiguous())
    up_to = torch.searchsorted(lower.sort().values, higher.contiguous(), right=True)
    return float((below + up_to).double().mean()) / (2 * len(lower))


def calibration(real: torch.Tensor, fake: torch.Tensor, steps: int = 50) -> tuple[float, float]:
    """a and b of the logistic regression sigmoid(a · logit + b) that tells real logits [N] from generated ones [M].

    Both samples weigh the same. 1 and 0 mean that the discriminator's logit is the log of the ratio of the densities.
    By Newton's method, with a weak prior that keeps `a` finite if a threshold separates the samples.
    """
    x = torch.cat([real, fake]).double()
    y = torch.cat([torch.ones(len(real)), torch.zeros(len(fake))]).double()
    weight = torch.cat([torch.full([len(real)], 0.5 / len(real)), torch.full([len(fake)], 0.5 / len(fake))]).double()
    columns = torch.stack([x, torch.ones_like(x)], dim=1)
    parameters = torch.zeros(2).double()
    prior = torch.tensor([1e-6, 1e-9]).double()
    for _ in range(steps):
        p = torch.sigmoid(columns @ parameters)
        gradient = columns.t() @ (weight * (p - y)) + prior * parameters
        hessian = columns.t() @ (columns * (weight * p * (1 - p))[:, None]) + torch.diag(prior)
        step = torch.linalg.solve(hessian, gradient)
        parameters = parameters - step * min(1.0, 5.0 / float(step.abs().max().clamp_min(1e-12)))
    return float(parameters[0]), float(parameters[1])


def verdict_gradient(D: Discriminator, images: Images) -> torch.Tensor:
    """∂ D / ∂ image [N, C, H, W]: the direction in which each image must move to please a discriminator."""
    directions = []
    for img, c, own in _groups(images):
        img = img.detach().requires_grad_(True)
        directions.append(torch.autograd.grad(D(img, c, force_fp32=True)[:own].sum(), img)[0][:own])
    return torch.cat(directions)


def feature_gradient(D: Discriminator, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The direction [N, C, H, W] that brings images [N, C, H, W] nearer to others of that shape in D's features."""
    directions = []
    for img, target in zip(images.split(_BATCH), targets.split(_BATCH)):
        with torch.no_grad():
            wanted = block_features(D, target, force_fp32=True)
        img = img.detach().requires_grad_(True)
        loss = block_distance(block_features(D, img, force_fp32=True), wanted).sum()
        directions.append(-torch.autograd.grad(loss, img)[0])
    return torch.cat(directions)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean over samples of the cosine of the angle between two batches [N, ...]; a sample of zeros counts 0."""
    return float(torch.nn.functional.cosine_similarity(a.flatten(1).double(), b.flatten(1).double(), eps=1e-30).mean())


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Fréchet distance of two samples of features [N, F] and [M, F], as normal distributions; float64."""
    means, roots, traces = [], [], 0.0
    for x in (a.double(), b.double()):
        centred = x - x.mean(dim=0)
        covariance = centred.t() @ centred / (len(x) - 1)
        values, vectors = torch.linalg.eigh(covariance)
        roots.append((vectors * values.clamp_min(0).sqrt()) @ vectors.t())
        means.append(x.mean(dim=0))
        traces += float(covariance.trace())
    cross = torch.linalg.svdvals(roots[0] @ roots[1]).sum()
    return float((means[0] - means[1]).square().sum()) + traces - 2 * float(cross)


@torch.no_grad()
def pooled_features(D: Discriminator, img: torch.Tensor) -> torch.Tensor:
    """Features [N, F] of images [N, C, H, W]: D's block features, averaged over pixels."""
    parts = [torch.cat([f.mean(dim=[2, 3]) for f in block_features(D, part, force_fp32=True)], dim=1)
             for part in img.split(_BATCH)]
    return torch.cat(parts)
