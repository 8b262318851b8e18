"""From archives to data sets: every distinct image once, on its side of the split, and the list of what is there."""
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.emoji64 import pictures
from benchmarks.emoji64.archives import Archive, images
from dnnlib.errors import UserError
from dnnlib.files import open_atomic
from training.data.files import BadFile
from training.data.pixels import WHITE, Colour, decode_image, encode_png
from training.data.transforms import make_transform
from training.data.writer import open_dest, write_labels

SIZE = 64  # px
FILTER = "lanczos"
LIST = Path(__file__).with_name("images.tsv")
_DIGITS = 12  # of a digest in the list
_ABSENT = "-"


@dataclasses.dataclass(frozen=True)
class Item:
    """One image of the data set.

    Attributes:
        vendor: place of its archive, which is its label.
        name: of the emoji.
        digest: the first digits of the sha256 of its file in the archive.
        pixels: uint8 [SIZE, SIZE, 3].
        is_for_test: its side of the split.
    """

    vendor: int
    name: str
    digest: str
    pixels: np.ndarray
    is_for_test: bool


def collect(archives: Sequence[Archive], folder: Path, background: Colour) -> list[Item]:
    """Decodes the images of all archives; of several with the same pixels on white the first stays.

    Larger images are cut to their central square and resized.

    Raises:
        UserError: an archive or an image cannot be read.
    """
    resize = make_transform("center-crop", SIZE, SIZE, FILTER)
    first: dict[bytes, str] = {}  # digest of pixels → name of the first emoji that has them
    same, distinct, names = [], [], []
    for vendor, archive in enumerate(archives):
        for name, content in images(archive, folder).items():
            names.append(name)
            try:
                on_white = decode_image(content, 3, WHITE)
                pixels = resize(on_white if background == WHITE else decode_image(content, 3, background))
            except BadFile as error:
                raise UserError(f"{folder / archive.file}: {error.describe(name)}", field="archives") from error
            assert pixels is not None, "center-crop leaves no image out"
            look = hashlib.sha256(on_white.tobytes()).digest()
            if look in first:
                same.append((first[look], name))
                continue
            first[look] = name
            distinct.append((vendor, name, hashlib.sha256(content).hexdigest()[:_DIGITS], pixels))
    side = pictures.split(names, same)
    return [Item(*item, side[item[1]]) for item in distinct]


def listing(items: Sequence[Item], archives: Sequence[Archive]) -> str:
    """The list: per emoji its side of the split, its name, and the digests of the vendors' files.

    A vendor that has no such emoji, or only one with the pixels of another, has a dash.
    """
    rows: dict[str, tuple[bool, list[str]]] = {}
    for item in items:
        row = rows.setdefault(item.name, (item.is_for_test, [_ABSENT] * len(archives)))
        row[1][item.vendor] = item.digest
    lines = [["part", "emoji", *(archive.vendor for archive in archives)]]
    lines += [["test" if rows[name][0] else "train", name, *rows[name][1]] for name in sorted(rows)]
    return "".join("\t".join(line) + "\n" for line in lines)


def check_listed(items: Sequence[Item], archives: Sequence[Archive], expected: str) -> None:
    """Compares a collection with the committed list.

    Raises:
        UserError: they differ; names the first line.
    """
    made, committed = listing(items, archives).splitlines(), expected.splitlines()
    odd = sorted({*made} ^ {*committed}, key=lambda line: line.split("\t")[1:])
    if odd:
        which = "is not in" if odd[0] in made else "is only in"
        raise UserError(f"expected the images of {LIST.name}, found {len(odd)} lines that differ; the first, "
                        f"{' '.join(odd[0].split())}, {which} it. Does Pillow decode these images otherwise?",
                        field="archives")


def write(items: Sequence[Item], archives: Sequence[Archive], dest: Path, background: Colour, attribution: str) -> None:
    """Writes `dest`, the test images beside it (see `dest_of_tests`), and the attribution (see `attribution_of`).

    Raises:
        UserError: a file cannot be written.
    """
    facts = {"source": "emoji64", "width": SIZE, "height": SIZE, "resize_filter": FILTER, "force_channels": 3,
             "background": list(background), "classes": [archive.vendor for archive in archives],
             "packages": [archive.package for archive in archives]}
    for path, is_for_test in ((dest, False), (dest_of_tests(dest), True)):
        labels: dict[str, int] = {}
        with open_dest(str(path)) as store:
            for item in items:
                if item.is_for_test == is_for_test:
                    name = f"{archives[item.vendor].vendor}/{item.name}.png"
                    store(name, encode_png(item.pixels))
                    labels[name] = item.vendor
            write_labels(store, labels, facts)
    with open_atomic(attribution_of(dest), "w") as file:
        file.write(attribution)


def dest_of_tests(dest: Path) -> Path:
    """Where the test images go: `emoji64-test.zip` beside `emoji64.zip`."""
    return dest.with_name(f"{dest.stem}-test{dest.suffix}")


def attribution_of(dest: Path) -> Path:
    """Where the attribution goes: `emoji64.attribution.md` beside `emoji64.zip`."""
    return dest.with_name(f"{dest.stem}.attribution.md")


def counts(items: Sequence[Item], archives: Sequence[Archive]) -> Mapping[str, Mapping[str, int]]:
    """Number of images by side of the split and vendor."""
    return {
        side: {archive.vendor: sum(item.vendor == number and item.is_for_test == is_for_test for item in items)
               for number, archive in enumerate(archives)}
        for side, is_for_test in (("train", False), ("test", True))
    }
