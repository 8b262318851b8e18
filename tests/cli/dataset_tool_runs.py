"""Runs dataset_tool.py in this process and looks at what it left, for its test files."""
import json
import zipfile
from pathlib import Path

import numpy as np
from click.testing import CliRunner, Result

import dataset_tool
from training.data.dataset import ImageFolderDataset


def run(*args: object) -> Result:
    result = CliRunner().invoke(dataset_tool.main, [str(arg) for arg in args])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


def convert(source, dest, *args: object) -> Result:
    return run(f"--source={source}", f"--dest={dest}", *args)


def converted(source, dest, *args: object) -> ImageFolderDataset:
    result = convert(source, dest, *args)
    assert result.exit_code == 0, result.output
    return ImageFolderDataset(str(dest), use_labels=True)


def pixels_of(dataset) -> np.ndarray:
    return np.stack([image for image, _ in dataset]).transpose(0, 2, 3, 1)


def file_names(dest: Path) -> list[str]:
    if dest.suffix == ".zip":
        with zipfile.ZipFile(dest) as archive:
            return sorted(archive.namelist())
    return sorted(path.relative_to(dest).as_posix() for path in dest.rglob("*") if path.is_file())


def label_file(dest: Path) -> dict:
    with zipfile.ZipFile(dest) as archive:
        return json.loads(archive.read("dataset.json"))


def assert_refused(result: Result, tmp_path: Path, *parts: str, status: int = 1) -> None:
    """The run failed, said all the parts, and left no trace of a destination named out*."""
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    for part in parts:
        assert part in result.output
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]
