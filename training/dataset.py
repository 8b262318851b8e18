"""The training data set: items by index, labels, subsets and mirroring; images in a folder or a zip."""

import hashlib
import os
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch

from dnnlib.util import EasyDict

from .dataset_files import BadFile, DatasetError, open_tree
from .dataset_image import check_same_shape, check_square_power_of_two, decode_image
from .dataset_labels import labels_array, read_label_table

__all__ = ["Dataset", "DatasetError", "ImageFolderDataset"]

_ADVICE = "Run dataset_tool.py to convert the images; `dataset_tool.py validate --data=...` lists every bad one."

_T = TypeVar("_T")


class Dataset(torch.utils.data.Dataset):
    """Images with labels, a reproducible subset of them, each optionally a second time as its mirror image.

    An item is (image, label): uint8 [C, H, W] and float32 [label_dim], both free for the caller to change.
    A subclass provides `_load_raw_image`, `_load_raw_labels` and, for a cheap `content_hash`, `_raw_fingerprint`.

    Args:
        name: short name of the data set.
        raw_shape: [N, C, H, W] before subset and mirroring.
        max_size: keep only this many images, drawn with random_seed; None keeps all.
        use_labels: give out the labels; otherwise every label has length 0.
        xflip: append the mirror image of every item, doubling the length.
        random_seed: seed of the subset.
    """

    def __init__(
        self,
        name: str,
        raw_shape: list[int],
        max_size: int | None = None,
        use_labels: bool = False,
        xflip: bool = False,
        random_seed: int = 0,
    ):
        self._name = name
        self._raw_shape = list(raw_shape)
        self._use_labels = use_labels
        self._raw_labels: np.ndarray | None = None
        self._label_shape: list[int] | None = None
        kept = subset_indices(self._raw_shape[0], max_size, random_seed)
        self._raw_idx = np.concatenate([kept, kept]) if xflip else kept
        self._xflip = np.arange(len(self._raw_idx)) >= len(kept)

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
        return len(self._raw_idx)

    def __getitem__(self, idx: int) -> tuple[np.ndarray, np.ndarray]:
        image = self._load_raw_image(int(self._raw_idx[idx]))
        if self._xflip[idx]:
            image = image[:, :, ::-1]
        return image.copy(), self.get_label(idx)

    def get_label(self, idx: int) -> np.ndarray:
        """float32 copy of an item's label: one-hot for class numbers, the vector itself, or length 0 without labels."""
        label = self._get_raw_labels()[self._raw_idx[idx]]
        if label.dtype == np.int64:
            return (np.arange(self.label_dim) == label).astype(np.float32)
        return label.copy()

    def get_details(self, idx: int) -> EasyDict:
        """Where an item comes from: raw_idx (int), xflip (bool), raw_label (copy of the label as the file has it)."""
        raw_idx = int(self._raw_idx[idx])
        return EasyDict(raw_idx=raw_idx, xflip=bool(self._xflip[idx]), raw_label=self._get_raw_labels()[raw_idx].copy())

    def content_hash(self) -> str:
        """SHA-256 (hex) over the content of all images in use, their order, mirroring and labels."""
        digest = hashlib.sha256()
        for raw_idx, xflip in zip(self._raw_idx.tolist(), self._xflip.tolist(), strict=True):
            digest.update(b"%d %d " % (raw_idx, xflip))
            digest.update(self._raw_fingerprint(raw_idx))
        labels = self._get_raw_labels()[self._raw_idx]
        digest.update(f"{self.label_shape} {labels.dtype} {labels.shape}".encode())
        digest.update(labels.tobytes())
        return digest.hexdigest()

    # Properties.

    @property
    def name(self) -> str:
        return self._name

    @property
    def image_shape(self) -> list[int]:
        """[C, H, W]."""
        return list(self._raw_shape[1:])

    @property
    def num_channels(self) -> int:
        return self.image_shape[0]

    @property
    def resolution(self) -> int:
        """Side of the square images, pixels."""
        _, height, width = self.image_shape
        if height != width:
            raise DatasetError(f"{self._name}: images are {width}x{height}, expected square ones. {_ADVICE}")
        return height

    @property
    def label_shape(self) -> list[int]:
        """[number of classes] for class numbers, the vector's shape otherwise, [0] without labels."""
        if self._label_shape is None:
            labels = self._get_raw_labels()
            is_classes = labels.dtype == np.int64
            self._label_shape = [int(labels.max()) + 1] if is_classes else list(labels.shape[1:])
        return list(self._label_shape)

    @property
    def label_dim(self) -> int:
        shape = self.label_shape
        if len(shape) != 1:
            raise DatasetError(f"{self._name}: labels have shape {shape}, expected class numbers or flat vectors")
        return shape[0]

    @property
    def has_labels(self) -> bool:
        return any(size != 0 for size in self.label_shape)

    @property
    def has_onehot_labels(self) -> bool:
        return self._get_raw_labels().dtype == np.int64

    def _get_raw_labels(self) -> np.ndarray:
        if self._raw_labels is None:
            labels = self._load_raw_labels() if self._use_labels else None
            if labels is None:
                labels = np.zeros([self._raw_shape[0], 0], dtype=np.float32)
            self._raw_labels = self._checked_labels(labels)
        return self._raw_labels

    def _checked_labels(self, labels: np.ndarray) -> np.ndarray:
        if len(labels) != self._raw_shape[0]:
            raise DatasetError(f"{self._name}: {len(labels)} labels for {self._raw_shape[0]} images")
        is_classes = labels.dtype == np.int64 and labels.ndim == 1 and bool((labels >= 0).all())
        if not is_classes and labels.dtype != np.float32:
            raise DatasetError(f"{self._name}: labels are {labels.dtype} of shape {list(labels.shape)}, expected "
                               "int64 class numbers from 0 up or float32 vectors")
        return labels

    def __getstate__(self) -> dict[str, Any]:
        # Workers load their own labels: pickling them for each would be slow and large.
        return self.__dict__ | {"_raw_labels": None}


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
                f"Convert them with dataset_tool.py --resolution={resolution}x{resolution}."
            )
        return shape

    def _decode(self, name: str) -> np.ndarray:
        return self._naming_file(name, lambda: decode_image(self._tree.read(name)))

    def _naming_file(self, name: str, function: Callable[..., _T], *args: Any) -> _T:
        try:
            return function(*args)
        except BadFile as error:
            raise DatasetError(f"{error.describe(f'{self._tree.path}/{name}')}. {_ADVICE}") from error


def subset_indices(num_items: int, max_size: int | None, random_seed: int) -> np.ndarray:
    """int64 indices of the items to keep, ascending: all of them, or `max_size` drawn with `random_seed`."""
    indices = np.arange(num_items, dtype=np.int64)
    if max_size is not None and max_size < num_items:
        np.random.RandomState(random_seed).shuffle(indices)
        indices = np.sort(indices[:max_size])
    return indices
