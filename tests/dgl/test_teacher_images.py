"""A teacher's images as a data set: by index from the seed, the same for every number of ranks, resumed exactly."""
from typing import Any

import pytest
import torch

from dgl import teacher as teachers
from dgl.teacher_images import TeacherFeed, TeacherImages
from tests import tiny
from torch_utils import distributed
from training.data.feed import make_feed
from training.data.generated import images, latents

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    folder = tmp_path_factory.mktemp("teacher")
    return {c_dim: tiny.write_teacher(folder / f"{c_dim}.pkl", c_dim=c_dim) for c_dim in (0, 3)}


def test_latents_depend_on_seed_and_number_alone(paths: dict[int, str]) -> None:
    G = teachers.load(paths[3]).G_ema
    z, c = latents(G, 5, [7, 2, 10**9])
    assert z.shape == (3, 16)
    assert torch.equal(latents(G, 5, [2])[0], z[1:2])
    assert not torch.equal(latents(G, 6, [2])[0], z[1:2])
    assert c.argmax(dim=1).tolist() == [1, 2, 1]
    many, _ = latents(G, 0, range(2000))
    assert abs(float(many.mean())) < 0.02
    assert abs(float(many.std()) - 1) < 0.02


@pytest.mark.parametrize("c_dim", [0, 3])
def test_items_are_the_teachers_images(c_dim: int, paths: dict[int, str]) -> None:
    dataset = TeacherImages({"url": paths[c_dim]}, seed=4, use_labels=c_dim > 0)
    assert (dataset.resolution, dataset.num_channels, dataset.label_dim) == (16, 3, c_dim)
    G = teachers.load(paths[c_dim]).G_ema
    img, label = dataset[5]
    z, c = latents(G, 4, [5])
    expected = ((G(z, c, noise_mode="const")[0] * 127.5 + 127.5).round().clamp(0, 255)).to(torch.uint8)
    assert torch.equal(torch.from_numpy(img), expected)
    assert label.tolist() == c[0].tolist()


def feed_of(paths: dict[int, str], c_dim: int = 3, batch: int = 8, **options: Any) -> Any:
    state = options.pop("state", None)
    dataset = TeacherImages({"url": paths[c_dim]}, use_labels=True, **options)
    return make_feed(dataset, batch, seed=0, device=CPU, loader_kwargs={}, state=state)


def test_the_feed_goes_through_the_numbers(paths: dict[int, str]) -> None:
    feed = feed_of(paths)
    G = teachers.load(paths[3]).G_ema
    img, c = feed.next()
    expected, labels = images(G, 0, range(8))
    torch.testing.assert_close(img, expected.float() / 127.5 - 1)
    assert torch.equal(c, labels)
    torch.testing.assert_close(feed.next()[0], images(G, 0, range(8, 16))[0].float() / 127.5 - 1)


def test_ranks_share_the_stream(paths: dict[int, str], monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = feed_of(paths).next()
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        parts.append(feed_of(paths).next()[0])
    torch.testing.assert_close(torch.stack(parts, dim=1).flatten(0, 1), whole)


def test_the_feed_is_resumed_where_it_was(paths: dict[int, str]) -> None:
    feed = feed_of(paths)
    feed.next()
    state = feed.state_dict(8)
    assert torch.equal(feed_of(paths, state=state).next()[0], feed.next()[0])


def test_images_that_are_not_needed_yet_are_not_made(paths: dict[int, str], monkeypatch: pytest.MonkeyPatch) -> None:
    feed = feed_of(paths)
    with monkeypatch.context() as patch:
        patch.setattr("dgl.teacher_images.images", None)
        black, labels = feed.skip()
    assert (black.shape, labels.shape) == ((8, 3, 16, 16), (8, 3))
    assert (black == -1).all()
    assert torch.equal(feed.next()[0], _second(feed_of(paths)))


def _second(feed: TeacherFeed) -> torch.Tensor:
    feed.next()
    return feed.next()[0]


def test_random_labels(paths: dict[int, str]) -> None:
    labels = feed_of(paths).random_labels(100)
    assert labels.shape == (100, 3)
    assert labels.sum(dim=1).eq(1).all()
    assert labels.sum(dim=0).min() > 10
    assert feed_of(paths, c_dim=0).random_labels(5).shape == (5, 0)
