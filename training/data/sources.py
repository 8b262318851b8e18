"""The places dataset_tool.py reads images from, each as a stream of (name, pixels, label). No torch."""
import dataclasses
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from dnnlib.bounded import read_gzip
from dnnlib.errors import FileError

from . import tfrecords
from .cifar import read_cifar10
from .files import MAX_FILE, DatasetError, FileTree, open_tree
from .formats import describe_unsupported
from .labels import match_labels
from .pixels import MODE_OF_CHANNELS, Colour, Picture, read_picture, to_pil

if TYPE_CHECKING:
    from torch_utils.network_types import Generator

IDX_IMAGES = "-images-idx3-ubyte.gz"
IDX_LABELS = "-labels-idx1-ubyte.gz"
CIFAR_ARCHIVE = "cifar-10-python.tar.gz"


@dataclasses.dataclass(frozen=True)
class SourceImage:
    """One image of a source, not decoded yet."""

    name: str
    label: Any  # class number, list of numbers, or None
    load: Callable[[], Picture]  # raises BadFile


@dataclasses.dataclass(frozen=True)
class Source:
    """A stream of images.

    Attributes:
        total: number of images that come out of `images`.
        images: the stream.
        classes: names of the classes, if folders give them.
        num_labels: labels that the source has, for whatever images.
        skips_unreadable: the source is known to hold undecodable items, which are reported and left out (LSUN).
        unsupported: files that are images of a kind that cannot be read, with the reason.
        hidden: images that belong to an operating system or a tool.
    """

    total: int
    images: Iterator[SourceImage]
    classes: list[str] | None = None
    num_labels: int = 0
    skips_unreadable: bool = False
    unsupported: Sequence[str] = ()
    hidden: Sequence[str] = ()


def open_source(
    path: str,
    channels: int | None = None,
    subfolders_as_labels: bool = False,
    background: Colour | None = None,
    generator: Any = None,
    num_generated: int | None = None,
) -> Source:
    """Opens whatever `path` is: folder, .zip, CIFAR-10 archive, MNIST-family images, TFRecords, LSUN database.

    Args:
        path: a folder; a .zip; `cifar-10-python.tar.gz`; any `*-images-idx3-ubyte.gz` with its labels file beside
            it; a `*.tfrecords` file, or a folder of them; a folder named `*_lmdb`.
        channels: 1 or 3 converts every image to greyscale or RGB; None takes L and RGB and refuses the rest.
        subfolders_as_labels: for a folder or zip, number the sorted top-level folders and use them as labels.
        background: what transparency is composed on; see `pixels.read_picture`.
        generator: the network in the file `path`, whose own images are the source; None for every other source.
        num_generated: how many images it makes.

    Raises:
        DatasetError: the path is none of these, or its structure or labels are wrong.
    """
    base = os.path.basename(os.path.normpath(path))
    if not os.path.exists(path):
        raise DatasetError(f"{path}: no such file or folder", "source")
    if generator is not None:
        return _network_source(generator, path, channels, num_generated)
    records = tfrecords.find(path)
    if subfolders_as_labels and (records or not _is_tree(path, base)):
        raise DatasetError(f"needs a folder or zip as `source`, found {path}", "subfolders_as_labels")
    if records is not None:
        return _tfrecords_source(records, channels)
    if _is_tree(path, base):
        return _tree_source(path, channels, subfolders_as_labels, background)
    if base.endswith("_lmdb"):
        return _lsun_source(path, channels)
    if base == CIFAR_ARCHIVE:
        return _array_source(*read_cifar10(path), channels)
    if base.endswith(IDX_IMAGES):
        return _array_source(*_read_idx_pair(path), channels)
    raise DatasetError(
        f"{path}: expected a folder, a .zip, {CIFAR_ARCHIVE}, a file named *{IDX_IMAGES} or *.tfrecords, a folder "
        "named *_lmdb, or a network pickle",
        "source",
    )


def _is_tree(path: str, base: str) -> bool:
    return base.lower().endswith(".zip") or (os.path.isdir(path) and not base.endswith("_lmdb"))


# Folder and zip.


def _tree_source(path: str, channels: int | None, subfolders_as_labels: bool, background: Colour | None) -> Source:
    tree = open_tree(path)
    names = tree.image_names()
    unsupported = [f"{name} is {describe_unsupported(name)}" for name in tree.unsupported_names()]
    if not names:
        advice = f"; {unsupported[0]}, which is not supported" if unsupported else ""
        raise DatasetError(f"{path}: no image files found{advice}", "source")
    if os.path.isdir(path):
        names.sort(key=lambda name: name.split("/"))  # NVlabs' order: by path components, not by string
    classes, labels, num_labels = None, {}, 0
    if subfolders_as_labels:
        top = _single_top(names)
        classes = _class_folders(path, names, top)
        labels, num_labels = _folder_labels(names, classes, top), len(names)
    else:
        labels, num_labels = match_labels(tree, names)
    images = _tree_images(tree, names, labels, channels, background)
    return Source(
        len(names), images, classes, num_labels, unsupported=unsupported, hidden=tree.hidden_names()
    )


def _tree_images(
    tree: FileTree, names: list[str], labels: dict[str, Any], channels: int | None, background: Colour | None
) -> Iterator[SourceImage]:
    try:
        for name in names:
            yield SourceImage(name, labels.get(name), partial(_load_file, tree, name, channels, background))
    finally:
        tree.close()


def _load_file(tree: FileTree, name: str, channels: int | None, background: Colour | None) -> Picture:
    return read_picture(tree.read(name), channels, background)


def _single_top(names: list[str]) -> str:
    """The folders that all images are in and that hold folders only, such as the one that a zip was made from."""
    top = ""
    while True:
        parts = [name.removeprefix(top).split("/") for name in names]
        if len({part[0] for part in parts}) > 1 or any(len(part) < 3 for part in parts):
            return top
        top += parts[0][0] + "/"


def _class_folders(path: str, names: list[str], top: str) -> list[str]:
    stray = [name for name in names if "/" not in name.removeprefix(top)]
    if stray:
        raise DatasetError(f"{path}/{stray[0]} is in no sub-folder, move it into its class's", "subfolders_as_labels")
    return sorted({name.removeprefix(top).split("/")[0] for name in names})


def _folder_labels(names: list[str], classes: list[str], top: str) -> dict[str, int]:
    number = {folder: index for index, folder in enumerate(classes)}
    return {name: number[name.removeprefix(top).split("/")[0]] for name in names}


# Arrays in memory: CIFAR-10 and MNIST.


def _network_source(G: "Generator", path: str, channels: int | None, count: int | None) -> Source:
    if count is None:
        raise DatasetError(f"pass how many images {path} is to make", "max_images")
    from .generated import stream

    labels = [index % G.c_dim if G.c_dim else None for index in range(count)]
    images = (
        SourceImage(f"image {index}", label, partial(_convert_pixels, img, channels))
        for index, (label, img) in enumerate(zip(labels, stream(G, count)))
    )
    return Source(count, images, num_labels=count if G.c_dim else 0)


def _array_source(pixels_nhwc: np.ndarray, labels: np.ndarray, channels: int | None) -> Source:
    images = (
        SourceImage(f"image {index}", int(label), partial(_convert_pixels, pixels, channels))
        for index, (pixels, label) in enumerate(zip(pixels_nhwc, labels, strict=True))
    )
    return Source(len(labels), images, num_labels=len(labels))


def _convert_pixels(pixels: np.ndarray, channels: int | None) -> Picture:
    image = to_pil(pixels)
    return Picture(image if channels is None else image.convert(MODE_OF_CHANNELS[channels]))


# TFRecords.


def _tfrecords_source(files: tfrecords.RecordFiles, channels: int | None) -> Source:
    labels = tfrecords.read_labels(files)
    images = (
        SourceImage(f"record {index}", labels and labels[index], partial(_load_record, record, channels))
        for index, record in enumerate(tfrecords.records(files.path))
    )
    total = tfrecords.count(files.path)
    if labels is not None and len(labels) != total:
        raise DatasetError(f"{files.labels_path}: {len(labels)} labels for {total} images", "source")
    return Source(total, images, num_labels=0 if labels is None else total)


def _load_record(record: bytes, channels: int | None) -> Picture:
    return _convert_pixels(tfrecords.decode(record), channels)


def _read_idx_pair(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads MNIST-family images, padded 28 → 32 with zeros, [N, 32, 32, 1], and their labels [N]."""
    labels_path = path[: -len(IDX_IMAGES)] + IDX_LABELS
    if not os.path.isfile(labels_path):
        raise DatasetError(f"{path}: its labels file is missing, expected {labels_path}", "source")
    images, labels = _read_idx(path, num_dims=3), _read_idx(labels_path, num_dims=1)
    if images.shape[1:] != (28, 28):
        raise DatasetError(f"{path}: expected 28x28 images, found {images.shape[2]}x{images.shape[1]}", "source")
    if len(images) != len(labels):
        raise DatasetError(f"{labels_path}: {len(labels)} labels for {len(images)} images", "source")
    return np.pad(images, ((0, 0), (2, 2), (2, 2)))[..., np.newaxis], labels


def _read_idx(path: str, num_dims: int) -> np.ndarray:
    """Reads an idx file of bytes: two zero bytes, type 8, number of dimensions, big-endian sizes, the bytes."""
    try:
        content = read_gzip(path, MAX_FILE)
    except FileError as error:
        raise DatasetError(f"{path}: cannot be unpacked: {error.reason}", "source") from error
    header_size = 4 + 4 * num_dims
    if len(content) < header_size or content[:4] != bytes([0, 0, 8, num_dims]):
        raise DatasetError(f"{path}: is no idx file of bytes in {num_dims} dimensions", "source")
    shape = struct.unpack(f">{num_dims}I", content[4:header_size])
    expected = header_size + int(np.prod(shape, dtype=np.int64))
    if len(content) != expected:
        raise DatasetError(f"{path}: expected {expected} bytes for shape {list(shape)}, found {len(content)}", "source")
    return np.frombuffer(content, dtype=np.uint8, offset=header_size).reshape(shape)


# LSUN.


def _lsun_source(path: str, channels: int | None) -> Source:
    try:
        import lmdb
    except ImportError as error:
        raise DatasetError(f"{path}: reading LSUN needs the lmdb package: pip install lmdb", "source") from error
    try:
        database = lmdb.open(path, readonly=True, lock=False)
        total = database.stat()["entries"]
    except lmdb.Error as error:
        raise DatasetError(f"{path}: cannot be read as an LMDB database: {error}", "source") from error
    return Source(total, _lsun_images(database, channels), skips_unreadable=True)


def _lsun_images(database: Any, channels: int | None) -> Iterator[SourceImage]:
    with database, database.begin(buffers=False) as transaction:
        for key, data in transaction.cursor():
            yield SourceImage(key.decode("ascii", "replace"), None, partial(read_picture, data, channels))
