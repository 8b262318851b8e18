"""Two processes give what one gives."""
import json
import os

import numpy as np
import pytest
import torch

import dnnlib
from dnnlib.errors import UserError
from metrics.detector import INCEPTION
from metrics.metric_main import calc_metric
from metrics.metric_utils import compute_feature_stats_for_dataset, compute_feature_stats_for_generator
from metrics.options import MetricOptions
from metrics.precision_recall import precision_recall
from tests.metrics.toys import ToyGenerator
from torch_utils import distributed

METRICS = ["fid50k_full", "kid50k_full", "pr50k3_full", "is50k", "ppl_zfull"]
SAME = 1e-5  # relative; the detector sees the real images in other batches, which rounds differently
NUM_GEN = 150  # three blocks, so that the second process runs past the end


def measure(out_dir, cache_dir, dataset_kwargs, detector):
    """Runs on every rank: all metrics, and precision and recall of an odd number of points."""
    torch.set_num_threads(1)
    dnnlib.util.set_cache_dir(cache_dir)
    distributed.init("cpu")
    options = {"G": ToyGenerator(), "dataset_kwargs": dataset_kwargs, "num_gen": NUM_GEN, "detectors": [detector]}
    actual = {metric: calc_metric(metric, device="cpu", **options) for metric in METRICS}
    np.savez(os.path.join(out_dir, f"rank{distributed.rank()}.npz"), **features(options))
    rng = np.random.RandomState(0)
    points = precision_recall(torch.from_numpy(rng.randn(31, 4)), torch.from_numpy(rng.randn(27, 4)), batch=5)
    with open(os.path.join(out_dir, f"rank{distributed.rank()}.json"), "w") as file:
        results = {metric: result.results for metric, result in actual.items()}
        json.dump({"results": results, "num_gpus": actual["is50k"].num_gpus, "points": points}, file)
    distributed.shutdown()


def features(options):
    """The features [n, F] that the metrics are computed from."""
    opts = MetricOptions(**options, device="cpu", cache=False)
    detector = opts.load_detector(INCEPTION)
    call = {"detector_kwargs": {"return_features": True}, "capture_all": True}
    real = compute_feature_stats_for_dataset(opts, detector, **call)
    generated = compute_feature_stats_for_generator(opts, detector, max_items=NUM_GEN, **call)
    return {"real": real.get_all(), "generated": generated.get_all()}


def results_of(folder, rank):
    return json.loads((folder / f"rank{rank}.json").read_text())


@pytest.fixture
def one_process(tmp_path, dataset_kwargs, toy_detector):
    folder = tmp_path / "one"
    folder.mkdir()
    measure(str(folder), str(tmp_path / "cache1"), dataset_kwargs, toy_detector)
    return results_of(folder, 0)


def test_two_processes(tmp_path, dataset_kwargs, toy_detector, one_process):
    args = (str(tmp_path), str(tmp_path / "cache2"), dataset_kwargs, toy_detector)
    distributed.launch(measure, args, num_procs=2, timeout_sec=60)
    first, second = results_of(tmp_path, 0), results_of(tmp_path, 1)
    assert first == second
    assert first["num_gpus"] == 2
    assert first["points"] == one_process["points"]
    expected = np.load(tmp_path / "one" / "rank0.npz")
    for rank in (0, 1):
        loaded = np.load(tmp_path / f"rank{rank}.npz")
        assert len(loaded["generated"]) == NUM_GEN
        for name in ("real", "generated"):
            np.testing.assert_allclose(loaded[name], expected[name], rtol=SAME, atol=SAME)
    for metric in METRICS:
        assert first["results"][metric] == pytest.approx(one_process["results"][metric], rel=SAME)


def without_detector(dataset_kwargs):
    distributed.init("cpu")
    with pytest.raises(UserError, match="no such file"):
        calc_metric(
            "fid50k_full", G=ToyGenerator(), dataset_kwargs=dataset_kwargs, detectors=["/nowhere/d.pt"], device="cpu"
        )
    distributed.barrier()  # nobody is left waiting
    distributed.shutdown()


def test_missing_detector_is_an_error_on_every_rank(dataset_kwargs):
    assert distributed.launch(without_detector, (dataset_kwargs,), num_procs=2, timeout_sec=60) is None
