"""Writes files so that a reader never sees half of one: temporary name in the same folder, flush, rename."""
import errno
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from dnnlib import strict_json
from dnnlib.errors import FileError

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

PathLike = str | os.PathLike[str]


def _temp_name(path: Path) -> Path:
    # Begins with a dot: neither a glob for results nor the search for cached downloads picks up an unfinished file.
    return path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}.tmp")


def remove_unfinished(folder: PathLike) -> None:
    """Removes the files that `open_atomic` was writing into a folder when its process was killed.

    Only where no other process may be writing.
    """
    for path in Path(folder).glob(".*.tmp"):
        if re.fullmatch(r"\..*\.[0-9a-f]{12}\.tmp", path.name) and path.is_file():
            path.unlink()


def _sync_folder(folder: Path) -> None:
    """Makes a rename survive a power cut, where the system can do so."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:  # some network file systems cannot sync a folder
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(handle)


def _cannot_write(path: PathLike, error: OSError) -> FileError:
    return FileError(f"{os.fspath(path)}: cannot be written: {error.strerror or error}")


@contextmanager
def open_atomic(path: PathLike, mode: str = "wb") -> Iterator[IO[Any]]:
    """Opens a file for writing that appears under its name only once it is complete.

    An older file of that name stays as it was until then, and stays if the body raises. A link is written through.

    Args:
        path: name of the complete file; its folder must exist.
        mode: "wb" or "w" (UTF-8).

    Raises:
        FileError: the folder is missing or closed to us, the path is a folder or a device, or the disk is full.
    """
    assert mode in ("wb", "w"), mode
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise FileError(f"{os.fspath(path)}: cannot be written: not a regular file")
    temp = _temp_name(target)
    try:
        file = open(temp, mode.replace("w", "x"), encoding=None if "b" in mode else "utf-8")
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temp, target)
        _sync_folder(target.parent)
    except BaseException as error:
        with suppress(OSError):
            temp.unlink()
        if isinstance(error, OSError) and error.errno in _DISK_FULL:
            raise _cannot_write(path, error) from error
        raise


@contextmanager
def atomic_dir(path: PathLike) -> Iterator[Path]:
    """Gives an empty folder to fill, which takes the name `path` only once the body is through.

    Files that must survive a power cut must be synced by the writer (`open_atomic` does).

    Args:
        path: must not exist; its parent folder must.

    Raises:
        FileError: the path exists, or its parent is missing or closed to us.
    """
    target = Path(path)
    if target.exists():
        raise FileError(f"{target}: already exists")
    temp = _temp_name(target)
    try:
        temp.mkdir()
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        yield temp
        os.rename(temp, target)
        _sync_folder(target.parent)
    except BaseException:
        shutil.rmtree(temp, ignore_errors=True)
        raise


def write_json_atomic(path: PathLike, obj: object) -> None:
    """Writes an object as indented JSON with a newline at the end, numbers that are not finite as null.

    See `open_atomic`.
    """
    text = strict_json.dumps(obj, indent=2) + "\n"  # first: an object that JSON cannot express leaves no trace
    with open_atomic(path, "w") as file:
        file.write(text)


def append_line(path: PathLike, text: str) -> None:
    """Adds one line to a file, made if missing, in a single write.

    A last line that a killed process left unfinished is ended first, so that only that one is lost.

    Raises:
        FileError: the file cannot be written.
    """
    assert "\n" not in text, "one line at a time"
    try:
        with open(path, "a+b", buffering=0) as file:
            torn = False
            if file.seek(0, os.SEEK_END) > 0:
                file.seek(-1, os.SEEK_END)
                torn = file.read(1) != b"\n"
            file.write(("\n" * torn + text + "\n").encode())
    except OSError as error:
        raise _cannot_write(path, error) from error


def safe_name(text: str) -> str:
    """A text as a part of a file name, at most 100 long: letters, digits and `._+=,@-` stay, the rest becomes `_`."""
    return re.sub(r"[^\w.+=,@-]", "_", text)[:100]


def next_run_dir(outdir: PathLike, desc: str) -> Path:
    """The run folder that `new_run_dir` would make now: `outdir/00000-desc`, numbered past all folders in outdir.

    Of the description, `safe_name` is used.
    """
    desc = safe_name(desc)
    ids = [-1]
    if os.path.isdir(outdir):
        with os.scandir(outdir) as entries:
            ids += [int(m.group()) for entry in entries if entry.is_dir() and (m := re.match(r"[0-9]+", entry.name))]
    number = max(ids) + 1
    while os.path.lexists(path := Path(outdir, f"{number:05d}-{desc}")):  # a file of that name is in the way
        number += 1
    return path


def new_run_dir(outdir: PathLike, desc: str, contents: Callable[[Path], Mapping[str, Any]] | None = None) -> Path:
    """Makes and returns a run folder `outdir/00000-desc` (and outdir itself if need be).

    The number is one more than the largest leading number of the folders in outdir; two runs started at once with
    the same description get two folders.

    Args:
        contents: given the folder's path, says which JSON files (name -> object) it holds from the first moment on.

    Raises:
        FileError: the folder cannot be made.
    """
    try:
        os.makedirs(outdir, exist_ok=True)
        while True:
            path = next_run_dir(outdir, desc)
            try:
                _make_run_dir(path, {} if contents is None else contents(path))
                return path
            except OSError:
                if not path.exists():  # otherwise another process was faster: take the next number
                    raise
    except OSError as error:
        raise FileError(f"{os.fspath(outdir)}: cannot make a run folder: {error.strerror or error}") from error


def _make_run_dir(path: Path, contents: Mapping[str, Any]) -> None:
    if not contents:
        path.mkdir()
        return
    with atomic_dir(path) as folder:  # a folder with something in it is never replaced by the renaming
        for name, obj in contents.items():
            write_json_atomic(folder / name, obj)


def check_writable_dir(path: PathLike, field: str) -> None:
    """Checks, by writing a nameless file, that a folder can be written, or made if it does not exist. Leaves no trace.

    Args:
        path: the folder.
        field: the argument that names it, for the error.

    Raises:
        FileError: names the field, the path and the reason.
    """
    place = Path(path).absolute()
    try:
        while not place.exists() and place != place.parent:
            place = place.parent
        if not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{place} is not a folder")
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise FileError(f"cannot write to {os.fspath(path)!r}: {error.strerror or error}", field) from error
