"""Grids of sample images: which reals and labels they show, and how they become PNG files."""
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .images import write_png

if TYPE_CHECKING:
    from .dataset import Dataset

MAX_PIXELS = (7680, 4320)  # width and height that a grid aims for


def choose_items(dataset: "Dataset") -> tuple[tuple[int, int], list[int]]:
    """The size of the grid (columns, rows) and the data set index of every cell, row by row.

    Unlabelled data are shown in random order; of labelled data every row shows one label, the labels taking turns.
    """
    _, height, width = dataset.image_shape
    columns = int(np.clip(MAX_PIXELS[0] // width, 7, 32))
    rows = int(np.clip(MAX_PIXELS[1] // height, 4, 32))
    rng = np.random.RandomState(0)
    if not dataset.has_labels:
        order = list(range(len(dataset)))
        rng.shuffle(order)
        return (columns, rows), [order[i % len(order)] for i in range(columns * rows)]

    groups: dict[tuple, list[int]] = {}
    for index in range(len(dataset)):
        label = tuple(dataset.get_details(index).raw_label.flat[::-1])
        groups.setdefault(label, []).append(index)
    labels = sorted(groups)
    for label in labels:
        rng.shuffle(groups[label])
    chosen: list[int] = []
    for row in range(rows):
        group = groups[labels[row % len(labels)]]
        chosen += [group[i % len(group)] for i in range(columns)]
        groups[labels[row % len(labels)]] = [group[(i + columns) % len(group)] for i in range(len(group))]
    return (columns, rows), chosen


def to_uint8(images: np.ndarray, low: float, high: float) -> np.ndarray:
    """Maps [low, high] to 0..255, rounded and clipped."""
    scaled = (np.asarray(images, dtype=np.float32) - low) * (255 / (high - low))
    return np.rint(scaled).clip(0, 255).astype(np.uint8)


def save_grid(
    images: np.ndarray,
    path: str | os.PathLike,
    value_range: tuple[float, float],
    size: tuple[int, int],
) -> None:
    """Writes images [columns * rows, C, H, W] of 1 or 3 channels as one PNG.

    Args:
        value_range: the values that become black and white.
        size: (columns, rows).
    """
    columns, rows = size
    _, channels, height, width = images.shape
    pixels = to_uint8(images, *value_range).reshape(rows, columns, channels, height, width)
    pixels = pixels.transpose(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels)
    write_png(path, pixels)


@torch.no_grad()
def generate(G: torch.nn.Module, z: torch.Tensor, c: torch.Tensor, batch: int) -> np.ndarray:
    """Images of latents with constant noise, `batch` at a time, as a float32 array [N, C, H, W]."""
    images = [G(z=zs, c=cs, noise_mode="const").cpu() for zs, cs in zip(z.split(batch), c.split(batch))]
    return torch.cat(images).numpy()


class SampleGrid:
    """The same latents and labels, drawn again and again as a generator improves.

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
        """reals.png."""
        images = np.stack([self._dataset[item][0] for item in self._items])
        save_grid(images, self._run_dir / "reals.png", (0, 255), self.size)

    def save_fakes(self, name: str) -> None:
        """The generator's images, as a file of that name."""
        save_grid(generate(self._G, self._z, self._c, self._batch), self._run_dir / name, (-1, 1), self.size)
