"""Fréchet inception distance: how far apart two Gaussians fitted to image features are.

Source: Heusel et al. 2017, arXiv:1706.08500, equation 6.
"""
import numpy as np
import scipy.linalg
import torch
from scipy.linalg import lapack

from metrics.detector import INCEPTION
from metrics.metric_utils import compute_feature_stats_for_dataset, compute_feature_stats_for_generator
from metrics.options import MetricOptions

_MIN_ITEMS = 2


def compute_fid(opts: MetricOptions, name: str, max_real: int | None, num_gen: int) -> dict[str, float]:
    """The distance between the real and the generated images, under `name` or fd@DETECTOR; NaN on ranks above 0."""
    detector = opts.load_detector(INCEPTION)
    call = {"return_features": True}
    capture = {"capture_mean_cov": True}
    real = compute_feature_stats_for_dataset(opts, detector, call, max_real, min_items=_MIN_ITEMS, **capture)
    gen = compute_feature_stats_for_generator(opts, detector, call, num_gen, min_items=_MIN_ITEMS, **capture)
    value = frechet_distance(*gen.get_mean_cov(), *real.get_mean_cov()) if opts.rank == 0 else float("nan")
    return {opts.result_key(name, "fd", detector, INCEPTION): value}


def frechet_distance(mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> float:
    """|mean1 - mean2|^2 + tr(cov1 + cov2 - 2 sqrt(cov1 cov2)) for means [F] and covariances [F, F], in float64.

    Not clipped: for equal inputs rounding may leave a tiny negative number.
    """
    delta = np.asarray(mean1, dtype=np.float64) - np.asarray(mean2, dtype=np.float64)
    root = trace_sqrt_product(cov1, cov2)
    return float(delta @ delta + np.trace(cov1, dtype=np.float64) + np.trace(cov2, dtype=np.float64) - 2 * root)


def trace_sqrt_product(cov1: np.ndarray, cov2: np.ndarray) -> float:
    """The trace of the principal square root of cov1 cov2, for symmetric positive semi-definite [F, F] matrices.

    With cov1 = A A^T and cov2 = B B^T, the eigenvalues of cov1 cov2 are those of A^T cov2 A, and their square roots are
    the singular values of A^T B. The former is the faster one; but where an eigenvalue is zero but for rounding, its
    square root is not small. So singular matrices (fewer images than features) go the second way.
    """
    s1, s2 = (np.asfortranarray(cov, dtype=np.float64) for cov in (cov1, cov2))
    a = _cholesky(s1)
    if a is not None and _cholesky(s2) is not None:
        product, _ = lapack.dsygst(s2, a, itype=2, lower=1)  # the lower triangle of A^T cov2 A
        values = scipy.linalg.eigvalsh(product, lower=True)
        return float(np.sqrt(values.clip(min=0)).sum())
    product = torch.from_numpy(_low_rank_factor(s1).T @ _low_rank_factor(s2))
    return float(torch.linalg.svdvals(product).sum())


def _cholesky(cov: np.ndarray) -> np.ndarray | None:
    """The lower Cholesky factor, or None if the matrix is singular as far as float64 can tell."""
    factor, info = lapack.dpotrf(cov, lower=1)
    pivots = factor.diagonal() ** 2
    is_regular = info == 0 and pivots.min() > len(cov) * np.finfo(np.float64).eps * pivots.max()
    return factor if is_regular else None


def _low_rank_factor(cov: np.ndarray) -> np.ndarray:
    """A factor [F, rank] whose product with its transpose is the matrix, by Cholesky's way with pivoting.

    It stops where the largest variance that is left is at the level of rounding.
    """
    factor, order, rank, _ = lapack.dpstrf(cov, lower=1)
    unordered = np.empty([len(cov), rank])
    unordered[order - 1] = np.tril(factor)[:, :rank]
    return unordered
