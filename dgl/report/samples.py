"""Images for the page: which latents and classes it shows, and how many it can afford at a resolution."""
import dataclasses

import numpy as np
import torch

from dnnlib.cli import seed_latents
from torch_utils.network_types import Generator
from training.data.images import table, truncated

from .labels import Choices

COLUMNS, ROWS = 6, 4  # of a grid
MAX_CLASSES = 10  # rows of a grid of a conditional network
SHOWN_PX = 128  # larger images are averaged down to at most this side before they are shown


def affordable(resolution: int, most: int, least: int) -> int:
    """How many images of a resolution to compute: `most` up to 64 px, fewer the more pixels they have."""
    return min(most, max(least, most * 64**2 // resolution**2))


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a grid of images is made of.

    Attributes:
        z: latents [rows * columns, z_dim].
        c: labels [rows * columns, c_dim].
        rows, columns: of the grid.
        classes: class or label of every row; None for networks without.
    """

    z: torch.Tensor
    c: torch.Tensor
    rows: int
    columns: int
    classes: list[str] | None


def grid_inputs(G: Generator, columns: int = COLUMNS, choices: Choices | None = None) -> Inputs:
    """The seeds 0, 1, ... row by row; of a conditional network, the same seeds in a row for each of up to ten classes.

    Args:
        G: any of the networks.
        columns: of the grid.
        choices: labels in place of the classes.
    """
    if not G.c_dim:
        count = ROWS * columns
        return Inputs(_latents(G, count), torch.zeros([count, 0]), ROWS, columns, None)
    if choices is None:
        numbers = range(G.c_dim)
        choices = {str(number): torch.eye(G.c_dim)[number : number + 1] for number in numbers}
    rows = min(len(choices), MAX_CLASSES)
    names = [list(choices)[round(i * (len(choices) - 1) / max(rows - 1, 1))] for i in range(rows)]
    c = torch.cat([choices[name] for name in names]).repeat_interleave(columns, dim=0)
    return Inputs(_latents(G, columns).repeat(rows, 1), c, rows, columns, names)


def seed_inputs(G: Generator, count: int, choices: Choices | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents [count, z_dim] of the seeds 0, 1, ..., and labels [count, c_dim], the classes or choices taking turns."""
    if not G.c_dim:
        return _latents(G, count), torch.zeros([count, 0])
    labels = torch.eye(G.c_dim) if choices is None else torch.cat(list(choices.values()))
    return _latents(G, count), labels[torch.arange(count) % len(labels)]


def _latents(G: Generator, count: int) -> torch.Tensor:
    return torch.from_numpy(seed_latents(list(range(count)), G.z_dim))


@torch.no_grad()
def generated(G: Generator, z: torch.Tensor, c: torch.Tensor, psi: float = 1) -> np.ndarray:
    """Images of latents [N, z_dim] and labels [N, c_dim], with constant noise: uint8 [N, H, W, C]."""
    device = next(G.parameters()).device
    batch = affordable(G.img_resolution, 16, 1)
    pairs = zip(z.to(device).split(batch), c.to(device).split(batch))
    return np.concatenate([truncated(G(zs, cs, truncation_psi=psi, noise_mode="const")) for zs, cs in pairs])


def shown(images: np.ndarray) -> np.ndarray:
    """Images [N, H, W, C] averaged down to at most SHOWN_PX: uint8 [N, H', W', C]."""
    factor = -(-images.shape[1] // SHOWN_PX)
    if factor == 1:
        return images
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    return torch.nn.functional.avg_pool2d(tensor, factor).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def tiled(images: np.ndarray, rows: int) -> np.ndarray:
    """Images [N, H, W, C] in rows, as one [rows * H, N / rows * W, C]."""
    return table(list(images), rows)


def small(images: np.ndarray) -> np.ndarray:
    """Images [N, H, W, C] as vectors of 8x8 pixels, float64 [N, 64 C]."""
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    return torch.nn.functional.adaptive_avg_pool2d(tensor, 8).flatten(1).numpy().astype(np.float64)
