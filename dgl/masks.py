"""Masks that weigh the pixels of an image: bright inside, black or transparent outside."""
import numpy as np
import torch

from dnnlib.bounded import read_file
from dnnlib.errors import FileError, UserError
from training.data.files import MAX_FILE, BadFile
from training.data.pixels import read_picture

_BLACK = (0, 0, 0)


def read_mask(path: str, size: tuple[int, int], field: str, whose: str) -> torch.Tensor:
    """The brightness [H, W] of a picture on black, float32 from 0 to 1.

    Args:
        path: of the picture.
        size: height and width that it must have.
        field: the argument that names it.
        whose: images it must fit.

    Raises:
        UserError: the picture cannot be read, is not of this size, or has no bright pixel.
    """
    try:
        bright = read_picture(read_file(path, MAX_FILE), channels=1, background=_BLACK).pixels[:, :, 0]
    except FileError as error:
        raise UserError(f"{path} cannot be read as an image ({error.reason})", field=field) from None
    except BadFile as error:
        raise UserError(f"{path} cannot be read as an image ({error.reason})", field=field) from None
    if bright.shape != size:
        raise UserError(f"the mask {path} is {bright.shape[1]}x{bright.shape[0]}, {whose} images are "
                        f"{size[1]}x{size[0]}", field=field)
    if not bright.any():
        raise UserError(f"the mask {path} has no bright pixel", field=field)
    return torch.from_numpy(bright.astype(np.float32) / 255)
