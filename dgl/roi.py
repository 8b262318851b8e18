"""Regions of interest: a mask image, or a function of the user's."""
import importlib
import os
from collections.abc import Callable

import torch

from dnnlib.util import UserError

Roi = Callable[[torch.Tensor], torch.Tensor]


def load(text: str, resolution: int) -> Roi:
    """What --roi names: MASK.png (bright is inside) or MODULE:FUNCTION.

    Args:
        resolution: side of the images; a mask of another size is refused.

    Returns:
        A function of images [1, C, H, W] in [-1, 1] that gives a mask [H, W].

    Raises:
        UserError: the file or the function cannot be had; the message names it.
    """
    if os.path.splitext(text)[1].lower() in (".png", ".jpg", ".jpeg", ".bmp", ".webp"):
        mask = _mask(text, resolution)
        return lambda img: mask
    module, _, name = text.partition(":")
    if not name:
        raise UserError(f"--roi: expected MASK.png or MODULE:FUNCTION, got {text!r}")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"--roi: {text} cannot be imported ({error})") from None
    if not callable(function):
        raise UserError(f"--roi: {text} is no function but a {type(function).__name__}")
    return function


def _mask(path: str, resolution: int) -> torch.Tensor:
    import numpy as np
    import PIL.Image

    try:
        with PIL.Image.open(path) as picture:
            pixels = np.asarray(picture.convert("L"))
    except OSError as error:
        raise UserError(f"--roi: {path} cannot be read as an image ({error})") from None
    if pixels.shape != (resolution, resolution):
        raise UserError(f"--roi: the mask {path} is {pixels.shape[1]}x{pixels.shape[0]}, the network's images are "
                        f"{resolution}x{resolution}")
    mask = torch.from_numpy(pixels > 127)
    if not mask.any():
        raise UserError(f"--roi: the mask {path} has no bright pixel, so no region is of interest")
    return mask
