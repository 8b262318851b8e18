"""Which files are images here: the allow-list of formats, and the kinds that are known and not supported. No torch.

Formats that Pillow hands to other programs (PostScript) or that are rare and little tested are not on the list.
"""
import os

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # Pillow's names
EXTENSIONS = frozenset({
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm",
})  # fmt: skip

# Extension → what people call such a file. Camera raws are TIFF files inside, with a thumbnail as their first image.
_UNSUPPORTED = {
    **dict.fromkeys((".heic", ".heif"), "a HEIC image"),
    **dict.fromkeys((".avif", ".avifs"), "an AVIF image"),
    **dict.fromkeys(
        (".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".dng", ".orf", ".rw2", ".raf", ".srw", ".pef"),
        "a camera raw image",
    ),
    **dict.fromkeys((".eps", ".ps"), "a PostScript file"),
    **dict.fromkeys((".jp2", ".j2k", ".jpx"), "a JPEG 2000 image"),
    **dict.fromkeys((".tga", ".ico", ".icns", ".pcx", ".psd", ".xcf", ".dds", ".sgi", ".exr", ".hdr", ".jxl"),
                    "an image of an unsupported format"),
    ".svg": "an SVG drawing",
    ".pdf": "a PDF file",
}  # fmt: skip
_HIDDEN = frozenset({"__macosx", "@eadir", "thumbs.db", "desktop.ini", "$recycle.bin"})  # lower case


def is_image_name(name: str) -> bool:
    """Whether the extension is that of an image that can be read."""
    return _extension(name) in EXTENSIONS


def is_unsupported_name(name: str) -> bool:
    """Whether the extension is that of a known kind of image or drawing that is not supported."""
    return _extension(name) in _UNSUPPORTED


def describe_unsupported(name: str) -> str:
    """What a file is for which `is_unsupported_name` holds, with an article."""
    return _UNSUPPORTED[_extension(name)]


def is_hidden(name: str) -> bool:
    """Whether a file, by any part of its path, belongs to an operating system or a tool and not to the user's data."""
    return any(part.startswith(".") or part.lower() in _HIDDEN for part in name.split("/"))


def unsupported_kind(data: bytes) -> str | None:
    """What content is, by its first bytes, if it is a known kind that is not supported."""
    if data[4:8] == b"ftyp":
        return "an AVIF image" if data[8:12] in (b"avif", b"avis") else "a HEIC image or a video"
    if data.startswith((b"%!PS", b"\xc5\xd0\xd3\xc6")):
        return "a PostScript file"
    if data.startswith(b"%PDF"):
        return "a PDF file"
    if data.lstrip()[:5].lower() in (b"<?xml", b"<svg ", b"<!doc", b"<html"):
        return "an SVG drawing or a web page"
    if data.startswith(b"version https://git-lfs"):
        return "what Git LFS leaves in place of a large file"
    return None


def _extension(name: str) -> str:
    return os.path.splitext(name)[1].lower()
