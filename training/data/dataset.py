"""The training data set: items by index, labels, subsets and mirroring; images in a folder or a zip."""
import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch

from dnnlib.cli import CLASSES, VECTORS
from dnnlib.util import EasyDict

from .files import BadFile, DatasetError, open_tree
from .labels import labels_array, read_label_table
from .pixels import check_same_shape, check_square_power_of_two, decode_image

__all__ = ["Dataset", "DatasetError", "ImageFolderDataset"]

_ADVICE = "Run dataset_tool.py to convert the images; `dataset_tool.py validate` lists every bad one."

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class _Labels:
    """The labels of all images, before subset and mirroring."""

    array: np.ndarray  # int64 class numbers [N] or float32 vectors [N, ...]
    is_classes: bool
    shape: tuple[int, ...]  # of one label as items have it

    def vector(self, raw_idx: int) -> np.ndarray:
        """float32 copy of one label, one-hot for a class number."""
        label = self.array[raw_idx]
        return (np.arange(*self.shape) == label).astype(np.float32) if self.is_classes else label.copy()


class Dataset(torch.utils.data.Dataset):
    """Images with labels, a reproducible subset of them, each optionally a second time as its mirror image.

    An item is (image, label): uint8 [C, H, W] and float32 [label_dim], both free for the caller to change.
    A subclass provides `_load_raw_image`, `_load_raw_labels` and, for a cheap `content_hash`, `_raw_fingerprint`.

    Args:
        name: short name of the data set.
        raw_shape: [N, C, H, W] before subset and mirroring.
        max_size: keep only this many images, drawn with random_seed; None keeps all.
        use_labels: items have their labels; otherwise every label has length 0.
        xflip: append the mirror image of every item, doubling the length.
        random_seed: seed of the subset.
    """

    is_generated = False  # by a network, while it is used; such a data set has a `make_feed` (see training.data.feed)

    def __init__(
        self,
        name: str,
        raw_shape: list[int],
        max_size: int | None = None,
        use_labels: bool = False,
        xflip: bool = False,
        random_seed: int = 0,
    ):
        self._num_raw, *self._image_shape = raw_shape
        kept = subset_indices(self._num_raw, max_size, random_seed)
        orientations = np.arange(2 if xflip else 1)  # 1 is mirrored
        # One row (raw index, orientation) per item.
        self._items = np.stack([np.tile(kept, len(orientations)), orientations.repeat(len(kept))], axis=1)
        self._use_labels = use_labels
        self._name = name

    # What a subclass provides.

    def _load_raw_image(self, raw_idx: int) -> np.ndarray:
        """uint8 [C, H, W]."""
        raise NotImplementedError

    def _load_raw_labels(self) -> np.ndarray | None:
        """int64 [N] from 0 up, float32 [N, ...], or None if there are no labels."""
        raise NotImplementedError

    def _raw_fingerprint(self, raw_idx: int) -> bytes:
        """Bytes that change whenever this image does."""
        return hashlib.sha256(self._load_raw_image(raw_idx).tobytes()).digest()

    def close(self) -> None:
        """Releases open files. The data set stays usable."""

    # Items.

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, idx: int) -> tuple[np.ndarray, np.ndarray]:
        raw_idx, mirrored = self._items[idx].tolist()
        column_step = -1 if mirrored else 1
        return self._load_raw_image(raw_idx)[:, :, ::column_step].copy(), self.get_label(idx)

    def get_details(self, idx: int) -> EasyDict:
        """Where an item comes from: raw_idx (int), xflip (bool), raw_label (copy of the label as the file has it)."""
        raw_idx, mirrored = self._items[idx].tolist()
        raw_label = self._labels_of_all.array[raw_idx].copy()
        return EasyDict(raw_idx=raw_idx, xflip=bool(mirrored), raw_label=raw_label)

    # Labels.

    def raw_labels(self) -> np.ndarray:
        """A copy of the labels of all items [len(self), ...] as the file has them; of length 0 without labels."""
        return self._labels_of_all.array[self._items[:, 0]]

    def get_label(self, idx: int) -> np.ndarray:
        """float32 [label_dim], a copy: one-hot for class numbers, the vector itself, or length 0 without labels."""
        return self._labels_of_all.vector(self._items[idx, 0])

    @property
    def has_onehot_labels(self) -> bool:
        """Whether labels are class numbers."""
        return self._labels_of_all.is_classes

    @property
    def label_kind(self) -> str | None:
        """What labels are, one of `dnnlib.cli.LABEL_KINDS`; None without labels."""
        if not self.has_labels:
            return None
        return CLASSES if self.has_onehot_labels else VECTORS

    @property
    def has_labels(self) -> bool:
        """Whether items have labels."""
        return max(self.label_shape, default=0) > 0

    @property
    def label_shape(self) -> list[int]:
        """[number of classes] for class numbers, the vector's shape otherwise, [0] without labels."""
        return list(self._labels_of_all.shape)

    @property
    def label_dim(self) -> int:
        """Length of a label.

        Raises:
            DatasetError: labels are neither class numbers nor flat vectors.
        """
        shape = self.label_shape
        if len(shape) != 1:
            raise DatasetError(f"{self._name}: labels have shape {shape}, expected class numbers or flat vectors")
        return shape[0]

    @functools.cached_property
    def _labels_of_all(self) -> _Labels:
        given = self._load_raw_labels() if self._use_labels else None
        none = np.zeros([self._num_raw, 0], dtype=np.float32)
        return _checked_labels(none if given is None else given, self._num_raw, self._name)

    # The data set as a whole.

    @property
    def resolution(self) -> int:
        """Side of the square images, pixels.

        Raises:
            DatasetError: images are not square.
        """
        _, height, width = self.image_shape
        if height != width:
            raise DatasetError(f"{self._name}: images are {width}x{height}, expected square ones. {_ADVICE}")
        return height

    @property
    def num_channels(self) -> int:
        """1 for greyscale, 3 for RGB."""
        return self._image_shape[0]

    @property
    def image_shape(self) -> list[int]:
        """[C, H, W]."""
        return list(self._image_shape)

    @property
    def name(self) -> str:
        """Short name of the data set."""
        return self._name

    def content_hash(self) -> str:
        """SHA-256 (hex) over the content of all images in use, their order, mirroring and labels."""
        digest = hashlib.sha256()
        for raw_idx, mirrored in self._items.tolist():
            digest.update(b"%d %d " % (raw_idx, mirrored))
            digest.update(self._raw_fingerprint(raw_idx))
        labels = self.raw_labels()
        digest.update(f"{self.label_shape} {labels.dtype} {labels.shape}".encode())
        digest.update(labels.tobytes())
        return digest.hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        # Workers load their own labels: pickling them for each would be slow and large.
        return {name: value for name, value in self.__dict__.items() if name != "_labels_of_all"}


class ImageFolderDataset(Dataset):
    """Images below a folder or in a zip, in the order of their names, with labels from its dataset.json.

    All images must be square with a power of two as side, greyscale or RGB, and alike in size and channels. The
    first is checked here, the others when they are read.

    Args:
        path: folder or .zip.
        resolution: the side that the images must have, pixels; None takes any.
        max_size, use_labels, xflip, random_seed: as for Dataset.

    Raises:
        DatasetError: the path, an image or dataset.json cannot be used; the message names the file.
    """

    def __init__(
        self,
        path: str,
        resolution: int | None = None,
        max_size: int | None = None,
        use_labels: bool = False,
        xflip: bool = False,
        random_seed: int = 0,
    ):
        self._tree = open_tree(os.fspath(path))
        self._image_names = self._tree.image_names()
        if not self._image_names:
            raise DatasetError(f"{path}: no image files found")
        height, width, num_channels = self._first_shape(resolution)
        name = os.path.splitext(os.path.basename(os.path.abspath(path)))[0]
        super().__init__(name, [len(self._image_names), num_channels, height, width],
                         max_size=max_size, use_labels=use_labels, xflip=xflip, random_seed=random_seed)

    def close(self) -> None:
        """Closes the zip; the next read opens it again."""
        self._tree.close()

    def _load_raw_image(self, raw_idx: int) -> np.ndarray:
        name = self._image_names[raw_idx]
        pixels = self._decode(name)
        num_channels, height, width = self.image_shape
        if pixels.shape != (height, width, num_channels):
            self._naming_file(name, check_same_shape, pixels.shape, (height, width, num_channels), self._image_names[0])
        return pixels.transpose(2, 0, 1)  # [C, H, W]

    def _load_raw_labels(self) -> np.ndarray | None:
        table = read_label_table(self._tree)
        return None if table is None else labels_array(self._image_names, table, self._tree.path)

    def _raw_fingerprint(self, raw_idx: int) -> bytes:
        name = self._image_names[raw_idx]
        return name.encode() + b" " + self._tree.fingerprint(name)

    def _first_shape(self, resolution: int | None) -> tuple[int, ...]:
        first = self._image_names[0]
        shape = self._decode(first).shape  # [H, W, C]
        self._naming_file(first, check_square_power_of_two, shape)
        if resolution is not None and shape[0] != resolution:
            raise DatasetError(
                f"{self._tree.path}: images are {shape[0]}x{shape[0]}, expected resolution {resolution}. "
                f"Convert them to {resolution}x{resolution} with dataset_tool.py."
            )
        return shape

    def _decode(self, name: str) -> np.ndarray:
        return self._naming_file(name, lambda: decode_image(self._tree.read(name)))

    def _naming_file(self, name: str, function: Callable[..., _T], *args: Any) -> _T:
        try:
            return function(*args)
        except BadFile as error:
            raise DatasetError(f"{error.describe(f'{self._tree.path}/{name}')}. {_ADVICE}") from error


def _checked_labels(array: np.ndarray, num_images: int, name: str) -> _Labels:
    """The labels that a data set of this name gave.

    Raises:
        DatasetError: there are not as many as images, or they are neither class numbers nor float32 vectors.
    """
    if len(array) != num_images:
        raise DatasetError(f"{name}: {len(array)} labels for {num_images} images")
    if array.dtype == np.int64 and array.ndim == 1 and (array >= 0).all():
        return _Labels(array, is_classes=True, shape=(int(array.max()) + 1,))
    if array.dtype == np.float32:
        return _Labels(array, is_classes=False, shape=array.shape[1:])
    raise DatasetError(f"{name}: labels are {array.dtype} of shape {list(array.shape)}, expected "
                       "int64 class numbers from 0 up or float32 vectors")


def subset_indices(num_items: int, max_size: int | None, random_seed: int) -> np.ndarray:
    """int64 indices [K] of the items to keep, ascending: all, or `max_size` drawn with `random_seed`."""
    if max_size is None or max_size >= num_items:
        return np.arange(num_items)
    return np.sort(np.random.RandomState(random_seed).permutation(num_items)[:max_size])
