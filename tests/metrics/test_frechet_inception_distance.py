import numpy as np
import pytest
import scipy.linalg

from metrics.frechet_inception_distance import frechet_distance, trace_sqrt_product

EXACT = 1e-9  # relative; both sides work in float64
SQRTM = 1e-6  # relative; what the general solver itself achieves on singular products


def features(num: int, dim: int, seed: int) -> np.ndarray:
    rng = np.random.RandomState(seed)
    spectrum = np.logspace(0, -2, dim)
    return rng.randn(num, dim) * spectrum @ rng.randn(dim, dim) + rng.randn(dim)


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return x.mean(axis=0), np.cov(x, rowvar=False, bias=True)


def nuclear_root(x: np.ndarray, y: np.ndarray) -> float:
    """tr sqrt(cov(x) cov(y)) from the features themselves: the covariances are A^T A and B^T B, so it is |A B^T|_*."""
    a, b = ((v - v.mean(axis=0)) / np.sqrt(len(v)) for v in (x, y))
    return np.linalg.norm(a @ b.T, ord="nuc")


def test_agrees_with_general_square_root():
    (m1, c1), (m2, c2) = moments(features(500, 40, 0)), moments(features(400, 40, 1))
    expected = ((m1 - m2) ** 2).sum() + np.trace(c1 + c2 - 2 * scipy.linalg.sqrtm(c1 @ c2)).real
    assert frechet_distance(m1, c1, m2, c2) == pytest.approx(expected, rel=EXACT)


@pytest.mark.parametrize(("num1", "num2"), [(20, 25), (20, 400), (400, 20), (2, 3)])
def test_fewer_images_than_features(num1, num2):
    x, y = features(num1, 60, 0), features(num2, 60, 1)
    c1, c2 = moments(x)[1], moments(y)[1]
    assert trace_sqrt_product(c1, c2) == pytest.approx(nuclear_root(x, y), rel=EXACT)


def test_singular_agrees_with_general_square_root():
    c1, c2 = moments(features(50, 60, 0))[1], moments(features(55, 60, 1))[1]
    expected = np.trace(scipy.linalg.sqrtm(c1 @ c2)).real
    assert trace_sqrt_product(c1, c2) == pytest.approx(expected, rel=SQRTM)


def test_no_common_direction():
    c1, c2 = np.diag([1.0, 2.0, 0.0, 0.0]), np.diag([0.0, 0.0, 3.0, 4.0])
    assert trace_sqrt_product(c1, c2) == pytest.approx(0, abs=EXACT)


def test_no_variance_at_all():
    zero = np.zeros([3, 3])
    assert frechet_distance(np.zeros(3), zero, np.ones(3), zero) == 3
    assert frechet_distance(np.zeros(3), zero, np.ones(3), np.eye(3)) == pytest.approx(6)


def test_wide_spectrum():
    """Eigenvalues of the product span 24 decades; the small ones' roots still count."""
    values = np.logspace(0, -12, 50)
    basis = np.linalg.qr(np.random.RandomState(0).randn(50, 50))[0]
    c1, c2 = basis * values @ basis.T, basis * values[::-1] @ basis.T
    assert trace_sqrt_product(c1, c2) == pytest.approx(np.sqrt(values * values[::-1]).sum(), rel=SQRTM)


def test_by_hand():
    """Diagonal covariances: sum of (sqrt a - sqrt b)^2 = (1-2)^2 + (3-1)^2 = 5, and the means are 2 apart: 5 + 4."""
    result = frechet_distance(np.array([0.0, 2.0]), np.diag([1.0, 9.0]), np.zeros(2), np.diag([4.0, 1.0]))
    assert result == pytest.approx(9)


def test_same_distribution_is_zero():
    mean, cov = moments(features(300, 30, 0))
    assert abs(frechet_distance(mean, cov, mean, cov)) < 1e-9 * np.trace(cov)
