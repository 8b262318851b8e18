"""Regions of interest: a mask image, or a function that the user names."""
import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from dnnlib.errors import UserError

from .masks import read_mask

Roi = Callable[[torch.Tensor], torch.Tensor]


def load(text: str, size: tuple[int, int]) -> Roi:
    """What --roi names: MASK.png (bright is inside) or MODULE:FUNCTION.

    Args:
        text: a module is looked for in the current directory first. Its function takes images [1, C, H, W] in [-1, 1]
            and gives a mask [H, W], tensor or array: boolean, or whole numbers that are not 0 inside, or 0.0 and 1.0.
        size: height and width of the images; a mask of another size is refused.

    Returns:
        A function of images [1, C, H, W] in [-1, 1] that gives a mask [H, W], boolean on the CPU. It raises a
        UserError where the user's function fails or gives something else.

    Raises:
        UserError: the file or the function cannot be had; the message names it.
    """
    if os.path.splitext(text)[1].lower() in (".png", ".jpg", ".jpeg", ".bmp", ".webp"):
        mask = read_mask(text, size, "roi", "the network's") > 0.5
        if not mask.any():
            raise UserError(f"the mask {text} has no bright pixel, so no region is of interest", field="roi")
        return lambda img: mask
    function = _function(text)

    def checked(img: torch.Tensor) -> torch.Tensor:
        try:
            with _current_directory_first():
                mask = function(img)
        except Exception as error:
            shape = list(img.shape)
            raise UserError(f"{text} failed on an image of shape {shape} ({_reason(error)})", field="roi") from error
        return _as_mask(mask, text, img)

    return checked


def _function(text: str) -> Callable[[torch.Tensor], Any]:
    module, _, name = text.partition(":")
    if not module or not name:
        raise UserError(f"expected MASK.png or MODULE:FUNCTION, found {text!r}", field="roi")
    if module.startswith("."):
        raise UserError(f"{module} in {text!r} is a relative name; give the module's full name", field="roi")
    try:
        with _current_directory_first():
            function = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # a script without a guard ends the process when it is imported
        raise UserError(f"{text} cannot be imported ({_reason(error)})", field="roi") from error
    if not callable(function):
        raise UserError(f"{text} is no function but a {type(function).__name__}", field="roi")
    return function


@contextlib.contextmanager
def _current_directory_first() -> Iterator[None]:
    """What the user's code adds to the search path stays."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(here)


def _reason(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _as_mask(result: object, text: str, img: torch.Tensor) -> torch.Tensor:
    size = tuple(img.shape[2:])
    wanted = f"{text}: expected a mask of shape {list(size)}"
    try:
        mask = torch.as_tensor(np.ascontiguousarray(result) if isinstance(result, np.ndarray) else result).cpu()
    except (TypeError, ValueError, RuntimeError):
        raise UserError(f"{wanted}, tensor or array, found a {type(result).__name__}", field="roi") from None
    if mask.shape[-2:] != size or mask.numel() != size[0] * size[1]:
        raise UserError(f"{wanted}, found {list(mask.shape)}", field="roi")
    if mask.is_complex() or (mask.is_floating_point() and not bool(((mask == 0) | (mask == 1)).all())):
        raise UserError(f"{wanted} of True and False, found {str(mask.dtype).removeprefix('torch.')} values; compare "
                        "them with a threshold, e.g. return mask > 0.5", field="roi")
    return mask.reshape(size) != 0
