import gzip
import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from dnnlib.errors import UserError
from metrics.detector import DetectorSpec, load
from metrics.detector_training import augment, read_idx
from metrics.train_detector import main


def idx_file(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">i4").tobytes()
    return gzip.compress(header + array.astype(np.uint8).tobytes())


@pytest.fixture
def data_dir(tmp_path):
    """Two classes that are easy to tell: bright above, bright below."""
    rng = np.random.RandomState(0)
    for split, num in (("train", 512), ("t10k", 64)):
        labels = rng.randint(2, size=num)
        images = rng.randint(0, 60, size=(num, 28, 28))
        images[labels == 0, :14] += 150
        images[labels == 1, 14:] += 150
        (tmp_path / f"{split}-images-idx3-ubyte.gz").write_bytes(idx_file(images))
        (tmp_path / f"{split}-labels-idx1-ubyte.gz").write_bytes(idx_file(labels))
    return tmp_path


def test_train_and_export(data_dir, tmp_path):
    dest = tmp_path / "out" / "halves.pt"
    args = [f"--data={data_dir}", f"--dest={dest}", "--epochs=4", "--batch=32"]
    result = CliRunner().invoke(main, args, catch_exceptions=False)
    assert result.exit_code == 0
    card = json.loads(dest.with_suffix(".json").read_text())
    assert card["test_accuracy"] == 1
    assert (card["num_classes"], card["num_train"], card["num_test"]) == (2, 512, 64)
    assert f"--dest={dest} --epochs=4 --batch=32 --lr=0.004 --seed=0" in card["command"]
    detector = load(DetectorSpec(str(dest), card["sha256"]), torch.device("cpu"))
    images = torch.from_numpy(read_idx(data_dir / "t10k-images-idx3-ubyte.gz").copy()).unsqueeze(1)
    labels = read_idx(data_dir / "t10k-labels-idx1-ubyte.gz")
    assert (detector(images).argmax(dim=1).numpy() == labels).mean() > 0.95
    assert detector(images, return_features=True).shape == (64, card["feature_dim"])


def test_augmentation_moves_and_mirrors_only():
    images = torch.full([200, 1, 32, 32], -1.0)
    images[:, :, 10, 12] = 1
    moved = augment(images, torch.Generator().manual_seed(0))
    assert moved.sum(dim=[1, 2, 3]).tolist() == images.sum(dim=[1, 2, 3]).tolist()
    rows, cols = (moved[:, 0] == 1).nonzero(as_tuple=True)[1:]
    assert set(rows.tolist()) == set(range(8, 13))
    assert set(cols.tolist()) == set(range(10, 15)) | set(range(17, 22))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read .*a.gz"),
        (b"plain", "cannot read .*a.gz"),
        (idx_file(np.zeros(3))[:-4], "cannot read .*a.gz"),
        (gzip.compress(b"\0\0\x0d\x03" + bytes(100)), ".*a.gz is not an idx file of unsigned bytes"),
        (gzip.compress(gzip.decompress(idx_file(np.zeros(8)))[:-3]), ".*a.gz is cut short: expected 8 bytes, found 5"),
    ],
    ids=["missing", "plain", "torn", "floats", "short"],
)
def test_bad_data(tmp_path, content, message):
    path = tmp_path / "a.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"data: {message}"):
        read_idx(path)


def test_missing_data_is_one_line(tmp_path):
    result = CliRunner().invoke(main, [f"--data={tmp_path}", f"--dest={tmp_path}/d.pt"])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: --data: cannot read {tmp_path}/train-images-idx3-ubyte.gz")
    assert len(result.stderr.splitlines()) == 1
