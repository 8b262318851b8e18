"""Crops and resizes of dataset_tool.py. No torch."""
from collections.abc import Callable

import numpy as np
import PIL.Image

from .files import DatasetError
from .pixels import to_pil

Transform = Callable[[np.ndarray], np.ndarray | None]

RESIZE_FILTERS = {"lanczos": PIL.Image.Resampling.LANCZOS, "box": PIL.Image.Resampling.BOX}
CROPS = ("center-crop", "center-crop-wide")


def make_transform(crop: str | None, width: int | None, height: int | None, resize_filter: str) -> Transform:
    """Makes the function that brings an image to its stored form: uint8 [H, W, C] → uint8 [H', W', C], or None.

    None as crop: resize to width x height; a side that is None stays as it is.
    center-crop: the central square of the short side, resized to width x height.
    center-crop-wide: as many central rows as give the aspect ratio, resized to width x height and pasted centred
    on a black square of side width. Images that this would enlarge give None.

    Raises:
        DatasetError: a crop without both width and height, or center-crop-wide to more rows than columns.
    """
    resample = RESIZE_FILTERS[resize_filter]
    if crop is None:
        return lambda pixels: _resize(pixels, width or pixels.shape[1], height or pixels.shape[0], resample)
    if width is None or height is None:
        raise DatasetError(f"{crop} needs the output size, pass `resolution=WxH`", "transform")
    if crop == "center-crop":
        return lambda pixels: _resize(_central_square(pixels), width, height, resample)
    if height > width:
        raise DatasetError(f"{crop} makes wide images, found {width}x{height}; use center-crop", "transform")
    return lambda pixels: _center_crop_wide(pixels, width, height, resample)


def centre_resized(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """The largest central part of an image [H, W, C] that has the shape of width x height, brought to that size."""
    rows, columns = pixels.shape[:2]
    kept = max(min(rows, columns * height // width), 1), max(min(columns, rows * width // height), 1)
    return _resize(_centre(pixels, *kept), width, height, RESIZE_FILTERS["lanczos"])


def _resize(pixels: np.ndarray, width: int, height: int, resample: PIL.Image.Resampling) -> np.ndarray:
    if pixels.shape[:2] == (height, width):
        return pixels
    resized = np.asarray(to_pil(pixels).resize((width, height), resample))
    return resized.reshape(height, width, pixels.shape[2])


def _center_crop_wide(
    pixels: np.ndarray, width: int, height: int, resample: PIL.Image.Resampling
) -> np.ndarray | None:
    source_height, source_width, _ = pixels.shape
    num_rows = round(width * source_height / source_width)
    if width > source_width or height > num_rows:
        return None
    resized = _resize(_centre(pixels, num_rows, source_width), width, height, resample)
    above, below = (width - height) // 2, (width - height + 1) // 2
    return np.pad(resized, [(above, below), (0, 0), (0, 0)])


def _central_square(pixels: np.ndarray) -> np.ndarray:
    side = min(pixels.shape[:2])
    return _centre(pixels, side, side)


def _centre(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """The central part of this size; of an odd rest, the smaller half is cut off above and on the left."""
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top:top + height, left:left + width]
