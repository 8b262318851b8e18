"""Folders for files that are later executed: owned by this user, and inaccessible to others."""
import hashlib
import os
import stat
import tempfile
from pathlib import Path


def private_dir(path: str | os.PathLike[str]) -> Path:
    """A folder that only this user can write: the given one, made if it is missing, or else a new temporary one.

    The given one will not do if it cannot be written, belongs to another user, or could be changed or replaced by
    another user: itself or a folder above it is writable by others.
    """
    folder = Path(path).absolute()
    try:
        for missing in reversed([part for part in (folder, *folder.parents) if not part.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        if is_private(folder):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix=f"{folder.name}-"))


def is_private(folder: Path) -> bool:
    """Whether no other user (but the administrator) can change what a folder holds, or put another in its place."""
    if os.name != "posix":
        return True
    real = folder.resolve()
    status = real.stat()
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return False
    return all(_is_safe_above(parent.stat()) for parent in real.parents)


def _is_safe_above(status: os.stat_result) -> bool:
    """Whether other users can neither rename nor replace what is in a folder, as in a sticky one such as /tmp."""
    is_open = bool(status.st_mode & stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX
    return status.st_uid in (0, os.getuid()) and not is_open


def digest(path: str | os.PathLike[str]) -> str:
    """The sha256 (hex) of a file's content."""
    hasher = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    return hasher.hexdigest()
