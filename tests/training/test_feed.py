"""The feed of a data set: batches that are passed over are not loaded, and those behind them keep their order."""
from typing import Any

import pytest
import torch

from tests import tiny
from torch_utils import loader_workers
from training.data.dataset import ImageFolderDataset
from training.data.feed import DataFeed

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ImageFolderDataset:
    path = tiny.write_data(tmp_path_factory.mktemp("data") / "images", num=12, num_classes=3)
    return ImageFolderDataset(path, use_labels=True)


def feed_of(dataset: ImageFolderDataset, state: Any = None) -> DataFeed:
    return DataFeed(dataset, 4, seed=0, device=CPU, loader_kwargs={"num_workers": 0}, state=state)


def test_batches_that_are_skipped_are_not_loaded(dataset: ImageFolderDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    feed, whole = feed_of(dataset), feed_of(dataset)
    with monkeypatch.context() as patch:
        patch.setattr(loader_workers, "batches", None)
        black, labels = feed.skip()
        feed.skip()
    assert (black.shape, labels.shape, black.device) == ((4, 3, 16, 16), (4, 3), CPU)
    assert (black == -1).all()
    assert not labels.any()
    for _ in range(2):
        whole.next()
    for _ in range(2):
        assert all(torch.equal(a, b) for a, b in zip(feed.next(), whole.next()))
    assert not torch.equal(feed.skip()[0], black), "the loader is ahead: a batch is dropped"


def test_a_feed_is_resumed_among_skipped_batches(dataset: ImageFolderDataset) -> None:
    feed, whole = feed_of(dataset), feed_of(dataset)
    feed.skip()
    again = feed_of(dataset, feed.state_dict(4))
    again.skip()
    for _ in range(2):
        whole.next()
    assert torch.equal(again.next()[0], whole.next()[0])


def test_the_start_of_the_loader_draws_no_random_number(dataset: ImageFolderDataset) -> None:
    torch.manual_seed(0)
    feed_of(dataset).next()
    drawn = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(3))
