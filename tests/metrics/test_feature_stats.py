import numpy as np
import pytest
import torch

from metrics.feature_stats import FeatureStats


@pytest.fixture
def x():
    return np.random.RandomState(0).randn(50, 6).astype(np.float32) + 3


@pytest.mark.parametrize("batch", [1, 7, 50])
def test_mean_and_covariance(x, batch):
    stats = FeatureStats(capture_mean_cov=True, capture_all=True)
    for start in range(0, 50, batch):
        stats.append(x[start : start + batch])
    mean, cov = stats.get_mean_cov()
    exact = x.astype(np.float64)
    assert mean == pytest.approx(exact.mean(axis=0), rel=1e-12)
    assert cov == pytest.approx(np.cov(exact, rowvar=False, bias=True), rel=1e-9, abs=1e-12)
    assert np.array_equal(stats.get_all(), x)
    assert stats.num_items == 50


def test_stops_at_max_items(x):
    stats = FeatureStats(capture_all=True, max_items=20)
    stats.append_torch(torch.from_numpy(x[:15]))
    assert not stats.is_full()
    stats.append_blocks(torch.from_numpy(x[15:]))
    assert stats.is_full()
    assert np.array_equal(stats.get_all_torch().numpy(), x[:20])


def test_saved_and_loaded(x, tmp_path):
    stats = FeatureStats(capture_all=True, capture_mean_cov=True)
    stats.append(x)
    stats.save(tmp_path / "stats.npz")
    loaded = FeatureStats.load(tmp_path / "stats.npz")
    assert loaded.num_items == 50
    assert loaded.num_features == 6
    assert np.array_equal(loaded.get_all(), x)
    assert all(np.array_equal(a, b) for a, b in zip(loaded.get_mean_cov(), stats.get_mean_cov(), strict=True))


def test_what_was_not_captured_is_not_there(x):
    stats = FeatureStats()
    stats.append(x)
    with pytest.raises(AssertionError, match="capture_all"):
        stats.get_all()
    with pytest.raises(AssertionError, match="capture_mean_cov"):
        stats.get_mean_cov()
