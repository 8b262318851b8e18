"""Fixtures of the metric tests. The cache is a fresh folder for each test."""
import pytest

import dnnlib
from tests.metrics import toys


@pytest.fixture(autouse=True)
def cache_dir(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setattr(dnnlib.urls, "_cache_dir", str(folder))
    return folder / "gan-metrics"


@pytest.fixture(scope="session")
def toy_detector(tmp_path_factory):
    """Path of a detector called toy."""
    return toys.write_detector(tmp_path_factory.mktemp("detector") / "toy.pt")


@pytest.fixture
def dataset_kwargs(tmp_path):
    return toys.write_dataset(tmp_path / "images")
