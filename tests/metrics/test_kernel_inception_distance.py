import numpy as np
import pytest

from metrics.kernel_inception_distance import draw_subsets, kernel_distance, squared_discrepancy

RTOL = 1e-9  # float64 on both sides


def naive(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased estimate, pair by pair."""
    m, dim = x.shape
    k = lambda a, b: (float(a @ b) / dim + 1) ** 3  # noqa: E731
    within = sum(k(x[i], x[j]) + k(y[i], y[j]) for i in range(m) for j in range(m) if i != j)
    across = sum(k(x[i], y[j]) for i in range(m) for j in range(m))
    return within / (m * (m - 1)) - 2 * across / m**2


def test_by_hand():
    """One feature. x = (0, 1): k = 1. y = (1, 1): k = 8. Across: k(0, 1) = 1, k(1, 1) = 8; 1 + 8 - 2 * 4.5 = 0."""
    assert squared_discrepancy(np.array([[0.0], [1.0]]), np.array([[1.0], [1.0]])) == pytest.approx(0)


def test_agrees_with_pairwise_sum():
    rng = np.random.RandomState(0)
    real, gen = rng.randn(40, 7).astype(np.float32), rng.randn(30, 7).astype(np.float32) + 1
    subsets = list(draw_subsets(40, 30, rng, num_subsets=5, max_size=12))
    expected = np.mean([naive(gen[g].astype(np.float64), real[r].astype(np.float64)) for r, g in subsets])
    assert kernel_distance(real, gen, subsets) == pytest.approx(expected, rel=RTOL)


def test_unbiased():
    rng = np.random.RandomState(0)
    x, y = rng.randn(2, 4000, 4)
    same = [squared_discrepancy(x[i : i + 20], y[i : i + 20]) for i in range(0, 4000, 20)]
    error = np.std(same) / np.sqrt(len(same))
    assert abs(np.mean(same)) < 3 * error
    assert kernel_distance(x, y + 1, [(np.arange(500), np.arange(500))]) > 10 * error


def test_subsets_are_drawn_without_replacement():
    subsets = list(draw_subsets(30, 10, np.random.RandomState(1), num_subsets=4, max_size=1000))
    assert len(subsets) == 4
    for rows_real, rows_gen in subsets:
        assert len(set(rows_real)) == len(set(rows_gen)) == 10
    assert max(max(rows_real) for rows_real, _ in subsets) > 10  # the larger set is used to its end
