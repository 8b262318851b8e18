"""Lists every file of a data set that the loader would refuse, with the reason. No torch."""
import collections
import dataclasses

from dnnlib.progress import Progress

from .files import BadFile, DatasetError, FileTree, open_tree
from .labels import empty_classes, labels_array, read_label_table
from .pixels import check_same_shape, check_square_power_of_two, decode_image


@dataclasses.dataclass(frozen=True)
class Finding:
    """One refused file: mode is PIL's (L, RGB, RGBA, ...) and size (width, height), both as far as known."""

    name: str
    mode: str
    size: tuple[int, int] | None
    reason: str

    def row(self) -> str:
        """Tab-separated: name, mode, size, reason; `-` for what is not known."""
        size = f"{self.size[0]}x{self.size[1]}" if self.size else "-"
        return "\t".join([self.name, self.mode or "-", size, self.reason])


@dataclasses.dataclass(frozen=True)
class CheckReport:
    """What `check_dataset` found. The data set is fine if `bad_files` is empty and `label_error` is None."""

    num_images: int
    shape: tuple[int, ...] | None  # [H, W, C] of most images; None if none is usable
    label_shape: list[int]  # [classes], the vector's shape, or [0] without labels
    label_error: str | None
    bad_files: list[Finding]
    empty_classes: list[int]  # class numbers that no image has


def check_dataset(path: str, resolution: int | None = None) -> CheckReport:
    """Decodes every image and reads the labels; draws a progress bar.

    The shape that most usable images have is taken for the right one, so that a single odd first image is
    reported itself, not everything else.

    Args:
        path: folder or .zip.
        resolution: the side that images must have, pixels; None takes any.

    Raises:
        DatasetError: the path is no readable folder or zip, or holds no images.
    """
    tree = open_tree(path)
    names = tree.image_names()
    if not names:
        raise DatasetError(f"{path}: no image files found")
    shapes: dict[str, tuple[int, ...]] = {}
    refused: dict[str, BadFile] = {}
    with Progress(len(names), "checking", unit="img") as progress:
        for name in names:
            try:
                shapes[name] = _usable_shape(tree, name)
            except BadFile as error:
                refused[name] = error
            progress.update()
    shape, odd = _judge_shapes(shapes, resolution)
    refused |= odd
    label_shape, label_error, holes = _check_labels(tree, names)
    bad_files = [Finding(name, refused[name].mode, refused[name].size, refused[name].reason)
                 for name in names if name in refused]
    return CheckReport(len(names), shape, label_shape, label_error, bad_files, holes)


def _usable_shape(tree: FileTree, name: str) -> tuple[int, ...]:
    shape = decode_image(tree.read(name)).shape
    check_square_power_of_two(shape)
    return shape


def _judge_shapes(
    shapes: dict[str, tuple[int, ...]], resolution: int | None
) -> tuple[tuple[int, ...] | None, dict[str, BadFile]]:
    """The right shape, and the images that have another one."""
    if not shapes:
        return None, {}
    shape = collections.Counter(shapes.values()).most_common(1)[0][0]
    reference = "most images are"
    if resolution is not None:
        shape = (resolution, resolution, shape[2])
        reference = "requested"
    odd = {}
    for name, image_shape in shapes.items():
        try:
            check_same_shape(image_shape, shape, reference)
        except BadFile as error:
            odd[name] = error
    return shape, odd


def _check_labels(tree: FileTree, names: list[str]) -> tuple[list[int], str | None, list[int]]:
    """The shape of the labels, what is wrong with them, and the classes without images."""
    try:
        table = read_label_table(tree)
        if table is None:
            return [0], None, []
        labels = labels_array(names, table, tree.path)
    except DatasetError as error:
        return [0], str(error), []
    shape = [int(labels.max()) + 1] if labels.ndim == 1 else list(labels.shape[1:])
    return shape, None, empty_classes(labels)
