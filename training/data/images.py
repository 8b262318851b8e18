"""Images as bytes and as PNG files."""
import os

import numpy as np
import PIL.Image
import torch

from dnnlib.files import open_atomic
from torch_utils.pixels import GENERATED, PROJECTED, to_uint8

__all__ = ["GENERATED", "PROJECTED", "truncated", "write_png"]


def truncated(images: torch.Tensor, offset: float = GENERATED) -> np.ndarray:
    """Images [N, C, H, W], nominally in [-1, 1], as uint8 [N, H, W, C]: see `to_uint8`."""
    return to_uint8(images, offset).permute(0, 2, 3, 1).cpu().numpy()


def write_png(path: str | os.PathLike, pixels: np.ndarray) -> None:
    """Writes uint8 [H, W, C] of 1 to 4 channels: grey, grey and alpha, RGB, RGBA."""
    picture = PIL.Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    with open_atomic(path, "wb") as f:
        picture.save(f, format="PNG")
