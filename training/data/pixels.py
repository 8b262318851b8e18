"""One image: bytes to pixels, pixels to PNG or JPEG bytes, and which images are refused. No torch."""
import dataclasses
import io
import struct
import warnings

import numpy as np
import PIL.Image
import PIL.ImageOps

from .files import BadFile
from .formats import FORMATS, unsupported_kind

MODE_OF_CHANNELS = {1: "L", 3: "RGB"}
MAX_PIXELS = 89_478_485  # Pillow's own limit: a quarter of a GiB as RGB
MIN_SIDE = 8  # pixels; the networks' lowest block makes 4x4, and the next one needs 8x8
WHITE = (255, 255, 255)

Colour = tuple[int, int, int]

_LOSSLESS = {"L": "L", "1": "L", "RGB": "RGB", "P": "RGB"}  # mode → the mode that shows the same picture
_MODES_WITH_ALPHA = frozenset({"RGBA", "LA", "PA", "RGBa", "La"})
_WITH_ALPHA: dict[int | None, str] = {2: "LA", 4: "RGBA"}
_DEEP_MODES = "IF"  # I, I;16, I;16B, F, ...: Pillow would clip their values to 255
_16_BIT_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
_16_BIT_FORMATS = frozenset({"PNG", "PPM"})  # of which mode I never holds more than 16 bits
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NO_IMAGE = "cannot be read: not an image, or damaged at its start"
_ORIENTATION = 0x0112  # EXIF tag
_EXIF_PLACES = frozenset({"exif", "xmp", "Raw profile type exif", "XML:com.adobe.xmp"})


@dataclasses.dataclass(frozen=True)
class Picture:
    """A decoded image, and what was done so that it looks as it does in a viewer.

    Attributes:
        image: of mode L or RGB, or LA or RGBA where transparency is kept.
        is_turned: the orientation in its EXIF data was applied.
        is_composed: transparency was composed on the background.
        is_first_frame: it is the first frame of an animation.
        is_reduced: it had 16 bits per channel.
    """

    image: PIL.Image.Image
    is_turned: bool = False
    is_composed: bool = False
    is_first_frame: bool = False
    is_reduced: bool = False

    @property
    def pixels(self) -> np.ndarray:
        """uint8 [H, W, C]."""
        pixels = np.asarray(self.image)
        return pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]


def read_picture(data: bytes, channels: int | None = None, background: Colour | None = None) -> Picture:
    """Decodes an image file as a viewer shows it: upright, with its palette, the first frame of several.

    Everything that takes images (data sets, their conversion, the projector, masks) uses this function. Of 16 bits per
    channel the upper 8 are taken.

    Args:
        data: the file's bytes, in one of `formats.FORMATS`.
        channels: None takes greyscale (L) and RGB images, with or without a palette, and refuses the rest; 1 or 3
            converts any mode to greyscale or RGB; 2 or 4 keep the transparency (LA, RGBA).
        background: what transparency is composed on; None is white with `channels`, and refuses transparency without.

    Raises:
        BadFile: the bytes are no readable image of these formats, or the mode is not accepted.
    """
    image, is_first_frame, was_turned = _open(data)
    turned = _upright(image)
    is_turned = was_turned or turned is not image
    upright = _reduced(turned, image.format)
    is_reduced = upright is not turned
    is_transparent = upright.mode in _MODES_WITH_ALPHA or "transparency" in upright.info
    if upright.mode[0] in _DEEP_MODES:
        raise BadFile("has more than 16 bits per channel and no agreed scale to 8", image.mode, image.size)
    if channels in _WITH_ALPHA:
        return Picture(upright.convert(_WITH_ALPHA[channels]), is_turned, False, is_first_frame, is_reduced)
    if is_transparent and channels is None and background is None:
        raise BadFile(_mode_problem(image.mode, is_transparent), image.mode, image.size)
    try:
        flat = _composed(upright, background or WHITE) if is_transparent else upright
        if channels is None and not is_transparent and flat.mode not in _LOSSLESS:
            raise BadFile(_mode_problem(image.mode, is_transparent), image.mode, image.size)
        mode = MODE_OF_CHANNELS[channels] if channels is not None else _LOSSLESS[flat.mode]
        flat = flat if flat.mode == mode else flat.convert(mode)
    except ValueError as error:
        raise BadFile(f"cannot be converted: {error}", image.mode, image.size) from error
    return Picture(flat, is_turned, is_transparent, is_first_frame, is_reduced)


def decode_image(data: bytes, channels: int | None = None, background: Colour | None = None) -> np.ndarray:
    """The pixels of `read_picture`.

    Returns:
        uint8 [H, W, C], C = 1 or 3.

    Raises:
        BadFile: the bytes are no readable image, or the mode is not accepted.
    """
    return read_picture(data, channels, background).pixels


def _open(data: bytes) -> tuple[PIL.Image.Image, bool, bool]:
    """The loaded image, whether it is the first of several, and whether Pillow has turned it upright already.

    Its size is checked before anything is decoded.
    """
    try:
        if data.startswith(_PNG_SIGNATURE):  # naming the format spares Pillow its search, a fifth of the time at 32 px
            _check_png_size(data)
            image = PIL.Image.open(io.BytesIO(data), formats=("PNG",))
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
                image = PIL.Image.open(io.BytesIO(data), formats=FORMATS)
        has_frames = image.format != "MPO" and bool(getattr(image, "is_animated", False))  # an MPO is one photograph
        is_turned = image.format == "TIFF" and _orientation(image) != 1  # Pillow turns these when it loads them
        image.load()
    except BadFile:
        raise
    except PIL.UnidentifiedImageError as error:
        kind = unsupported_kind(data)
        raise BadFile(f"is {kind}, which is not supported" if kind else _NO_IMAGE) from error
    except Exception as error:  # Pillow's decoders raise whatever their parsers trip over: struct.error, SyntaxError...
        raise BadFile(f"cannot be read: {error}") from error
    return image, has_frames, is_turned


def _check_png_size(data: bytes) -> None:
    if data[12:16] != b"IHDR" or len(data) < 24:
        return  # Pillow says what is wrong
    width, height = struct.unpack(">II", data[16:24])
    if width * height > MAX_PIXELS:
        raise BadFile(f"has {width}x{height} pixels, more than {MAX_PIXELS:,}")


def _upright(image: PIL.Image.Image) -> PIL.Image.Image:
    """The image turned as its EXIF data say; the same object if they say nothing."""
    if _EXIF_PLACES.isdisjoint(image.info) or _orientation(image) == 1:
        return image
    return PIL.ImageOps.exif_transpose(image)


def _reduced(image: PIL.Image.Image, file_format: str | None) -> PIL.Image.Image:
    """A greyscale image of 16 bits with the upper 8 of them, as Pillow makes of a colour image; others as they are."""
    if image.mode not in _16_BIT_MODES and not (image.mode == "I" and file_format in _16_BIT_FORMATS):
        return image
    values = np.asarray(image).astype(np.int32)
    grey = PIL.Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8))
    if isinstance(transparent := image.info.get("transparency"), int):
        grey.putalpha(PIL.Image.fromarray(((values != transparent) * 255).astype(np.uint8)))
    return grey


def _orientation(image: PIL.Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF data: viewers show the image as it is stored
        return 1
    return value if value in range(1, 9) else 1


def _composed(image: PIL.Image.Image, background: Colour) -> PIL.Image.Image:
    """An image with transparency on a plain background, RGB; greyscale images stay so on a grey background."""
    rgba = image.convert("RGBA")
    opaque = PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, (*background, 255)), rgba).convert("RGB")
    is_grey = image.mode in ("L", "LA", "La", "1") and len(set(background)) == 1
    return opaque.convert("L") if is_grey else opaque


def _mode_problem(mode: str, is_transparent: bool) -> str:
    if is_transparent:
        kind = "has an alpha channel" if mode in _MODES_WITH_ALPHA else "has a transparent colour"
    else:
        kind = f"has mode {mode}"
    return f"{kind}, expected greyscale (L) or RGB"


def encode_png(pixels: np.ndarray) -> bytes:
    """Encodes uint8 [H, W, C] (C = 1 or 3) as a PNG with compression level 0, the fastest to decode."""
    buffer = io.BytesIO()
    to_pil(pixels).save(buffer, format="png", compress_level=0)
    return buffer.getvalue()


def encode_jpeg(pixels: np.ndarray) -> bytes:
    """Encodes uint8 [H, W, C] (C = 1 or 3) as a JPEG of quality 95 with its colours at full resolution."""
    buffer = io.BytesIO()
    to_pil(pixels).save(buffer, format="jpeg", quality=95, subsampling=0)
    return buffer.getvalue()


def to_pil(pixels: np.ndarray) -> PIL.Image.Image:
    """uint8 [H, W, C] with C = 1 or 3 as an L or RGB image."""
    return PIL.Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def check_square_power_of_two(pixels_shape: tuple[int, ...]) -> None:
    """Checks that [H, W, C] is square with a power of two from 8 up as its side, the only sizes the networks take.

    Raises:
        BadFile: it is not.
    """
    height, width, num_channels = pixels_shape
    mode = MODE_OF_CHANNELS[num_channels]
    if height != width:
        raise BadFile("is not square", mode, (width, height))
    if height & (height - 1) != 0:
        raise BadFile("side is not a power of two", mode, (width, height))
    if height < MIN_SIDE:
        raise BadFile(f"side is below {MIN_SIDE}, the smallest that the networks take", mode, (width, height))


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
