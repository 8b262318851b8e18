"""Images as bytes and as files."""
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch

from dnnlib.files import open_atomic
from torch_utils.pixels import GENERATED, PROJECTED, to_uint8

__all__ = ["GENERATED", "PROJECTED", "table", "truncated", "write_image", "write_png"]


def truncated(images: torch.Tensor, offset: float = GENERATED) -> np.ndarray:
    """Images [N, C, H, W], nominally in [-1, 1], as uint8 [N, H, W, C]: see `to_uint8`."""
    return to_uint8(images, offset).permute(0, 2, 3, 1).cpu().numpy()


def write_image(path: str | os.PathLike, pixels: np.ndarray) -> None:
    """Writes uint8 [H, W, C] in the format that the name ends in: .png, .jpg (quality 95) or .webp (lossless).

    A JPEG has no alpha; it is left out.
    """
    suffix = Path(path).suffix
    if suffix == ".png":
        return write_png(path, pixels)
    if suffix == ".jpg":
        pixels = pixels[:, :, :3] if pixels.shape[2] >= 3 else pixels[:, :, :1]
    options: dict[str, Any] = {"format": "WEBP", "lossless": True}
    if suffix == ".jpg":
        options = {"format": "JPEG", "quality": 95}
    picture = PIL.Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    with open_atomic(path, "wb") as f:
        picture.save(f, **options)


def table(images: Sequence[np.ndarray], rows: int | None = None) -> np.ndarray:
    """Images [H, W, C] in one, row by row; what is left of the last row is black.

    Args:
        images: of one size.
        rows: None makes the table as square as it gets, rather too wide.
    """
    columns = math.ceil(len(images) / rows if rows else math.sqrt(len(images)))
    empty = [np.zeros_like(images[0])] * (-len(images) % columns)
    cells = [*images, *empty]
    lines = [np.concatenate(cells[start : start + columns], axis=1) for start in range(0, len(cells), columns)]
    return np.concatenate(lines)


def write_png(path: str | os.PathLike, pixels: np.ndarray) -> None:
    """Writes uint8 [H, W, C] of 1 to 4 channels: grey, grey and alpha, RGB, RGBA."""
    picture = PIL.Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    with open_atomic(path, "wb") as f:
        picture.save(f, format="PNG")
