"""The label file of a data set, `dataset.json`: reading it and checking it against the images. No torch."""
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dnnlib import strict_json

from .files import BadFile, DatasetError, FileTree
from .formats import is_hidden

LABEL_FILE = "dataset.json"
MAX_CLASSES = 1 << 16  # a label becomes a one-hot vector of this length


def read_label_table(tree: FileTree, name: str = LABEL_FILE) -> dict[str, Any] | None:
    """Reads `labels` of dataset.json: image name → label.

    Returns:
        The table with the labels as JSON holds them (numbers or lists), or None if there is no dataset.json or
        its `labels` is null. Backslashes in names become slashes.

    Raises:
        DatasetError: the file is no JSON object with `labels` as null or a list of [name, label] pairs.
    """
    if name not in tree.names():
        return None
    where = f"{tree.path}/{name}"
    try:
        content = strict_json.loads(tree.read(name))
    except BadFile as error:
        raise DatasetError(error.describe(where)) from error
    except ValueError as error:
        raise DatasetError(f"{where}: is not valid JSON: {error}") from error
    if not isinstance(content, dict) or "labels" not in content:
        raise DatasetError(f'{where}: expected an object with the key "labels"')
    pairs = content["labels"]
    if pairs is None:
        return None
    if not isinstance(pairs, list):
        raise DatasetError(f'{where}: expected "labels" to be null or a list, found {type(pairs).__name__}')
    for pair in pairs:
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)):
            raise DatasetError(f'{where}: expected [name, label] pairs in "labels", found {json.dumps(pair)[:80]}')
    return {image.replace("\\", "/").removeprefix("./"): label for image, label in pairs}


def find_label_file(tree: FileTree) -> str | None:
    """The dataset.json at the top of a source, else the only one below it; None if there is none.

    Raises:
        DatasetError: there are several below it.
    """
    names = [name for name in tree.names() if name.split("/")[-1] == LABEL_FILE and not is_hidden(name)]
    if LABEL_FILE in names or len(names) < 2:
        return LABEL_FILE if LABEL_FILE in names else next(iter(names), None)
    raise DatasetError(f"{tree.path}: found {_some(names)}; put one {LABEL_FILE} with all labels at the top")


def match_labels(tree: FileTree, images: Sequence[str]) -> tuple[dict[str, Any], int]:
    """The labels of a source's images, from the dataset.json that `find_label_file` finds.

    Names in a file below the top count from its folder.

    Returns:
        Image name → label, for the images that have one, and the number of labels that the file has.

    Raises:
        DatasetError: the file is malformed, or has labels of which not one belongs to an image.
    """
    name = find_label_file(tree)
    table = None if name is None else read_label_table(tree, name)
    if name is None or not table:
        return {}, 0
    folder = name.removesuffix(LABEL_FILE)
    given = {image: label for image, label in table.items() if label is not None}
    matched = {image: given[key] for image in images if (key := image.removeprefix(folder)) in given}
    if given and not matched:
        raise DatasetError(
            f"{tree.path}/{name}: none of its {len(given)} labels belongs to an image; "
            f"it names for example {next(iter(given))}, the images are called for example {images[0]}"
        )
    return matched, len(given)


def labels_array(names: Sequence[str], table: Mapping[str, Any], where: str) -> np.ndarray:
    """Looks up the label of every image.

    Args:
        names: the images, N of them.
        table: image name → label.
        where: the data set's path, for messages.

    Returns:
        int64 [N] of class numbers from 0 up, or float32 [N, ...] of label vectors.

    Raises:
        DatasetError: an image has no label or a null one, or labels differ in kind or length. Names the image.
    """
    missing = [name for name in names if table.get(name) is None]
    if missing:
        raise DatasetError(f"{where}/{LABEL_FILE}: no label for {_some(missing)}. List every image, or use no labels.")
    labels = [table[name] for name in names]
    kinds = [_kind(label) for label in labels]
    for name, label, kind in zip(names, labels, kinds, strict=True):
        problem = _problem(label, kind, kinds[0], names[0])
        if problem:
            raise DatasetError(f"{where}/{LABEL_FILE}: label of {name} {problem}")
    return np.array(labels, dtype=np.int64 if kinds[0] == () else np.float32)


def empty_classes(labels: np.ndarray) -> list[int]:
    """The class numbers below the highest one that no image has; none for label vectors.

    Args:
        labels: int64 [N] or float32 [N, ...].
    """
    if labels.ndim != 1 or not len(labels):
        return []
    return np.flatnonzero(np.bincount(labels) == 0).tolist()


def _kind(label: object) -> tuple[int, ...] | None:
    """() for a class number (3.0 is one), the shape of a (nested) vector, None for anything else."""
    if isinstance(label, (int, float)) and not isinstance(label, bool):
        return () if label == label // 1 else None
    if not isinstance(label, list):
        return None
    try:
        vector = np.array(label)
    except (ValueError, RecursionError):  # ragged, or nested without end
        return None
    return vector.shape if vector.dtype.kind in "iuf" and np.isfinite(vector).all() else None


def _problem(label: Any, kind: tuple[int, ...] | None, first_kind: tuple[int, ...] | None, first: str) -> str | None:
    if kind is None:
        advice = f"; write [{label}] for a vector of one number" if isinstance(label, float) else ""
        return f"is {json.dumps(label)[:80]}, expected a class number (0, 1, ...) or a list of numbers{advice}"
    if kind == () and label < 0:
        return f"is {label}, expected a class number from 0 up"
    if kind == () and label >= MAX_CLASSES:
        return f"is {label}, expected a class number below {MAX_CLASSES}"
    if kind != first_kind:
        return f"is {_kind_name(kind)}, but {first} has {_kind_name(first_kind)}. Give all labels the same form."
    return None


def _kind_name(kind: tuple[int, ...] | None) -> str:
    return "a class number" if kind == () else f"a vector of shape {list(kind or ())}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
