"""dataset_tool.py with the MNIST family, CIFAR-10 and LSUN: values, labels and every error."""
import gzip
import io
import os
import pickle
import struct
import sys
import tarfile
import types
from pathlib import Path

import numpy as np
import pytest

from tests.cli.dataset_tool_runs import assert_refused, convert, converted, file_names, label_file, pixels_of
from tests.helpers import image_bytes, random_images
from training.data.dataset import ImageFolderDataset


@pytest.fixture(params=["out", "out.zip"])
def dest(request, tmp_path) -> Path:
    return tmp_path / request.param


# MNIST family.


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    with gzip.open(path, "wb") as file:
        file.write(header + array.tobytes())


@pytest.fixture
def mnist(tmp_path):
    """A tiny MNIST: the path of its images file, the images [N, 28, 28] and the labels."""
    rng = np.random.RandomState(0)
    images, labels = rng.randint(0, 256, (5, 28, 28), dtype=np.uint8), np.array([3, 0, 9, 1, 1], np.uint8)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    write_idx(path, images)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", labels)
    return types.SimpleNamespace(path=path, images=images, labels=labels)


def test_mnist(mnist, dest):
    dataset = converted(mnist.path, dest)
    stored = pixels_of(dataset)
    assert stored.shape == (5, 32, 32, 1)
    np.testing.assert_array_equal(stored[:, 2:-2, 2:-2, 0], mnist.images)
    assert stored.sum() == mnist.images.sum()
    assert [int(dataset.get_label(i).argmax()) for i in range(5)] == mnist.labels.tolist()
    assert dataset.label_dim == 10


def test_mnist_as_rgb_and_a_part_of_it(mnist, tmp_path):
    dataset = converted(mnist.path, tmp_path / "out.zip", "--force-channels=3", "--range=3:5", "--resolution=16x16")
    assert pixels_of(dataset).shape == (2, 16, 16, 3)
    assert label_file(tmp_path / "out.zip")["labels"] == [["00000/img00000003.png", 1], ["00000/img00000004.png", 1]]


def test_mnist_errors(mnist, tmp_path):
    labels_path = tmp_path / "t10k-labels-idx1-ubyte.gz"
    whole = mnist.path.read_bytes()
    mnist.path.write_bytes(whole[: len(whole) // 2])
    assert_refused(convert(mnist.path, tmp_path / "out"), tmp_path, str(mnist.path), "cannot be unpacked")
    mnist.path.write_bytes(b"no gzip")
    assert_refused(convert(mnist.path, tmp_path / "out"), tmp_path, str(mnist.path), "cannot be unpacked")
    mnist.path.write_bytes(labels_path.read_bytes())
    assert_refused(convert(mnist.path, tmp_path / "out"), tmp_path, "is no idx file of bytes in 3 dimensions")
    write_idx(mnist.path, mnist.images[:, :20])
    assert_refused(convert(mnist.path, tmp_path / "out"), tmp_path, "expected 28x28 images, found 28x20")
    write_idx(mnist.path, mnist.images[:4])
    assert_refused(convert(mnist.path, tmp_path / "out"), tmp_path, str(labels_path), "5 labels for 4 images")
    with gzip.open(mnist.path, "wb") as file:
        file.write(struct.pack(">BBBBIII", 0, 0, 8, 3, 5, 28, 28) + b"short")
    message = "expected 3936 bytes for shape [5, 28, 28], found 21"
    assert_refused(convert(mnist.path, tmp_path / "out"), tmp_path, message)
    labels_path.unlink()
    assert_refused(convert(mnist.path, tmp_path / "out"), tmp_path, "its labels file is missing", str(labels_path))


# CIFAR-10.


def python2_batch(data: np.ndarray, labels: list[int]) -> bytes:
    """A batch as the real archive has it: protocol 2 of Python 2, where the array's bytes are a str."""
    def text(value: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(value)) + value

    def numbers(*values: int) -> bytes:
        return b"".join(b"J" + struct.pack("<i", value) for value in values)

    dtype = b"cnumpy\ndtype\n(" + text(b"u1") + numbers(0, 1) + b"tR(" + numbers(3) + text(b"|") + b"NNN"
    dtype += numbers(-1, -1, 0) + b"tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(" + numbers(0) + b"t" + text(b"b") + b"tR"
    array += b"(" + numbers(1) + b"(" + numbers(*data.shape) + b"t" + dtype + b"\x89" + text(data.tobytes()) + b"tb"
    items = [(b"data", array), (b"labels", b"](" + numbers(*labels) + b"e"), (b"batch_label", text(b"batch 1 of 5"))]
    return b"\x80\x02}(" + b"".join(text(key) + value for key, value in items) + b"u."


def write_cifar(folder: Path, batches: list[bytes]) -> Path:
    path = folder / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for number, content in enumerate(batches, start=1):
            info = tarfile.TarInfo(f"cifar-10-batches-py/data_batch_{number}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def cifar_images() -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (5, 2, 32, 32, 3), dtype=np.uint8)


def cifar_content(images: np.ndarray) -> dict:
    return {"data": images.transpose(0, 3, 1, 2).reshape(len(images), -1), "labels": [1, 0]}


def python2_writer(images: np.ndarray) -> bytes:
    return python2_batch(**cifar_content(images))


def python3_writer(images: np.ndarray) -> bytes:
    return pickle.dumps(cifar_content(images), protocol=2)


@pytest.mark.parametrize("write", [python2_writer, python3_writer])
def test_cifar10(tmp_path, dest, cifar_images, write):
    dataset = converted(write_cifar(tmp_path, [write(images) for images in cifar_images]), dest)
    np.testing.assert_array_equal(pixels_of(dataset), cifar_images.reshape(10, 32, 32, 3))
    assert [int(dataset.get_label(i).argmax()) for i in range(10)] == [1, 0] * 5


def test_the_fixture_is_a_pickle_like_the_real_one(cifar_images):
    content = pickle.loads(python2_writer(cifar_images[0]).replace(b"numpy.core", b"numpy._core")
                           if np.__version__ >= "2" else python2_writer(cifar_images[0]), encoding="latin1")
    np.testing.assert_array_equal(content["data"], cifar_content(cifar_images[0])["data"])


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (b"\x80\x02cos\nsystem\n(X\x04\x00\x00\x00exittR.", "was refused: it names os.system"),
        (b"\x80\x02cbuiltins\neval\n(X\x01\x00\x00\x001tR.", "was refused: it names builtins.eval"),
        (b"\x80\x02cnumpy\nload\n(tR.", "was refused: it names numpy.load"),
        (b"\x80\x02c_codecs\nencode\n(X\x01\x00\x00\x001X\x03\x00\x00\x00hextR.", "was refused: it asks for the codec"),
        (b"Pabc\n.", "was refused: it holds a persistent id"),
        (b"", "is no CIFAR-10 batch"),
        (b"junk", "is no CIFAR-10 batch"),
        (pickle.dumps({"labels": [1]}, protocol=2), "is no CIFAR-10 batch"),
        (pickle.dumps({"data": 3, "labels": [1]}, protocol=2), "is no CIFAR-10 batch"),
        (pickle.dumps({"data": np.zeros([1, 3072]), "labels": [1]}, protocol=2), "its data is no plain array of bytes"),
        (pickle.dumps({"data": np.zeros([2, 9], np.uint8), "labels": [1, 2]}, protocol=2),
         "has data of shape (2, 9) for (2,) labels, expected [N, 3072]"),
        (pickle.dumps({"data": np.zeros([1, 3072], np.uint8), "labels": [1, 2]}, protocol=2),
         "has data of shape (1, 3072) for (2,) labels"),
    ],
)
def test_cifar10_batches_that_are_refused(tmp_path, cifar_images, batch, message):
    path = write_cifar(tmp_path, [python2_writer(cifar_images[0]), batch])
    assert_refused(convert(path, tmp_path / "out"), tmp_path, f"{path}: cifar-10-batches-py/data_batch_2", message)


def test_cifar10_archives_that_are_refused(tmp_path, cifar_images):
    path = write_cifar(tmp_path, [python2_writer(images) for images in cifar_images[:4]])
    assert_refused(convert(path, tmp_path / "out"), tmp_path, "data_batch_5 is missing")
    whole = path.read_bytes()
    for content in (b"", b"junk", whole[: len(whole) // 2]):
        path.write_bytes(content)
        assert_refused(convert(path, tmp_path / "out"), tmp_path, f"{path}: cannot be unpacked")


# LSUN, with a stand-in for the lmdb package.


class FakeDatabase:
    def __init__(self, items: dict[bytes, bytes]):
        self.items = items

    def stat(self) -> dict:
        return {"entries": len(self.items)}

    def begin(self, buffers: bool):
        return self

    def cursor(self):
        return iter(self.items.items())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


@pytest.fixture
def lsun(tmp_path, monkeypatch):
    """An LSUN folder with two good images and an undecodable one between them, and the images."""
    images = list(random_images(2).values())
    items = {b"k0": image_bytes(images[0]), b"k1": b"junk", b"k2": image_bytes(images[1])}
    module = types.ModuleType("lmdb")
    module.Error = type("Error", (Exception,), {})

    def open_database(path, readonly, lock):
        if not os.listdir(path):
            raise module.Error("no data.mdb")
        return FakeDatabase(items)

    module.open = open_database
    monkeypatch.setitem(sys.modules, "lmdb", module)
    folder = tmp_path / "bedroom_train_lmdb"
    folder.mkdir()
    (folder / "data.mdb").write_bytes(b"")
    return types.SimpleNamespace(path=folder, images=images)


def test_lsun_skips_and_reports_what_cannot_be_decoded(lsun, tmp_path):
    result = convert(lsun.path, tmp_path / "out.zip")
    assert result.exit_code == 0, result.output
    assert "left out, bad: k1: cannot be read" in result.output
    assert file_names(tmp_path / "out.zip") == ["00000/img00000000.png", "00000/img00000002.png", "dataset.json"]
    np.testing.assert_array_equal(pixels_of(ImageFolderDataset(str(tmp_path / "out.zip"))), np.stack(lsun.images))


def test_lsun_errors(lsun, tmp_path, monkeypatch):
    (lsun.path / "data.mdb").unlink()
    result = convert(lsun.path, tmp_path / "out")
    assert_refused(result, tmp_path, f"{lsun.path}: cannot be read as an LMDB database: no data.mdb")
    monkeypatch.setitem(sys.modules, "lmdb", None)
    assert_refused(convert(lsun.path, tmp_path / "out"), tmp_path, "needs the lmdb package: pip install lmdb")


def test_a_real_lsun_database(tmp_path):
    lmdb = pytest.importorskip("lmdb")
    images = list(random_images(2).values())
    path = tmp_path / "cat_lmdb"
    with lmdb.open(str(path), map_size=2**20) as database, database.begin(write=True) as transaction:
        for key, data in ((b"b", image_bytes(images[1])), (b"a", image_bytes(images[0])), (b"c", b"junk")):
            transaction.put(key, data)
    result = convert(path, tmp_path / "out.zip")
    assert result.exit_code == 0, result.output
    assert "left out, bad: c: cannot be read" in result.output
    np.testing.assert_array_equal(pixels_of(ImageFolderDataset(str(tmp_path / "out.zip"))), np.stack(images))


def test_sub_folders_as_labels_needs_folders(mnist, tmp_path):
    result = convert(mnist.path, tmp_path / "out", "--subfolders-as-labels")
    assert_refused(result, tmp_path, "--subfolders-as-labels: needs a folder or zip as --source")
