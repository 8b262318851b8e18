import json
import math
import os

import numpy as np
import pytest
import torch

from metrics import metric_main, metric_utils
from metrics.detector import DetectorSpec, DetectorUnavailable
from metrics.metric_main import (
    UnknownMetric,
    calc_metric,
    is_valid_metric,
    list_valid_metrics,
    register_metric,
    report_metric,
)
from metrics.shared_features import SharedFeatures
from tests.metrics.toys import ToyGenerator, write_dataset

ALL = [
    *("fid50k_full", "kid50k_full", "pr50k3_full", "ppl2_wend", "is50k", "agreement"),
    *("fid50k", "kid50k", "pr50k3", "ppl_zfull", "ppl_wfull", "ppl_zend", "ppl_wend"),
]
GENERIC_KEYS = {
    "fid": ["fd@toy"],
    "kid": ["kd@toy"],
    "pr5": ["precision@toy", "recall@toy"],
    "is5": ["is@toy_mean", "is@toy_std"],
    "ppl": ["ppl@toy"],
}


def calc(metric, toy_detector, dataset_kwargs, **options):
    options = {"G": ToyGenerator(), "num_gen": 40, "detectors": [toy_detector], "device": "cpu"} | options
    return calc_metric(metric, dataset_kwargs=dataset_kwargs, **options)


def test_listing():
    assert list_valid_metrics() == ALL
    assert is_valid_metric("fid50k_full")
    assert not is_valid_metric("fid50k_ful")


def test_unknown_metric():
    with pytest.raises(UnknownMetric, match=r"no metric is called 'fid'; valid ones: fid50k_full, kid50k_full, .*wend"):
        calc_metric("fid")


def test_register(monkeypatch):
    monkeypatch.setattr(metric_main, "_metrics", {})

    @register_metric
    def count(opts):
        return {"count": 2}

    register_metric(count)
    assert list_valid_metrics() == ["count"]
    assert calc_metric("count").results == {"count": 2.0}
    with pytest.raises(ValueError, match="there already is a metric count"):

        @register_metric
        def count(opts):
            return {}


@pytest.mark.parametrize("metric", [metric for metric in ALL if metric != "agreement"])
def test_every_metric_runs_and_names_its_detector(metric, toy_detector, dataset_kwargs):
    result = calc(metric, toy_detector, dataset_kwargs)
    assert list(result.results) == GENERIC_KEYS[metric[:3]]
    assert all(math.isfinite(value) for value in result.results.values())
    assert result.metric == metric
    assert not result.comparable


def test_protocol(toy_detector, dataset_kwargs):
    protocol = calc("fid50k_full", toy_detector, dataset_kwargs, seed=7, num_real=20, batch_gen=5).protocol
    digests = protocol["detector"].pop("sha256"), protocol["real_set"].pop("sha256")
    assert all(len(digest) == 64 for digest in digests)
    assert protocol == {
        "seed": 7,
        "device": "cpu",
        "torch": torch.__version__,
        "detector": {"name": "toy"},
        "num_real": 20,
        "real_set": {"name": "images", "xflip": False},
        "num_gen": 40,
        "batch_gen": 5,
        "G_kwargs": {},
        "dtype": "float32",
    }


@pytest.mark.parametrize(("metric", "doubled"), [("fid50k_full", False), ("fid50k", True)])
def test_mirroring_is_only_for_the_older_names(metric, doubled, toy_detector, dataset_kwargs):
    options = dataset_kwargs | {"xflip": True, "max_size": 5}
    protocol = calc(metric, toy_detector, options).protocol
    assert protocol["real_set"]["xflip"] == doubled
    assert protocol["num_real"] == 24 * (1 + doubled)


def test_usual_name_only_for_the_published_detector(toy_detector, dataset_kwargs, monkeypatch):
    from metrics import frechet_inception_distance
    from metrics.detector import load

    digest = load(DetectorSpec(toy_detector), torch.device("cpu")).sha256
    monkeypatch.setattr(frechet_inception_distance, "INCEPTION", DetectorSpec(toy_detector, digest))
    result = calc("fid50k_full", toy_detector, dataset_kwargs)
    assert list(result.results) == ["fid50k_full"]
    assert not result.comparable  # because of --num-gen
    monkeypatch.setattr(frechet_inception_distance, "INCEPTION", DetectorSpec(toy_detector, "0" * 64))
    assert list(calc("fid50k_full", toy_detector, dataset_kwargs).results) == ["fd@toy"]


@pytest.mark.parametrize("metric", ["fid50k_full", "kid50k_full", "pr50k3_full", "is50k"])
def test_batch_does_not_matter(metric, toy_detector, dataset_kwargs):
    quiet = {"noise_mode": "const"}  # random noise is drawn per generator call
    result = [
        calc(metric, toy_detector, dataset_kwargs, batch_gen=batch, G_kwargs=quiet).results for batch in (1, 7, 64)
    ]
    assert result[0] == pytest.approx(result[1], rel=1e-3)
    assert result[0] == pytest.approx(result[2], rel=1e-3)


def test_metrics_of_one_network_share_features(toy_detector, dataset_kwargs, monkeypatch):
    metrics = ("fid50k_full", "kid50k_full", "pr50k3_full", "is50k")
    alone = {name: calc(name, toy_detector, dataset_kwargs, cache=False) for name in metrics}
    runs = []
    for name in ("_run_on_generator", "_run_on_dataset"):
        function = getattr(metric_utils, name)

        def counted(*args, function=function, **kwargs):
            runs.append(function.__name__)
            return function(*args, **kwargs)

        monkeypatch.setattr(metric_utils, name, counted)
    shared = SharedFeatures()
    for name in metrics:
        result = calc(name, toy_detector, dataset_kwargs, cache=False, shared=shared)
        assert result.results == alone[name].results
        assert result.protocol == alone[name].protocol
    assert runs == ["_run_on_dataset", "_run_on_generator", "_run_on_generator"]  # the last for class probabilities
    for change in ({"seed": 1}, {"num_gen": 39}, {"batch_gen": 5}, {"G_kwargs": {"truncation_psi": 0.5}}):
        runs.clear()
        calc("kid50k_full", toy_detector, dataset_kwargs, cache=False, shared=shared, **change)
        assert runs == ["_run_on_generator"]


def test_same_seed_same_numbers(toy_detector, dataset_kwargs):
    first, again, other = (calc("fid50k_full", toy_detector, dataset_kwargs, seed=seed).results for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_global_random_numbers_stay_untouched(toy_detector, dataset_kwargs):
    G = ToyGenerator()
    np.random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    for metric in ("kid50k_full", "ppl2_wend"):
        calc(metric, toy_detector, dataset_kwargs, G=G)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]


def test_the_generator_stays_untouched(toy_detector, dataset_kwargs):
    G = ToyGenerator().train()
    before = {name: value.clone() for name, value in G.state_dict().items()}
    calc("ppl2_wend", toy_detector, dataset_kwargs, G=G)
    assert G.training
    assert all(torch.equal(value, before[name]) for name, value in G.state_dict().items())


def test_grey_conditional(toy_detector, tmp_path):
    dataset = write_dataset(tmp_path / "labelled", num_classes=4)
    result = calc("is50k", toy_detector, dataset, G=ToyGenerator(c_dim=4, img_channels=1))
    assert result.results["is@toy_mean"] >= 1


def test_detector_that_cannot_be_had(dataset_kwargs, tmp_path):
    with pytest.raises(DetectorUnavailable, match=r"no such file; pass a TorchScript file as `detector=PATH`"):
        calc("fid50k_full", str(tmp_path / "none.pt"), dataset_kwargs)


def test_report(tmp_path, capsys):
    result = {
        "results": {"fd@toy": 1.5},
        "metric": "fid50k_full",
        "total_time": 2.0,
        "total_time_str": "2s",
        "num_gpus": 1,
        "comparable": False,
        "protocol": {"seed": 0},
    }
    report_metric(result, run_dir=str(tmp_path), snapshot_pkl=str(tmp_path / "network-snapshot-000004.pkl"))
    report_metric(result, run_dir=str(tmp_path / "gone"), snapshot_pkl=str(tmp_path / "x.pkl"))
    report_metric(result)
    lines = capsys.readouterr().out.splitlines()
    rows = [json.loads(line) for line in lines]
    usual = ["results", "metric", "total_time", "total_time_str", "num_gpus", "snapshot_pkl", "timestamp"]
    assert [list(row) for row in rows] == [[*usual, "comparable", "protocol"]] * 3
    assert rows[0]["snapshot_pkl"] == "network-snapshot-000004.pkl"
    assert rows[1]["snapshot_pkl"] == os.path.join("..", "x.pkl")
    assert rows[2]["snapshot_pkl"] is None
    assert (tmp_path / "metric-fid50k_full.jsonl").read_text() == lines[0] + "\n"
    assert not (tmp_path / "gone").exists()


def test_real_images_are_the_best(toy_detector, dataset_kwargs, tmp_path):
    """Convention: a generator that repeats the real images is close to them, an untrained one is not."""

    class Replay(ToyGenerator):
        def __init__(self, images):
            super().__init__()
            self.register_buffer("images", images)

        def forward(self, z, c, **_):
            index = (z[:, 0].abs() * 1e6).long() % len(self.images)
            return self.images[index]

    from dnnlib.util import construct_class_by_name

    dataset = construct_class_by_name(**dataset_kwargs)
    images = torch.stack([torch.from_numpy(dataset[i][0]) for i in range(len(dataset))]).float() / 127.5 - 1
    close = calc("fid50k_full", toy_detector, dataset_kwargs, G=Replay(images), num_gen=500).results["fd@toy"]
    far = calc("fid50k_full", toy_detector, dataset_kwargs, num_gen=500).results["fd@toy"]
    assert 0 <= close < far / 10
