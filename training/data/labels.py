"""The label file of a data set, `dataset.json`: reading it and checking it against the images. No torch."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from .files import BadFile, DatasetError, FileTree

LABEL_FILE = "dataset.json"


def read_label_table(tree: FileTree) -> dict[str, Any] | None:
    """Reads `labels` of dataset.json: image name → label.

    Returns:
        The table with the labels as JSON holds them (numbers or lists), or None if there is no dataset.json or
        its `labels` is null.

    Raises:
        DatasetError: the file is no JSON object with `labels` as null or a list of [name, label] pairs.
    """
    if LABEL_FILE not in tree.names():
        return None
    where = f"{tree.path}/{LABEL_FILE}"
    try:
        content = json.loads(tree.read(LABEL_FILE))
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
    return {name: label for name, label in pairs}


def labels_array(names: Sequence[str], table: dict[str, Any], where: str) -> np.ndarray:
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


def _kind(label: Any) -> tuple[int, ...] | None:
    """() for a class number, the shape of a (nested) vector, None for anything else."""
    if isinstance(label, int) and not isinstance(label, bool):
        return ()
    if not isinstance(label, list):
        return None
    try:
        vector = np.array(label)
    except ValueError:  # ragged
        return None
    return vector.shape if vector.dtype.kind in "iuf" and np.isfinite(vector).all() else None


def _problem(label: Any, kind: tuple[int, ...] | None, first_kind: tuple[int, ...] | None, first: str) -> str | None:
    if kind is None:
        return f"is {json.dumps(label)[:80]}, expected a class number (0, 1, ...) or a list of numbers"
    if kind == () and label < 0:
        return f"is {label}, expected a class number from 0 up"
    if kind != first_kind:
        return f"is {_kind_name(kind)}, but {first} has {_kind_name(first_kind)}. Give all labels the same form."
    return None


def _kind_name(kind: tuple[int, ...] | None) -> str:
    return "a class number" if kind == () else f"a vector of shape {list(kind or ())}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
