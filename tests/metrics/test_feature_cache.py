import logging
import threading

import numpy as np
import pytest
import torch

from metrics import feature_cache, metric_utils
from metrics.detector import DetectorSpec, load
from metrics.metric_utils import MetricOptions, compute_feature_stats_for_dataset
from metrics.shared_features import SharedFeatures
from tests.helpers import image_bytes
from tests.metrics.toys import write_detector

CALL = {"return_features": True}


@pytest.fixture
def runs(monkeypatch):
    """Counts how often the detector really runs over the images."""
    counted = []
    original = metric_utils._run_on_dataset

    def counting(*args, **kwargs):
        counted.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(metric_utils, "_run_on_dataset", counting)
    return counted


def real_features(dataset_kwargs, detector_path, call=CALL, max_items=None, capture="capture_all", **options):
    opts = MetricOptions(dataset_kwargs=dataset_kwargs, device="cpu", **options)
    detector = load(DetectorSpec(detector_path), torch.device("cpu"))
    return compute_feature_stats_for_dataset(opts, detector, call, max_items, **{capture: True}), opts


def test_second_time_from_the_cache(dataset_kwargs, toy_detector, runs, cache_dir):
    first, opts = real_features(dataset_kwargs, toy_detector)
    second, _ = real_features(dataset_kwargs, toy_detector)
    assert len(runs) == 1
    assert np.array_equal(first.get_all(), second.get_all())
    assert [path.suffix for path in cache_dir.iterdir()] == [".npz"]
    assert opts.protocol["real_set"]["name"] == "images"
    assert len(opts.protocol["real_set"]["sha256"]) == 64


@pytest.mark.parametrize("kinds", [("capture_all", "capture_all"), ("capture_mean_cov", "capture_all")])
def test_two_runs_at_the_same_time_compute_once(
    kinds, dataset_kwargs, toy_detector, runs, cache_dir, monkeypatch
):
    """The second run comes while the first one computes, and wants another kind of statistics too."""
    monkeypatch.setattr(feature_cache, "_POLL_SEC", 0.01)
    counting, second_waits = metric_utils._run_on_dataset, threading.Event()
    others, waiting = [], []

    def slow(*args, **kwargs):
        others.append(threading.Thread(target=lambda: others.append(features(kinds[1]))))
        others[0].start()
        assert second_waits.wait(timeout=60)
        return counting(*args, **kwargs)

    def features(kind):
        return real_features(dataset_kwargs, toy_detector, capture=kind, shared=SharedFeatures())[0]

    monkeypatch.setattr(metric_utils, "_run_on_dataset", slow)
    monkeypatch.setattr(feature_cache._log, "warning", lambda text: (waiting.append(text), second_waits.set()))
    features(kinds[0])
    others[0].join(timeout=60)
    assert len(runs) == 1
    assert waiting == ["metric cache: another process computes features of these real images; waiting for it"]
    monkeypatch.setattr(metric_utils, "_run_on_dataset", counting)
    expected, _ = real_features(dataset_kwargs, toy_detector, cache=False)
    assert np.array_equal(others[1].get_all(), expected.get_all())
    assert {path.suffix for path in cache_dir.iterdir()} == {".npz"}


def test_a_lock_that_a_killed_process_left(dataset_kwargs, toy_detector, runs, cache_dir):
    first, _ = real_features(dataset_kwargs, toy_detector, capture="capture_mean_cov")
    (path,) = cache_dir.iterdir()
    path.unlink()
    path.with_suffix(".lock").touch()
    second, _ = real_features(dataset_kwargs, toy_detector, capture="capture_mean_cov")
    assert len(runs) == 2
    assert np.array_equal(first.get_mean_cov()[1], second.get_mean_cov()[1])


def test_one_changed_image(dataset_kwargs, toy_detector, runs, tmp_path):
    first, opts = real_features(dataset_kwargs, toy_detector)
    (tmp_path / "images" / "5.png").write_bytes(image_bytes(np.zeros([16, 16, 3], dtype=np.uint8)))
    second, changed_opts = real_features(dataset_kwargs, toy_detector)
    assert len(runs) == 2
    assert (first.get_all() != second.get_all()).any(axis=1).sum() == 1
    assert opts.protocol["real_set"]["sha256"] != changed_opts.protocol["real_set"]["sha256"]


def test_another_folder_with_the_same_images(dataset_kwargs, toy_detector, runs, tmp_path):
    real_features(dataset_kwargs, toy_detector)
    (tmp_path / "images").rename(tmp_path / "moved")
    real_features(dataset_kwargs | {"path": str(tmp_path / "moved")}, toy_detector)
    assert len(runs) <= 2  # the name of the set may count, nothing else of the path


def test_labels_do_not_count(dataset_kwargs, toy_detector, runs):
    real_features(dataset_kwargs | {"use_labels": True}, toy_detector)
    real_features(dataset_kwargs | {"use_labels": False}, toy_detector)
    assert len(runs) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": {"xflip": True}},
        {"dataset": {"max_size": 10}},
        {"max_items": 20},
        {"num_real": 20},
        {"call": {"no_output_bias": True}},
        {"capture": "capture_mean_cov"},
    ],
)
def test_everything_that_matters_counts(dataset_kwargs, toy_detector, runs, change):
    real_features(dataset_kwargs, toy_detector)
    real_features(dataset_kwargs | change.pop("dataset", {}), toy_detector, **change)
    assert len(runs) == 2


def test_another_detector_of_the_same_name(dataset_kwargs, runs, tmp_path):
    path = write_detector(tmp_path / "d.pt", seed=0)
    real_features(dataset_kwargs, path)
    write_detector(tmp_path / "d.pt", seed=1)
    real_features(dataset_kwargs, path)
    assert len(runs) == 2


def test_no_cache(dataset_kwargs, toy_detector, runs, cache_dir):
    real_features(dataset_kwargs, toy_detector, cache=False)
    assert not cache_dir.exists()
    real_features(dataset_kwargs, toy_detector)
    real_features(dataset_kwargs, toy_detector, cache=False)
    assert len(runs) == 3


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 cut short"])
def test_damaged_file_is_made_again(dataset_kwargs, toy_detector, runs, cache_dir, caplog, damage):
    first, _ = real_features(dataset_kwargs, toy_detector)
    (path,) = cache_dir.iterdir()
    path.write_bytes(damage)
    with caplog.at_level(logging.WARNING):
        second, _ = real_features(dataset_kwargs, toy_detector)
    assert "is damaged and will be computed again" in caplog.text
    assert np.array_equal(first.get_all(), second.get_all())
    real_features(dataset_kwargs, toy_detector)
    assert len(runs) == 2


class BareDataset(torch.utils.data.Dataset):
    """What a class of one's own may look like: no content_hash."""

    name = "bare"

    def __init__(self, value: int = 0):
        self.images = np.full([4, 3, 8, 8], value, dtype=np.uint8)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, idx):
        return self.images[idx], np.zeros(0, dtype=np.float32)


def test_data_set_without_a_hash_of_its_own(toy_detector, runs):
    bare = {"class_name": f"{__name__}.BareDataset"}
    for value in (0, 1, 0):
        real_features(bare | {"value": value}, toy_detector)
    assert len(runs) == 2
