"""Precision and recall: how much of one image set lies within the neighbourhoods of the other one's images.

Source: Kynkäänniemi et al. 2019, arXiv:1904.06991, section 3. Features and distances are rounded to float16, as in the
published scores; the distances themselves are computed in float32, so that CPU and GPU agree.
"""
from collections.abc import Callable

import torch

from dnnlib.errors import UserError
from metrics.detector import VGG16
from metrics.metric_utils import compute_feature_stats_for_dataset, compute_feature_stats_for_generator
from metrics.options import MetricOptions
from torch_utils import distributed

NEIGHBOURHOOD = 3
_BATCH = 10000  # rows and columns of one block of the distance matrix


def compute_pr(opts: MetricOptions, name: str, max_real: int | None, num_gen: int) -> dict[str, float]:
    """Both shares, under `name`_precision and _recall, or precision@ and recall@DETECTOR; NaN on ranks above 0."""
    detector = opts.load_detector(VGG16)
    call = {"return_features": True}
    at_least = NEIGHBOURHOOD + 1
    real = compute_feature_stats_for_dataset(opts, detector, call, max_real, min_items=at_least, capture_all=True)
    gen = compute_feature_stats_for_generator(opts, detector, call, num_gen, min_items=at_least, capture_all=True)
    both = precision_recall(real.get_all_torch().to(opts.device), gen.get_all_torch().to(opts.device))
    return {
        opts.result_key(f"{name}_{label}", label, detector, VGG16): value if opts.rank == 0 else float("nan")
        for label, value in zip(("precision", "recall"), both, strict=True)
    }


def precision_recall(
    real: torch.Tensor,
    gen: torch.Tensor,
    neighbourhood: int = NEIGHBOURHOOD,
    dtype: torch.dtype = torch.float16,
    batch: int = _BATCH,
) -> tuple[float, float]:
    """Precision and recall of generated features [M, F] against real ones [N, F].

    Precision is the share of generated images that lie near a real one, recall the share of real images that lie near
    a generated one. Several ranks share the work; each must pass all features.

    Args:
        neighbourhood: an image's neighbourhood reaches to this nearest other image of its own set.
        dtype: what features and distances are rounded to; float64 also computes in it.
        batch: rows and columns of the distance matrix at a time.

    Raises:
        UserError: a feature is not finite, or does not fit `dtype`.
    """
    real, gen = _rounded(real, dtype), _rounded(gen, dtype)
    if not (real.isfinite().all() and gen.isfinite().all()):
        raise UserError(f"precision and recall: features are not finite as {dtype}; use another detector")
    precision = coverage(real, gen, neighbourhood, dtype, batch)
    return precision, coverage(gen, real, neighbourhood, dtype, batch)


def coverage(manifold: torch.Tensor, probes: torch.Tensor, neighbourhood: int, dtype: torch.dtype, batch: int) -> float:
    """The share of probes [M, F] within the neighbourhood of at least one manifold point [N, F]."""
    radii = _radii(manifold, neighbourhood, dtype, batch)
    columns = list(zip(manifold.split(batch), radii.split(batch), strict=True))

    def is_near(rows: torch.Tensor) -> torch.Tensor:
        near = [(_distances(rows, points, dtype) <= radius).any(dim=1) for points, radius in columns]
        return torch.stack(near).any(dim=0)

    return float(_by_rows(is_near, probes, batch).mean(dtype=torch.float64))


def _radii(points: torch.Tensor, neighbourhood: int, dtype: torch.dtype, batch: int) -> torch.Tensor:
    """Each point's distance to its nearest neighbours' last one; the point itself counts as the zeroth."""
    num = neighbourhood + 1

    def radius(rows: torch.Tensor) -> torch.Tensor:
        nearest = torch.full([len(rows), num], torch.inf, dtype=rows.dtype, device=rows.device)
        for columns in points.split(batch):
            candidates = torch.cat([nearest, _distances(rows, columns, dtype)], dim=1)
            nearest = candidates.topk(num, dim=1, largest=False).values
        return nearest.amax(dim=1)

    return _by_rows(radius, points, batch)


def _by_rows(function: Callable[[torch.Tensor], torch.Tensor], points: torch.Tensor, batch: int) -> torch.Tensor:
    """Applies [n, F] -> [n] to all points; every rank does every num_gpus-th point and gets the whole result."""
    num_ranks, rank = distributed.world_size(), distributed.rank()
    per_rank = -(-len(points) // num_ranks)
    of_rank = (torch.arange(per_rank, device=points.device) * num_ranks + rank) % len(points)
    values = torch.cat([function(points[rows]).to(points.dtype) for rows in of_rank.split(batch)])
    return distributed.all_gather_interleaved(values.unsqueeze(1))[: len(points), 0]


def _rounded(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Rounds to `dtype` and returns float32 (float64 for float64)."""
    return x.to(dtype).to(torch.promote_types(dtype, torch.float32))


def _distances(rows: torch.Tensor, columns: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Euclidean distances [n, m]. A common shift changes none, and near the origin less of the products cancels."""
    centre = columns.mean(dim=0)
    return _rounded(torch.cdist(rows - centre, columns - centre), dtype)
