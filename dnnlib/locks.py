"""One writer per folder: a lock of the operating system that ends with its process, however that ends."""
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from dnnlib import strict_json
from dnnlib.errors import FileError

LOCK_FILE = ".lock"


@contextmanager
def sole_writer(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Holds the lock of a folder while the body runs, and notes process and machine in its file for others.

    Where the file system has no locks, nothing is held.

    Raises:
        FileError: another process holds it; the message names that process and its machine. Or the folder cannot be
            written.
    """
    path = Path(folder, LOCK_FILE)
    try:
        file = open(path, "a+b", buffering=0)
    except OSError as error:
        raise FileError(f"{os.fspath(folder)}: cannot be written: {error.strerror or error}") from error
    with file:
        if not try_lock(file.fileno()):
            raise FileError(f"{os.fspath(folder)}: {_holder(file)} is writing into it; wait for it to end, or end it")
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
        yield


def _holder(file: IO[bytes]) -> str:
    """Who wrote the file, in words."""
    try:
        file.seek(0)
        noted = strict_json.loads(file.read(4096))
        return f"process {int(noted['pid'])} on {str(noted['host'])[:100]}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def try_lock(handle: int) -> bool:
    """Takes the lock of an open file without waiting; it ends when the file is closed, however that happens.

    Args:
        handle: descriptor of the file.

    Returns:
        False if another process has the lock; True where the file system has no locks.
    """
    if os.name == "nt":
        import msvcrt

        try:
            os.lseek(handle, 1 << 20, os.SEEK_SET)  # a byte behind the content, which others may then read
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
