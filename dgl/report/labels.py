"""Which labels the rows of a page show."""
from collections.abc import Mapping

import torch

from dnnlib.cli import VECTORS, ClassChoice, class_label, class_labels
from dnnlib.errors import UserError
from torch_utils.network_types import Generator

Choices = Mapping[str, torch.Tensor]  # what the page calls a label → the label [1, c_dim]
FROM_DATA = 4  # labels of a data set


def choices(G: Generator, choice: ClassChoice | None, kind: str | None, data: str | None) -> Choices | None:
    """The labels of a page; None for all classes, or a network without labels.

    Args:
        G: any of the networks.
        choice: class, range of classes, or label, if there is one.
        kind: of the labels that the network was trained on, one of `dnnlib.cli.LABEL_KINDS`, if it is known.
        data: data set, whose labels are shown where they are vectors and none is chosen.

    Raises:
        UserError: the choice does not fit the network; labels are vectors, and there is neither a choice nor a data
            set with such labels.
    """
    if not G.c_dim or (choice is None and kind != VECTORS):
        return None
    if choice is None:
        return _of_data(G, kind, data)
    labels = class_labels(G.c_dim, choice, kind)
    only = ",".join(f"{number:g}" for number in choice) if isinstance(choice, tuple) else str(choice)
    return {name.removeprefix("class").rstrip("-") or only: torch.from_numpy(label) for name, label in labels.items()}


def _of_data(G: Generator, kind: str | None, data: str | None) -> Choices:
    """Some labels of a data set."""
    from training.dataset import ImageFolderDataset

    if data is None:
        class_label(G.c_dim, None, kind)  # says what to do
    assert data is not None
    dataset = ImageFolderDataset(path=data, use_labels=True)
    if dataset.label_shape != [G.c_dim]:
        raise UserError(f"expected labels of {G.c_dim} numbers, found {dataset.label_shape} in {data}", field="data")
    rows = torch.linspace(0, len(dataset) - 1, min(FROM_DATA, len(dataset))).round().int().tolist()
    return {f"of image {row}": torch.from_numpy(dataset.get_label(row)[None]) for row in rows}
