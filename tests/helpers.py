"""What several test files share."""
import functools
import importlib
import io
import json
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from click.testing import CliRunner

GOLDEN = Path(__file__).parent / "golden"


@functools.cache
def golden(name: str) -> dict[str, np.ndarray]:
    """The reference arrays of tests/golden/<name>.npz."""
    with np.load(GOLDEN / f"{name}.npz") as data:
        return dict(data)


def random_images(num: int, side: int = 8, num_channels: int = 3, first: int = 0, seed: int = 0) -> dict[str, Any]:
    """Image name → random uint8 [side, side, num_channels]; the names are 0.png, 1.png, ... from `first` on."""
    rng = np.random.RandomState(seed)
    shape = (side, side, num_channels)
    return {f"{first + i}.png": rng.randint(0, 256, shape, dtype=np.uint8) for i in range(num)}


def image_bytes(image: np.ndarray | PIL.Image.Image, suffix: str = ".png") -> bytes:
    """An image file; arrays [H, W, 1] become greyscale."""
    if isinstance(image, np.ndarray):
        image = PIL.Image.fromarray(image[:, :, 0] if image.shape[2:] == (1,) else image)
    buffer = io.BytesIO()
    image.save(buffer, format=PIL.Image.registered_extensions()[suffix.lower()])
    return buffer.getvalue()


def write_images(folder: Path, images: dict[str, Any], labels: list[Any] | None = None) -> Path:
    """Stores images (arrays or file contents) by name in a folder, with a dataset.json if there are labels."""
    folder.mkdir(exist_ok=True)
    for name, image in images.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image if isinstance(image, bytes) else image_bytes(image, path.suffix))
    if labels is not None:
        pairs = [list(pair) for pair in zip(images, labels, strict=True)]
        (folder / "dataset.json").write_text(json.dumps({"labels": pairs}))
    return folder


def zip_folder(folder: Path) -> Path:
    """The files of a folder as FOLDER.zip."""
    path = folder.with_name(folder.name + ".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.rglob("*"):
            if file.is_file():
                archive.write(file, file.relative_to(folder).as_posix())
    return path


def damage_zip_entry(path: Path, name: str) -> None:
    """Flips one bit in the middle of an uncompressed entry."""
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(name)
    content = bytearray(path.read_bytes())
    content[entry.header_offset + 30 + len(name) + entry.file_size // 2] ^= 1  # 30: the fixed part of its header
    path.write_bytes(content)


def is_alive(pid: int) -> bool:
    """Whether a process runs (and is no zombie that nobody collects)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool], timeout_sec: float = 60) -> None:
    """Returns once the condition is true; fails if it never is."""
    deadline = time.monotonic() + timeout_sec
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def forget_statistics() -> None:
    """A training may begin in this process as if it were a new one."""
    from torch_utils import training_stats

    training_stats._counters = training_stats._Counters()


def run_command(words: Sequence[str]) -> str:
    """What a command line of this project, `train.py ...` or `-m package.module ...`, prints; run in this process.

    A process of its own would take seconds to import torch.
    """
    forget_statistics()
    name, arguments = (words[1], words[2:]) if words[0] == "-m" else (words[0].removesuffix(".py"), words[1:])
    result = CliRunner().invoke(importlib.import_module(name).main, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout
