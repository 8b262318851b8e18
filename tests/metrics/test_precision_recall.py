import numpy as np
import pytest
import torch

from dnnlib.errors import UserError
from metrics.precision_recall import precision_recall


def brute_force(real: np.ndarray, gen: np.ndarray, k: int, dtype: type) -> tuple[float, float]:
    """Every distance in float64, then rounded as the metric says."""

    def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a, b = (v.astype(dtype).astype(np.float64) for v in (a, b))
        return np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=2)).astype(dtype)

    def share(manifold: np.ndarray, probes: np.ndarray) -> float:
        radii = np.sort(distances(manifold, manifold), axis=1)[:, k]
        return (distances(probes, manifold) <= radii[None]).any(axis=1).mean()

    return share(real, gen), share(gen, real)


@pytest.fixture
def sets():
    rng = np.random.RandomState(0)
    return rng.randn(70, 5), rng.randn(50, 5) * 1.2 + 0.4


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_agrees_with_brute_force(sets, k, dtype):
    real, gen = sets
    torch_dtype = torch.from_numpy(np.zeros(1, dtype)).dtype
    result = precision_recall(torch.from_numpy(real), torch.from_numpy(gen), k, torch_dtype)
    assert result == pytest.approx(brute_force(real, gen, k, dtype))
    assert 0.2 < min(result) < 1  # else the comparison would say little


@pytest.mark.parametrize("batch", [1, 7, 49, 10000])
def test_batch_does_not_matter(sets, batch):
    real, gen = map(torch.from_numpy, sets)
    assert precision_recall(real, gen, batch=batch) == precision_recall(real, gen)


def test_mode_collapse():
    """Few real images repeated with a little variation: all of them plausible, most of the variety missing."""
    rng = np.random.RandomState(0)
    real = rng.randn(200, 3)
    collapsed = real[:5].repeat(40, axis=0) + 1e-2 * rng.randn(200, 3)
    precision, recall = precision_recall(torch.from_numpy(real), torch.from_numpy(collapsed))
    assert precision > 0.95
    assert recall < 0.1


def test_too_much_variety():
    """The reverse: the real images lie within a far wider generated set."""
    rng = np.random.RandomState(0)
    precision, recall = precision_recall(torch.from_numpy(rng.randn(200, 6)), torch.from_numpy(rng.randn(200, 6) * 4))
    assert recall > 0.9
    assert precision < 0.2


def test_a_set_with_itself():
    x = torch.from_numpy(np.random.RandomState(0).randn(30, 4))
    assert precision_recall(x, x) == (1, 1)


def test_beyond_the_rounded_type():
    x = torch.full([10, 2], 1e5)
    with pytest.raises(UserError, match=r"features are not finite as torch\.float16"):
        precision_recall(x, x)
