"""Teachers: opened once per process, shared while they are frozen, copied where they are trained."""
import builtins
import functools
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import train
from dgl import teacher as teachers
from tests import tiny, tiny_biggan
from tests.helpers import GOLDEN, run_command
from training.biggan import checkpoints as biggan_checkpoints
from training.checkpoints import pickles
from training.data import image_grid

CPU = torch.device("cpu")

@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.write_teacher(tmp_path_factory.mktemp("teacher") / "counted.pkl")


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    teachers.release_all()


def test_a_teacher_that_is_kept_is_not_opened_again(tmp_path: Path) -> None:
    path = tiny.write_teacher(tmp_path / "teacher.pkl")
    first = teachers.load(path)
    os.unlink(path)
    assert teachers.load(path, sha256=first.sha256) is first
    with pytest.raises(teachers.TeacherError, match="no such file"):
        teachers.load(path)
    teachers.release_all()
    with pytest.raises(teachers.TeacherError, match="no such file") as caught:
        teachers.load(path, sha256=first.sha256)
    assert caught.value.field == "teacher"


def test_a_changed_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "teacher.pkl"
    path.write_bytes(b"no pickle")
    with pytest.raises(teachers.TeacherError, match=r"has changed: its sha256 is [0-9a-f]{64}, this run began with 00"):
        teachers.load(str(path), trust_pickle=True, sha256="00")


def test_frozen_teachers_are_shared_and_trained_ones_are_copies(path: str) -> None:
    loaded = teachers.load(path)
    frozen = teachers.TeacherSet([loaded, loaded], CPU, with_generator=True)
    assert frozen.first is loaded
    assert frozen.discriminators == [loaded.D, loaded.D]
    assert frozen.state_dict() == {}
    trained = teachers.TeacherSet([loaded, loaded], CPU, update=True)
    assert trained.first is None
    copies = trained.discriminators
    assert len({id(D) for D in (*copies, loaded.D)}) == 3
    assert all(D.training for D in copies)
    with torch.no_grad():
        next(copies[0].parameters()).add_(1)
    assert not loaded.D.training
    assert torch.equal(next(copies[1].parameters()), next(loaded.D.parameters()))
    again = teachers.TeacherSet([loaded, loaded], CPU, update=True)
    again.load_state_dict(trained.state_dict())
    assert torch.equal(next(again.discriminators[0].parameters()), next(copies[0].parameters()))


def test_opening_the_set_releases_what_was_kept(path: str) -> None:
    loaded = teachers.load(path)
    opened = teachers.TeacherSet.open([{"url": path, "sha256": loaded.sha256}], CPU, with_generator=True)
    assert opened.first is loaded
    assert teachers.load(path, sha256=loaded.sha256) is not loaded


@pytest.mark.parametrize("kind", ["pickle", "folder", "style-based .pth"])
def test_every_file_is_opened_once(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was hashed is what is read; the options beside the networks of a folder count as a file."""
    place = tmp_path / "teacher"
    place.mkdir()
    url = place
    if kind == "folder":
        nets = tiny_biggan.tiny_networks()
        biggan_checkpoints.save_checkpoint(place, {name: nets[name] for name in ("G", "G_ema", "D")})
    elif kind == "pickle":
        url = Path(tiny.write_teacher(place / "net.pkl"))
    else:
        url = Path(shutil.copy(GOLDEN / "rosinality_64.pt", place / "net.pth"))
    opened: list[str] = []
    monkeypatch.setattr(builtins, "open", noting(opened, open))
    loaded = teachers.load(str(url))
    assert sorted(path for path in opened if path.startswith(str(place))) == sorted(map(str, place.iterdir()))
    content = b"".join(path.read_bytes() for path in map(Path, opened) if path.parent == place)
    assert loaded.sha256 == hashlib.sha256(content).hexdigest()
    monkeypatch.undo()
    assert pickles.open_networks(str(url))["G_ema"].img_resolution == loaded.G_ema.img_resolution


def noting(opened: list[str], real: Callable[..., object]) -> Callable[..., object]:
    """`open` that also appends the paths it is given."""

    def noting_open(file: object, *args: object, **kwargs: object) -> object:
        opened.append(str(file))
        return real(file, *args, **kwargs)

    return noting_open


def training(recipe: str, gpus: int, path: str, folder: Path) -> list[str]:
    """A short training with every part that needs the teacher: options, initial weights, guidance, distillation."""
    images = tiny.write_data(folder / "data") if recipe == "paper" else "teacher"
    return ["train.py", "--cfg=dgl", f"--recipe={recipe}", f"--teacher={path}", "--width=0.5", f"--data={images}",
            f"--outdir={folder}/runs", "--kd=feature", "--kimg=1", "--batch=500", "--batch-gpu=250", "--metrics=none",
            "--workers=0", "--device=cpu", f"--gpus={gpus}"]


@pytest.mark.parametrize("recipe", ["paper", "distil"])
def test_a_run_opens_its_teacher_once(
    recipe: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(builtins, "open", noting(opened, open))
    monkeypatch.setattr(image_grid, "MAX_PIXELS", (1, 1))
    run_command(training(recipe, 1, path, tmp_path))
    assert opened.count(path) == 1


def noting_process(path: str, folder: Path, *args: Any) -> None:
    """A rank of train.py that leaves behind how often it opened `path`."""
    opened: list[str] = []
    builtins.open = noting(opened, open)  # type: ignore[assignment]
    train._process(*args)
    (folder / f"rank{os.environ['RANK']}").write_text(str(opened.count(path)))


@pytest.mark.slow
def test_a_run_of_two_ranks_opens_its_teacher_once_per_process(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher, which checks the options, is one more process."""
    opened: list[str] = []
    monkeypatch.setattr(builtins, "open", noting(opened, open))
    monkeypatch.setattr(train, "_process", functools.partial(noting_process, path, tmp_path))
    run_command(training("paper", 2, path, tmp_path))
    assert opened.count(path) == 1
    assert [(tmp_path / f"rank{rank}").read_text() for rank in (0, 1)] == ["1", "1"]
