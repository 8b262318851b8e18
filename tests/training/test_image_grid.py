"""Grids of samples: their size, their order, their bytes."""
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from tests import tiny
from tests.helpers import random_images, write_images
from torch_utils.pixels import PROJECTED, to_uint8
from training.data import image_grid
from training.data.dataset import ImageFolderDataset


class Shape:
    """What choose_items needs of an unlabelled data set."""

    has_labels = False

    def __init__(self, size: int, count: int = 10) -> None:
        self.image_shape = [3, size, size]
        self.count = count

    def __len__(self) -> int:
        return self.count


@pytest.mark.parametrize(
    ("side", "size"), [(16, (32, 32)), (128, (32, 32)), (256, (30, 16)), (512, (15, 8)), (1024, (7, 4)), (2048, (7, 4))]
)
def test_size(side: int, size: tuple[int, int]) -> None:
    assert image_grid.choose_items(Shape(side))[0] == size  # type: ignore[arg-type]


def test_unlabelled_items_are_shuffled_and_repeat() -> None:
    (columns, rows), items = image_grid.choose_items(Shape(1024, 5))  # type: ignore[arg-type]
    order = list(range(5))
    np.random.RandomState(0).shuffle(order)
    assert items == [order[i % 5] for i in range(columns * rows)]


def test_each_row_shows_one_label_in_turn(tmp_path: Path) -> None:
    dataset = ImageFolderDataset(tiny.write_data(tmp_path / "data", num=20, num_classes=3), use_labels=True)
    labels = [int(dataset.get_details(index).raw_label) for index in range(20)]
    groups = [[index for index in range(20) if labels[index] == label] for label in range(3)]
    (columns, rows), items = image_grid.choose_items(dataset)
    shown = np.array(items).reshape(rows, columns).tolist()
    for row, indices in enumerate(shown):
        assert {labels[index] for index in indices} == {row % 3}
    rng = np.random.RandomState(0)  # shuffles the groups, one after the other
    for label, group in enumerate(groups):
        rng.shuffle(group)
        in_turn = [index for row in range(label, rows, 3) for index in shown[row]]
        assert in_turn == [group[i % len(group)] for i in range(len(in_turn))]


def test_vector_labels_sort_by_their_last_element(tmp_path: Path) -> None:
    vectors = [[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]
    folder = write_images(tmp_path / "data", random_images(3, side=16), vectors)
    _, items = image_grid.choose_items(ImageFolderDataset(str(folder), use_labels=True))
    assert [items[0], items[32], items[64]] == [2, 1, 0]  # (0, 0), then (1, 0), then (0, 1)


def test_bytes() -> None:
    values = np.array([-2, -1, -1 + 0.4 / 127.5, -1 + 0.6 / 127.5, 0, 1 - 0.6 / 127.5, 1, 3], dtype=np.float32)
    assert to_uint8(torch.from_numpy(values)).tolist() == [0, 0, 0, 1, 128, 254, 255, 255]
    assert to_uint8(torch.tensor([-1.0, 0.0, 1.0]), PROJECTED).tolist() == [0, 127, 255]


@pytest.mark.parametrize("channels", [1, 3])
def test_grid_file(channels: int, tmp_path: Path) -> None:
    images = np.random.RandomState(0).randint(0, 256, [6, channels, 4, 4], dtype=np.uint8)
    image_grid.save_grid(images, tmp_path / "grid.png", (3, 2))
    with PIL.Image.open(tmp_path / "grid.png") as picture:
        assert picture.mode == {1: "L", 3: "RGB"}[channels]
        pixels = np.array(picture).reshape(8, 12, channels)
    for index in range(6):
        y, x = 4 * (index // 3), 4 * (index % 3)
        assert np.array_equal(pixels[y : y + 4, x : x + 4], images[index].transpose(1, 2, 0))
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]


def test_generate_in_chunks_is_generate_at_once() -> None:
    G = tiny.tiny_generator(c_dim=3)
    z, c = tiny.latents(7, 3)
    whole = image_grid.generate(G, z, c, 7)
    assert whole.shape == (7, 3, 16, 16)
    in_chunks = image_grid.generate(G, z, c, 3)
    assert np.abs(whole.astype(int) - in_chunks).max() <= 1  # sums of another order, before the fraction is cut off
    with torch.no_grad():
        assert np.array_equal(whole, to_uint8(G(z, c, noise_mode="const")).numpy())


def test_sample_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_grid, "MAX_PIXELS", (1, 1))
    dataset = ImageFolderDataset(tiny.write_data(tmp_path / "data", num_classes=3), use_labels=True)
    G = tiny.tiny_generator(c_dim=3)
    before = torch.random.get_rng_state()
    for name in ("a.png", "b.png"):
        image_grid.SampleGrid(dataset, G, seed=3, batch=5, run_dir=tmp_path).save_fakes(name)
    grid = image_grid.SampleGrid(dataset, G, seed=4, batch=5, run_dir=tmp_path)
    grid.save_fakes("c.png")
    grid.save_reals()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes() != (tmp_path / "c.png").read_bytes()
    _, items = image_grid.choose_items(dataset)
    with PIL.Image.open(tmp_path / "reals.png") as picture:
        pixels = np.array(picture)
    assert pixels.shape == (4 * 16, 7 * 16, 3)
    assert np.array_equal(pixels[16:32, 32:48], dataset[items[9]][0].transpose(1, 2, 0))
