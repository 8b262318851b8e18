"""Keeps compiled kernels on disk, and sees to it that only one process builds them at a time.

A build happens in a nameless folder that gets its name when it is complete, so no process ever reads half of one.
"""
import functools
import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

import dnnlib
from dnnlib.files import atomic_dir, write_json_atomic
from dnnlib.locks import try_lock
from dnnlib.private_dirs import digest, is_private, private_dir

from .archs import Targets
from .errors import BackendError

SOURCES = Path(__file__).parents[1] / "csrc"
LOCK_TIMEOUT_SEC = 330.0  # longer than a build may take (nvcc.BUILD_TIMEOUT_SEC), so a holder for longer hangs
_ABANDONED_SEC = 3600.0
_POLL_SEC = 0.1
_PATIENCE_SEC = 3.0  # then a process that waits says what for

_log = logging.getLogger(__name__)


@functools.cache
def sources() -> dict[str, str]:
    """The kernels' source files by name."""
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(SOURCES.glob("*.cu*"))}


@functools.cache
def source_hash() -> str:
    """Changes whenever the kernels do."""
    return hashlib.sha256(json.dumps(sources()).encode()).hexdigest()[:16]


def root() -> Path:
    """The folder of all builds."""
    return Path(dnnlib.util.make_cache_dir_path("cuda-ops"))


def key(kind: str) -> str:
    """How the folders of builds that fit this PyTorch and these sources begin."""
    versions = re.sub(r"[^\w.]", "_", f"torch{torch.__version__}-cuda{torch.version.cuda}")
    return f"{kind}-{versions}-{source_hash()}"


def entries() -> list[tuple[Path, dict[str, Any]]]:
    """All builds, whatever they fit, with their manifests."""
    builds = []
    for path in sorted(root().glob("*/manifest.json")):
        try:
            builds.append((path.parent, json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError):  # not written by this program; skip it
            continue
    return builds


def find(kind: str, covers: Callable[[Targets], bool]) -> Path | None:
    """The folder of a build for this PyTorch and these sources whose targets will do."""
    for path, manifest in entries():
        targets = Targets(tuple(manifest.get("sm", ())), tuple(manifest.get("ptx", ())))
        if path.name.startswith(key(kind) + "-") and covers(targets) and is_private(path.parent) and is_whole(path):
            return path
    return None


def is_whole(folder: Path) -> bool:
    """Whether a build has the files of its manifest, with their check sums: loading half a file may be fatal."""
    try:
        files = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
        return all(digest(folder / name) == check_sum for name, check_sum in files.items())
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False


def get(kind: str, targets: Targets, build: Callable[[Path], dict[str, Any]]) -> Path:
    """The folder of a build, made now if there is none.

    Args:
        kind: "ninja" or "nvrtc".
        targets: what it has to contain.
        build: fills a folder and returns further entries of the manifest.

    Raises:
        BackendError: from `build`, or another process has been holding the lock for too long.
    """
    folder = private_dir(root())
    target = folder / f"{key(kind)}-{targets}"
    with lock(folder / f"{target.name}.lock"):
        if is_whole(target):
            return target
        shutil.rmtree(target, ignore_errors=True)
        _remove_abandoned(folder)
        return _build(target, kind, targets, build)


def _remove_abandoned(folder: Path) -> None:
    """What builds left that were killed: unfinished folders that no build can still be filling."""
    for path in folder.glob(".*.tmp"):
        with suppress(OSError):  # another process may be removing it
            if time.time() - path.stat().st_mtime > _ABANDONED_SEC:
                shutil.rmtree(path)


def _build(target: Path, kind: str, targets: Targets, build: Callable[[Path], dict[str, Any]]) -> Path:
    begin = time.monotonic()
    with atomic_dir(target) as folder:
        facts = build(folder)
        manifest = {
            "kind": kind,
            "sm": targets.sm,
            "ptx": targets.ptx,
            "torch": str(torch.__version__),
            "cuda": torch.version.cuda,
            "seconds": round(time.monotonic() - begin, 1),
            **facts,
            "files": {path.relative_to(folder).as_posix(): _synced(path) for path in _files(folder)},
        }
        write_json_atomic(folder / "manifest.json", manifest)
    return target


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".ninja"))


def _synced(path: Path) -> str:
    """The check sum of a file that has been put on the disk, so that it survives a power cut."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    return digest(path)


@contextmanager
def lock(path: Path, timeout_sec: float | None = None) -> Iterator[None]:
    """Holds an operating system's lock on a file, which ends with its process, however that ends.

    Where the file system has no locks, nothing is held: builds are complete before they get their name anyway.

    Raises:
        BackendError: another process still holds it after the time-out.
    """
    timeout_sec = LOCK_TIMEOUT_SEC if timeout_sec is None else timeout_sec
    begin = time.monotonic()
    deadline, is_reported = begin + timeout_sec, False
    with open(path, "a+b") as file:
        while not try_lock(file.fileno()):
            if not is_reported and time.monotonic() - begin >= _PATIENCE_SEC:
                _log.warning("waiting for another process that builds kernels (it holds %s)", path)
                is_reported = True
            if time.monotonic() >= deadline:
                raise BackendError(f"{path}: another process has been building for over {timeout_sec:.0f} s; end it")
            time.sleep(_POLL_SEC)
        yield
