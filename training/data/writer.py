"""Writes a data set as a folder or a zip that appears only once it is complete. No torch."""
import contextlib
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dnnlib import strict_json
from dnnlib.files import atomic_dir, check_writable_dir, open_atomic

from .files import DatasetError
from .labels import LABEL_FILE

WriteFile = Callable[[str, bytes], None]


def image_name(index: int, extension: str = "png") -> str:
    """The name of the index-th image: 00012/img00012345.png."""
    return f"{index // 1000:05d}/img{index:08d}.{extension}"


@contextlib.contextmanager
def open_dest(dest: str) -> Iterator[WriteFile]:
    """Opens a data set for writing and gives a function that stores a file: `write(name, data)`.

    Everything goes to a temporary name beside `dest`. It is renamed when the body ends, and removed if the body
    raises: `dest` then stays what it was before.

    Args:
        dest: a name ending in .zip (an existing zip is replaced), or a folder that is empty or does not exist.
            Missing parent folders are made.

    Raises:
        UserError: dest is empty or of another kind, the folder is not empty, or it cannot be written.
    """
    check_dest(dest)
    parent = Path(dest).absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    try:
        with _open_zip(dest) if _is_zip(dest) else _open_folder(dest) as write:
            yield write
    except OSError as error:
        if error.errno is None or isinstance(error, DatasetError):
            raise
        raise DatasetError(f"cannot write {dest}: {error.strerror}", "dest") from error


def check_dest(dest: str) -> None:
    """Checks a name; changes nothing.

    Raises:
        UserError: `open_dest` would refuse it.
    """
    if not dest:
        raise DatasetError("expected a folder or a name ending in .zip, found an empty name", "dest")
    if _is_zip(dest):
        if os.path.isdir(dest):
            raise DatasetError(f"{dest} is a folder, expected a zip file or a name that is free", "dest")
    elif os.path.splitext(dest)[1]:
        raise DatasetError(f"{dest}: unknown kind of archive, expected a folder or a name ending in .zip", "dest")
    elif os.path.exists(dest) and not os.path.isdir(dest):
        raise DatasetError(f"{dest} is a file, expected a folder or a name ending in .zip", "dest")
    elif os.path.isdir(dest) and os.listdir(dest):
        raise DatasetError(f"folder {dest} is not empty. Empty it, or give another name.", "dest")
    check_writable_dir(Path(dest).absolute().parent, "dest")


def label_file_content(labels: dict[str, Any] | None, provenance: dict[str, Any]) -> bytes:
    """dataset.json: the labels by name, or null, and how the images were made, which loaders do not read."""
    pairs = None if labels is None else [[name, label] for name, label in labels.items()]
    return strict_json.dumps({"labels": pairs, "dataset_tool": provenance}).encode()


def write_labels(write: WriteFile, labels: dict[str, Any] | None, provenance: dict[str, Any]) -> None:
    """Stores dataset.json."""
    write(LABEL_FILE, label_file_content(labels, provenance))


def _is_zip(dest: str) -> bool:
    return dest.lower().endswith(".zip")


@contextlib.contextmanager
def _open_zip(dest: str) -> Iterator[WriteFile]:
    with open_atomic(dest) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        # A ZipInfo has a fixed date: the same images give the same zip, byte for byte.
        yield lambda name, data: archive.writestr(zipfile.ZipInfo(name), data)


@contextlib.contextmanager
def _open_folder(dest: str) -> Iterator[WriteFile]:
    existed = os.path.isdir(dest)
    if existed:
        os.rmdir(dest)  # it is empty; a folder cannot everywhere be renamed onto another
    try:
        with atomic_dir(dest) as folder:
            yield lambda name, data: _write_below(folder, name, data)
    except BaseException:
        if existed:
            os.mkdir(dest)
        raise


def _write_below(folder: Path, name: str, data: bytes) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
