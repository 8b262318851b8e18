"""Folders of pictures as people have them, and what dataset_tool.py says about each."""
import io
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from click.testing import CliRunner

import dataset_tool
from tests.helpers import image_bytes, random_images, write_images, zip_folder


def _upright(orientation: int) -> bytes:
    """A JPEG photograph with an EXIF tag for its orientation."""
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.zeros([16, 16, 3], np.uint8)).save(buffer, format="jpeg", exif=exif)
    return buffer.getvalue()


def _animation() -> bytes:
    frames = [PIL.Image.fromarray(image) for image in random_images(2, side=16).values()]
    buffer = io.BytesIO()
    frames[0].save(buffer, format="gif", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def _labelled(folder: Path, names: list[str], labels: dict[str, Any], where: str = ".") -> Path:
    write_images(folder, dict(zip(names, random_images(len(names), side=16).values(), strict=True)))
    (folder / where / "dataset.json").write_text(json.dumps({"labels": [list(pair) for pair in labels.items()]}))
    return folder


def _photographs(folder: Path) -> Path:
    images = {"0.jpg": _upright(6), "1.jpg": _upright(3), "2.jpg": _upright(1), "IMG_3.HEIC": b"", "IMG_4.CR2": b""}
    return write_images(folder, images)


def _transparent(folder: Path) -> Path:
    pixels = np.random.RandomState(0).randint(0, 256, [3, 16, 16, 4], np.uint8)
    return write_images(folder, {f"{i}.png": image_bytes(PIL.Image.fromarray(image)) for i, image in enumerate(pixels)})


def _leftovers(folder: Path) -> Path:
    names = ["pets/cat/0.png", "pets/dog/1.png", "pets/dog/2.png", "__MACOSX/pets/cat/._0.png",
             "pets/.ipynb_checkpoints/0.png", "pets/@eaDir/0.png/thumb.png"]  # fmt: skip
    files = {**dict(zip(names, random_images(len(names), side=16).values(), strict=True)), "pets/Thumbs.db": b""}
    return zip_folder(write_images(folder, files))


def _mostly_rgb(folder: Path) -> Path:
    return write_images(folder, random_images(1, 16, num_channels=1) | random_images(29, 16, first=1))


def _deep(folder: Path) -> Path:
    deep = np.random.RandomState(0).randint(0, 65536, [16, 16], np.uint16)
    return write_images(folder, {"0.png": image_bytes(PIL.Image.fromarray(deep)), "1.gif": _animation()})


_NAMES = [f"set/img{i}.png" for i in range(4)]
# What a folder is, how it is made, and further options.
FOLDERS: list[tuple[str, Callable[[Path], Path], list[str]]] = [
    ("photographs of a telephone, three JPEG files and two that cannot be read", _photographs, []),
    ("transparent pictures", _transparent, []),
    ("the same, made RGB", _transparent, ["--force-channels=3"]),
    ("a zip from a Mac with leftovers of three systems, classes by folder", _leftovers, ["--subfolders-as-labels"]),
    ("29 RGB images, and the first one grey", _mostly_rgb, []),
    ("the same, without those that are bad", _mostly_rgb, ["--skip-bad"]),
    ("the same, made RGB", _mostly_rgb, ["--force-channels=3"]),
    ("16-bit and animated pictures", _deep, ["--force-channels=1"]),
    ("dataset.json in the images' folder",
     lambda folder: _labelled(folder, _NAMES, {f"img{i}.png": i % 3 * 2 for i in range(4)}, "set"), []),
    ("backslashes in dataset.json",
     lambda folder: _labelled(folder, _NAMES, {f"set\\img{i}.png": i % 2 for i in range(4)}), []),
    ("names in dataset.json that match nothing",
     lambda folder: _labelled(folder, _NAMES, {f"old/img{i}.png": i % 2 for i in range(4)}), []),
    ("labels that are fractions",
     lambda folder: _labelled(folder, _NAMES, {name: i / 3 for i, name in enumerate(_NAMES)}), []),
    ("images of 4x4 pixels", lambda folder: write_images(folder, random_images(8, side=4)), []),
]


def accounts() -> Iterator[tuple[str, list[str], str]]:
    """Of every folder: what it is, further options, and what dataset_tool.py prints."""
    for title, make, args in FOLDERS:
        with tempfile.TemporaryDirectory() as place:
            source = make(Path(place, "images"))
            words = [f"--source={source}", f"--dest={place}/out.zip", *args]
            result = CliRunner().invoke(dataset_tool.main, words)
            yield title, args, result.output.replace(f"{place}/", "").strip()
