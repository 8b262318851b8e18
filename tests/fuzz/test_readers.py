"""Damaged files of every kind, given to the readers: refused in one line or loaded, never anything else.

A few hundred cases of each kind run with the tests; `make fuzz` runs many more (FUZZ_CASES=n of each kind).
"""
import gzip
import io
import json
import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dnnlib import arrays
from dnnlib.errors import UserError
from metrics import script_safety
from tests.cli.test_dataset_people import example, with_orientation, write_records
from tests.fuzz.mutations import Count, damaged, fuzz
from tests.helpers import image_bytes, random_images, write_images, zip_folder
from tests.robustness import record
from torch_utils import checkpoint
from training.data.conversion import ConvertOptions, convert
from training.data.dataset import ImageFolderDataset
from training.data.files import BadFile
from training.data.pixels import read_picture

ROOT = Path(__file__).parents[2]
CASES = int(os.environ.get("FUZZ_CASES", "60"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))


@pytest.fixture(autouse=True)
def _no_warnings():
    """What Pillow and NumPy warn of in damaged files is not at issue."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def check(count: Count, name: str) -> None:
    print(f"{name}, seed {SEED}: {count}")  # noqa: T201, shown when a case fails
    record("fuzz", [{"name": name, "seed": SEED, "tried": count.tried, "refused": count.refused,
                     "loaded": count.loaded, "failed": len(count.failures)}])
    assert count.failures == []
    assert count.tried == count.loaded + count.refused > 0


def read_pickle(path: Path) -> object:
    with open(path, "rb") as file:
        return checkpoint.read(file)


@pytest.mark.parametrize("name", ["gray32.pkl", "tf_ada_cond_32.pkl", "sg3tree_sg2.pkl"])
def test_network_pickles(tmp_path: Path, name: str) -> None:
    content = (ROOT / "tests" / "golden" / name).read_bytes()
    check(fuzz(tmp_path / "a.pkl", damaged(content, SEED, CASES), read_pickle), f"pickle, {name}")


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files(tmp_path: Path, zipped: bool) -> None:
    buffer = io.BytesIO()
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": [1, "x", None], "c": torch.nn.Parameter(torch.ones(3).half())}
    torch.save(state, buffer, _use_new_zipfile_serialization=zipped)
    contents = damaged(buffer.getvalue(), SEED, 3 * CASES)
    check(fuzz(tmp_path / "a.pth", contents, checkpoint.read_torch_file), f"torch.save, zip: {zipped}")


@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_arrays(tmp_path: Path, suffix: str) -> None:
    buffer = io.BytesIO()
    w = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    np.savez(buffer, w=w) if suffix == "npz" else np.save(buffer, w)
    check(fuzz(tmp_path / "a", damaged(buffer.getvalue(), SEED, 3 * CASES), arrays.load_arrays), f"arrays, .{suffix}")


def picture_of(path: Path) -> object:
    try:
        return read_picture(path.read_bytes(), channels=3)
    except BadFile as error:
        raise UserError(error.describe("a")) from error


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".gif", ".tif", ".ppm"])
def test_images(tmp_path: Path, suffix: str) -> None:
    content = image_bytes(next(iter(random_images(1, side=16).values())), suffix)
    check(fuzz(tmp_path / "a", damaged(content, SEED, CASES), picture_of), f"picture, {suffix}")


def test_photographs(tmp_path: Path) -> None:
    check(fuzz(tmp_path / "a", damaged(with_orientation(6, "jpeg"), SEED, CASES), picture_of), "picture, EXIF")


def items_of(path: Path) -> object:
    dataset = ImageFolderDataset(str(path), use_labels=True)
    try:
        return [dataset[i] for i in range(len(dataset))]
    finally:
        dataset.close()


def test_zips(tmp_path: Path) -> None:
    content = zip_folder(write_images(tmp_path / "in", random_images(3), [0, 1, 0])).read_bytes()
    check(fuzz(tmp_path / "a.zip", damaged(content, SEED, 3 * CASES), items_of), "zip of images")


def test_label_files(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", random_images(2))
    content = json.dumps({"labels": [["0.png", [0.5, 1]], ["1.png", [1e300, -2]]]}).encode()
    contents = damaged(content, SEED, 3 * CASES)
    check(fuzz(folder / "dataset.json", contents, lambda path: items_of(path.parent)), "dataset.json")


def converter(tmp_path: Path) -> Callable[[Path], object]:
    def read(path: Path) -> object:
        dest = tmp_path / "out.zip"
        try:
            return convert(ConvertOptions(source=str(path), dest=str(dest)))
        finally:
            dest.unlink(missing_ok=True)

    return read


def test_idx_files(tmp_path: Path) -> None:
    images = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (2, 28, 28)) + bytes(2 * 28 * 28)
    labels = gzip.compress(b"\0\0\x08\x01" + (2).to_bytes(4, "big") + b"\1\2")
    (tmp_path / "a-labels-idx1-ubyte.gz").write_bytes(labels)
    path = tmp_path / "a-images-idx3-ubyte.gz"
    contents = (gzip.compress(data) for data in damaged(images, SEED, CASES))
    check(fuzz(path, contents, converter(tmp_path)), "IDX")
    check(fuzz(path, damaged(gzip.compress(images, mtime=0), SEED, CASES), converter(tmp_path)), "IDX, its gzip")


def test_tfrecords(tmp_path: Path) -> None:
    records = [example(image, packed=True) for image in random_images(2).values()]
    content = write_records(tmp_path / "a.tfrecords", records).read_bytes()
    check(fuzz(tmp_path / "a.tfrecords", damaged(content, SEED, 2 * CASES), converter(tmp_path)), "TFRecords")


def script_of(path: Path) -> object:
    try:
        return script_safety.checked_copy(path.read_bytes())
    except (script_safety.UnsafeScript, script_safety.DamagedScript) as error:
        raise UserError(str(error)) from error


def test_detectors(tmp_path: Path) -> None:
    with zipfile.ZipFile(ROOT / "metrics" / "detectors" / "clothing32.pt") as archive:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as small:
            for name in archive.namelist():
                small.writestr(zipfile.ZipInfo(name), archive.read(name)[:400])
    check(fuzz(tmp_path / "d.pt", damaged(buffer.getvalue(), SEED, CASES), script_of), "TorchScript detector")
