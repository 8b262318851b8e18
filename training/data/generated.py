"""A generator's own images, by number from a seed: the same wherever they are made."""
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from torch_utils.network_types import Generator

CHUNK = 16  # images per pass


def latents(G: Generator, seed: int, indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """z [N, z_dim] and one-hot labels c [N, c_dim] of image numbers, which depend on seed and number alone.

    Classes take turns.
    """
    rows = []
    for index in indices:
        random = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, index]))
        rows.append(random.standard_normal(G.z_dim, dtype=np.float32))
    z = torch.from_numpy(np.stack(rows))
    classes = torch.tensor(indices) % max(G.c_dim, 1)
    return z, torch.eye(G.c_dim)[classes] if G.c_dim else torch.zeros([len(z), 0])


@torch.no_grad()
def images(G: Generator, seed: int, indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The images of these numbers, uint8 [N, C, H, W], and their labels [N, c_dim], on G's device.

    Noise is constant, and there is no truncation.
    """
    device = next(G.parameters()).device
    parts = []
    for start in range(0, len(indices), CHUNK):
        z, c = (tensor.to(device) for tensor in latents(G, seed, indices[start : start + CHUNK]))
        img = G(z, c, noise_mode="const") if hasattr(G, "synthesis") else G(z, c)
        parts.append(((img.float() * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8), c))
    return torch.cat([img for img, _ in parts]), torch.cat([c for _, c in parts])


def stream(G: Generator, count: int, seed: int = 0) -> Iterator[np.ndarray]:
    """The first images of a generator, uint8 [H, W, C] each, made on demand."""
    for start in range(0, count, CHUNK):
        img, _ = images(G, seed, range(start, min(start + CHUNK, count)))
        yield from img.permute(0, 2, 3, 1).cpu().numpy()
