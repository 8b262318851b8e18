"""Grids of sample images: which reals and labels they show, and how they become PNG files."""
import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from torch_utils.pixels import to_uint8

from .images import write_png

if TYPE_CHECKING:
    from .dataset import Dataset

MAX_PIXELS = (7680, 4320)  # width and height that a grid aims for
MOST_CELLS = 32  # in a row, and in a column


def choose_items(dataset: "Dataset") -> tuple[tuple[int, int], list[int]]:
    """The size of the grid (columns, rows) and the data set index of every cell, row by row.

    Unlabelled data are shown in random order; of labelled data every row shows one label, the labels taking turns.
    """
    _, height, width = dataset.image_shape
    columns = _number_of_cells(MAX_PIXELS[0] // width, least=7)
    rows = _number_of_cells(MAX_PIXELS[1] // height, least=4)
    rng = np.random.RandomState(0)
    supplies = [itertools.cycle(rng.permutation(members).tolist()) for members in _items_by_label(dataset)]
    supply_of_row = itertools.islice(itertools.cycle(supplies), rows)
    return (columns, rows), [next(supply) for supply in supply_of_row for _ in range(columns)]


def _number_of_cells(fitting: int, least: int) -> int:
    return min(max(fitting, least), MOST_CELLS)


def _items_by_label(dataset: "Dataset") -> list[list[int]]:
    """The indices of each label's items; of two vectors the one with the smaller last element comes first."""
    if not dataset.has_labels:
        return [list(range(len(dataset)))]
    labels = dataset.raw_labels().reshape(len(dataset), -1)
    in_order = np.lexsort(labels.T)
    is_first = (labels[in_order[1:]] != labels[in_order[:-1]]).any(axis=1)
    return [members.tolist() for members in np.split(in_order, np.flatnonzero(is_first) + 1)]


def save_grid(images: np.ndarray, path: str | os.PathLike, size: tuple[int, int]) -> None:
    """Writes images, uint8 [columns * rows, C, H, W] of 1 or 3 channels, as one PNG; `size` is (columns, rows)."""
    columns, rows = size
    tiles = [np.moveaxis(tile, 0, 2) for tile in images]
    lines = [np.hstack(tiles[columns * row : columns * (row + 1)]) for row in range(rows)]
    write_png(path, np.vstack(lines))


@torch.no_grad()
def generate(G: torch.nn.Module, z: torch.Tensor, c: torch.Tensor, batch: int) -> np.ndarray:
    """Images uint8 [N, C, H, W] of latents z [N, z_dim] and labels c [N, c_dim], `batch` at a time."""
    pairs = zip(z.split(batch), c.split(batch))
    images = [to_uint8(G(z=zs, c=cs, noise_mode="const")).cpu() for zs, cs in pairs]
    return torch.cat(images).numpy()


class SampleGrid:
    """The same latents and labels, drawn repeatedly as a generator improves.

    Args:
        dataset: gives the real images, and the labels of the generated ones.
        G: generator, drawn from as it is at the time.
        seed: of the latents.
        batch: images per pass.
        run_dir: where the PNG files go.
    """

    def __init__(self, dataset: "Dataset", G: Any, seed: int, batch: int, run_dir: str | os.PathLike) -> None:
        self.size, self._items = choose_items(dataset)
        self._dataset = dataset
        self._G = G
        self._batch = batch
        self._run_dir = Path(run_dir)
        device = next(G.parameters()).device
        z = torch.randn([len(self._items), G.z_dim], generator=torch.Generator().manual_seed(seed))
        self._z = z.to(device)
        self._c = torch.from_numpy(np.stack([dataset.get_label(item) for item in self._items])).to(device)

    def save_reals(self) -> None:
        """reals.png; nothing for a data set without real images."""
        if self._dataset.is_generated:
            return
        images = np.stack([self._dataset[item][0] for item in self._items])
        save_grid(images, self._run_dir / "reals.png", self.size)

    def save_fakes(self, name: str, G: torch.nn.Module | None = None) -> None:
        """The images of the generator, or of another one of the same latents and labels, as a file of that name."""
        images = generate(self._G if G is None else G, self._z, self._c, self._batch)
        save_grid(images, self._run_dir / name, self.size)
