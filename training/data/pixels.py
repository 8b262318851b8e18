"""One image: bytes to pixels, pixels to PNG bytes, and which images are refused. No torch."""

import io

import numpy as np
import PIL.Image

from .files import BadFile

MODE_OF_CHANNELS = {1: "L", 3: "RGB"}
_MODES = frozenset(MODE_OF_CHANNELS.values())
_MODES_WITH_ALPHA = frozenset({"RGBA", "LA", "PA", "RGBa", "La"})
_DEEP_MODES = "IF"  # I, I;16, I;16B, F, ...: PIL would clip their values to 255
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def decode_image(data: bytes, channels: int | None = None) -> np.ndarray:
    """Decodes an image file.

    Args:
        data: the file's bytes, in any format that PIL reads.
        channels: None takes greyscale (L) and RGB images as they are and refuses the rest; 1 or 3 converts
            any mode of 8 bits to greyscale or RGB, dropping an alpha channel.

    Returns:
        uint8 [H, W, C], C = 1 or 3.

    Raises:
        BadFile: the bytes are no readable image, or the mode is not accepted.
    """
    image = _open(data)
    if channels is not None:
        if image.mode[0] in _DEEP_MODES:
            raise BadFile("has more than 8 bits per channel and no agreed scale to 8", image.mode, image.size)
        image = image.convert(MODE_OF_CHANNELS[channels])
    elif image.mode not in _MODES:
        raise BadFile(_mode_problem(image.mode), image.mode, image.size)
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]


def _open(data: bytes) -> PIL.Image.Image:
    # Naming the format spares PIL its search, a fifth of the time at 32 pixels.
    formats = ("PNG",) if data.startswith(_PNG_SIGNATURE) else None
    try:
        image = PIL.Image.open(io.BytesIO(data), formats=formats)
        image.load()
    except PIL.UnidentifiedImageError as error:
        raise BadFile("cannot be read: not an image, or damaged at its start") from error
    except Exception as error:  # PIL's decoders raise whatever their parsers trip over: struct.error, SyntaxError...
        raise BadFile(f"cannot be read: {error}") from error
    return image


def _mode_problem(mode: str) -> str:
    what = "has an alpha channel" if mode in _MODES_WITH_ALPHA else f"has mode {mode}"
    return f"{what}, expected greyscale (L) or RGB"


def encode_png(pixels: np.ndarray) -> bytes:
    """Encodes uint8 [H, W, C] (C = 1 or 3) as a PNG with compression level 0, the fastest to decode."""
    buffer = io.BytesIO()
    to_pil(pixels).save(buffer, format="png", compress_level=0)
    return buffer.getvalue()


def to_pil(pixels: np.ndarray) -> PIL.Image.Image:
    """uint8 [H, W, C] with C = 1 or 3 as an L or RGB image."""
    return PIL.Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def check_square_power_of_two(pixels_shape: tuple[int, ...]) -> None:
    """Checks that [H, W, C] is square with a power of two as its side, the only sizes the networks take.

    Raises:
        BadFile: it is not.
    """
    height, width, num_channels = pixels_shape
    mode = MODE_OF_CHANNELS[num_channels]
    if height != width:
        raise BadFile("is not square", mode, (width, height))
    if height & (height - 1) != 0:
        raise BadFile("side is not a power of two", mode, (width, height))


def check_same_shape(pixels_shape: tuple[int, ...], expected: tuple[int, ...], reference: str) -> None:
    """Checks that [H, W, C] equals the expected shape; `reference` says whose shape that is.

    Raises:
        BadFile: it does not.
    """
    if tuple(pixels_shape) != tuple(expected):
        height, width, num_channels = expected
        expected_mode = MODE_OF_CHANNELS[num_channels]
        raise BadFile(f"expected {expected_mode} {width}x{height} as {reference}",
                       MODE_OF_CHANNELS[pixels_shape[2]], (pixels_shape[1], pixels_shape[0]))
