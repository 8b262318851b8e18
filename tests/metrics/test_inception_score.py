import numpy as np
import pytest

from metrics.inception_score import inception_score


def naive(probs: np.ndarray, num_splits: int) -> tuple[float, float]:
    scores = []
    size = len(probs) // num_splits
    for i in range(num_splits):
        part = probs[i * size : (i + 1) * size]
        marginal = part.mean(axis=0)
        divergences = [sum(p * np.log(p / q) for p, q in zip(row, marginal, strict=True)) for row in part]
        scores.append(np.exp(np.mean(divergences)))
    return np.mean(scores), np.sqrt(np.mean((scores - np.mean(scores)) ** 2))


def test_agrees_with_naive_sum():
    probs = np.random.RandomState(0).dirichlet(np.ones(6), 200)
    assert inception_score(probs, 10) == pytest.approx(naive(probs, 10), rel=1e-9)


def test_by_hand():
    """Sure and evenly spread over 4 classes: exp(log 4) = 4. Unsure about all: exp(0) = 1."""
    assert inception_score(np.tile(np.eye(4), (10, 1)), 10) == pytest.approx((4, 0))
    assert inception_score(np.full([20, 4], 0.25), 10) == pytest.approx((1, 0))


def test_order_matters_between_splits():
    probs = np.repeat(np.eye(2), 10, axis=0)
    assert inception_score(probs, 2)[0] == pytest.approx(1)
    assert inception_score(probs, 1)[0] == pytest.approx(2)
