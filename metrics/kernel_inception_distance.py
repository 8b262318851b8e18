"""Kernel inception distance: the squared maximum mean discrepancy of image features under a cubic kernel.

Source: Binkowski et al. 2018, arXiv:1801.01401, section 4 (unbiased estimate, averaged over subsets).
"""
from collections.abc import Iterable, Iterator

import numpy as np

from metrics.detector import INCEPTION
from metrics.metric_utils import compute_feature_stats_for_dataset, compute_feature_stats_for_generator
from metrics.options import MetricOptions
from metrics.samples import sample_rng

NUM_SUBSETS = 100
MAX_SUBSET_SIZE = 1000
_MIN_ITEMS = 2


def compute_kid(opts: MetricOptions, name: str, max_real: int | None, num_gen: int) -> dict[str, float]:
    """The distance between the real and the generated images, under `name` or kd@DETECTOR; NaN on ranks above 0."""
    detector = opts.load_detector(INCEPTION)
    call = {"return_features": True}
    real = compute_feature_stats_for_dataset(opts, detector, call, max_real, min_items=_MIN_ITEMS, capture_all=True)
    gen = compute_feature_stats_for_generator(opts, detector, call, num_gen, min_items=_MIN_ITEMS, capture_all=True)
    value = float("nan")
    if opts.rank == 0:
        subsets = draw_subsets(real.num_items, gen.num_items, sample_rng(opts.seed, 0))
        value = kernel_distance(real.get_all(), gen.get_all(), subsets)
    return {opts.result_key(name, "kd", detector, INCEPTION): value}


def draw_subsets(
    num_real: int,
    num_gen: int,
    rng: np.random.RandomState,
    num_subsets: int = NUM_SUBSETS,
    max_size: int = MAX_SUBSET_SIZE,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (rows of real [m], rows of generated [m]), drawn without replacement."""
    size = min(num_real, num_gen, max_size)
    for _ in range(num_subsets):
        rows_gen = rng.choice(num_gen, size, replace=False)
        yield rng.choice(num_real, size, replace=False), rows_gen


def kernel_distance(real: np.ndarray, gen: np.ndarray, subsets: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    """The mean over subsets of the unbiased squared discrepancy of features [N, F] and [M, F].

    Args:
        subsets: (rows of real, rows of generated), m >= 2 of each.
    """
    estimates = [squared_discrepancy(real[rows_real], gen[rows_gen]) for rows_real, rows_gen in subsets]
    return float(np.mean(estimates))


def squared_discrepancy(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased estimate for features x [m, F] and y [m, F], in float64; may be negative."""
    assert len(x) == len(y) >= 2, (len(x), len(y))
    x, y = x.astype(np.float64), y.astype(np.float64)
    m = len(x)
    within = sum(float(kernel.sum() - kernel.trace()) for kernel in (_cubic_kernel(x, x), _cubic_kernel(y, y)))
    return within / (m * (m - 1)) - 2 * float(_cubic_kernel(x, y).mean())


def _cubic_kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3
