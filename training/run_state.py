"""The complete state of a training run on disk, for exact resuming: written atomically, the last two kept."""
import logging
import os
import re
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import torch

from dnnlib import files
from dnnlib.bounded import open_regular
from dnnlib.errors import UserError, printable
from torch_utils import distributed
from torch_utils.checkpoint.writing import torch_save
from torch_utils.launch import is_network_error

from .reporting import print_line

VERSION = 1
KEPT = 2
_NAME = re.compile(r"training-state-(\d{9})\.pt")
_ADVICE = "start a new run from one of its network pickles"
_log = logging.getLogger(__name__)


class ResumeError(UserError):
    """A run that cannot be resumed."""


def state_files(run_dir: str | os.PathLike) -> list[Path]:
    """The state files of a run, newest first."""
    folder = Path(run_dir, "state")
    paths = [path for path in folder.glob("training-state-*.pt") if _NAME.fullmatch(path.name)]
    return sorted(paths, key=lambda path: path.name, reverse=True)


def save(run_dir: str | os.PathLike, state: dict[str, Any]) -> Path:
    """Writes a state (tensors and plain values, with `cur_nimg`) and removes all but the last two."""
    folder = Path(run_dir, "state")
    folder.mkdir(exist_ok=True)
    path = folder / f"training-state-{state['cur_nimg']:09d}.pt"
    with files.open_atomic(path, "wb") as f:
        torch_save({"version": VERSION, **state}, f)
    for old in state_files(run_dir)[KEPT:]:
        old.unlink()
    return path


def remove_unfinished(run_dir: str | os.PathLike) -> None:
    """Removes what a killed process had been writing in the folder of a run that is resumed."""
    for folder in (Path(run_dir), Path(run_dir, "state")):
        files.remove_unfinished(folder)


def resume(run_dir: str | os.PathLike) -> dict[str, Any] | None:
    """The state to resume a run from, the same on every rank, with what a killed process left removed; collective.

    Returns:
        The newest state; None if the run has not saved any yet.

    Raises:
        ResumeError: there is a state, but none that can be resumed from; the message says why.
    """
    state = load_common(run_dir)
    if distributed.is_main():
        remove_unfinished(run_dir)
    print_line(f"Resuming from image {state['cur_nimg']:,}" if state else "No state was saved yet: starting over")
    return state


def load_common(run_dir: str | os.PathLike) -> dict[str, Any] | None:
    """`load_latest` of every rank; collective.

    Raises:
        ResumeError: as there, or the ranks did not find the same state.
    """
    state = load_latest(run_dir)
    images = distributed.gather_objects(state["cur_nimg"] if state else None)
    for rank, image in enumerate(images):
        if image != images[0]:
            raise ResumeError(f"{run_dir}: rank 0 found {_of_image(images[0])}, but rank {rank} {_of_image(image)}; "
                              "let all machines see the same folder")
    return state


def _of_image(image: int | None) -> str:
    return "no state" if image is None else f"the state of image {image:,}"


def _read(path: Path) -> dict[str, Any]:
    with open_regular(path) as file, ZipFile(file) as archive:
        if any(entry.compress_type != ZIP_STORED for entry in archive.infolist()):
            raise ValueError("torch writes nothing compressed")  # it might unpack to any size
        damaged = archive.testzip()  # torch does not verify the checksums
    if damaged is not None:
        raise ValueError(f"{damaged} in it is damaged")
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or (
        state.get("version") in (None, VERSION) and not _is_count(state.get("cur_nimg"))
    ):
        raise ValueError("it is no state of a run")
    return state


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


@contextmanager
def restoring(run_dir: str | os.PathLike) -> Iterator[None]:
    """For a body that takes over the options and the state of a run directory: it trips over what these hold.

    Raises:
        ResumeError: they do not fit each other, or are not what a run writes.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if is_network_error(error):
            raise
        reason = printable(" ".join(f"{type(error).__name__}: {error}".split()))[:200]
        raise ResumeError(
            f"{os.fspath(run_dir)}: its options or its state cannot be used ({reason}); {_ADVICE}"
        ) from error


def load_latest(run_dir: str | os.PathLike) -> dict[str, Any] | None:
    """The newest state of a run that can be read; None if the run has not saved any yet.

    Raises:
        ResumeError: there are state files, but none can be read; or there are none, although there were.
    """
    paths = state_files(run_dir)
    for path in paths:
        try:
            state = _read(path)
        except Exception as error:  # of zipfile, pickle and torch, whatever they trip over
            _log.warning("%s cannot be read (%s); trying the one before", path, " ".join(str(error).split())[:300])
            continue
        if state.get("version") != VERSION:
            version = " ".join(reprlib.repr(state.get("version")).split())
            raise ResumeError(f"{path}: expected a state of version {VERSION}, found {version}; "
                              "resume with the release that wrote it")
        return state
    if paths:
        raise ResumeError(f"{run_dir}: none of the {len(paths)} state files can be read; {_ADVICE}")
    snapshots = sorted(path.name for path in Path(run_dir).glob("network-snapshot-*.pkl"))
    if snapshots:  # a state is always saved before them
        raise ResumeError(f"{run_dir}: the files in state/ are missing, but there is the snapshot {snapshots[-1]}, "
                          f"which starting over would replace; bring them back, or {_ADVICE}")
    return None
