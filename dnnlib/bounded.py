"""Reads untrusted files within bounds: regular files only, and never much more memory than the file has bytes.

Sizes that a file announces are compared with the bytes that are there before anything is allocated for them. What is
compressed may grow to `EXPANSION` times its size, and `ALLOWANCE` bytes on top.
"""
import gzip
import os
import stat
import zipfile
import zlib
from typing import IO

from dnnlib.errors import FileError

EXPANSION = 100
ALLOWANCE = 1 << 20  # bytes
_BLOCK = 1 << 20  # bytes


def open_regular(path: str | os.PathLike[str]) -> IO[bytes]:
    """Opens a regular file for reading; never waits for a pipe or a device.

    Raises:
        FileError: the file is missing, closed to us, or of another kind.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        is_folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        os.close(handle)
        raise _unreadable(path, "it is a folder" if is_folder else "it is no regular file but a pipe or a device")
    return open(path, "rb", opener=lambda *_: handle)  # so that the file knows its name


def read_file(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """The content of a regular file.

    Raises:
        FileError: the file cannot be read, or has more than `max_bytes`.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise _unreadable(path, f"it has {size:,} bytes, more than the {max_bytes:,} that such a file may have")
        try:
            return file.read(size)
        except OSError as error:
            raise _unreadable(path, error.strerror or str(error)) from error


def read_zip_entry(archive: zipfile.ZipFile, name: str, max_bytes: int) -> bytes:
    """The content of an entry of a zip, whose announced size is checked first.

    Raises:
        FileError: the entry is too large, or grows beyond `EXPANSION`.
        KeyError, OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error: it is missing or damaged.
    """
    entry = archive.getinfo(name)
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _unreadable(name, "it is compressed in another way than stored or deflated")
    limit = min(max_bytes, EXPANSION * entry.compress_size + ALLOWANCE)
    if entry.file_size > limit:
        raise _unreadable(name, f"it would unpack to {entry.file_size:,} bytes from {entry.compress_size:,}")
    return archive.read(name)


def read_gzip(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """The content of a gzip file.

    Raises:
        FileError: the file cannot be read, is damaged, or unpacks to more than `max_bytes` or beyond `EXPANSION`.
    """
    with open_regular(path) as file:
        limit = min(max_bytes, EXPANSION * os.fstat(file.fileno()).st_size + ALLOWANCE)
        parts, size = [], 0
        try:
            with gzip.GzipFile(fileobj=file) as unpacked:
                while block := unpacked.read(_BLOCK):
                    parts.append(block)
                    size += len(block)
                    if size > limit:
                        raise _unreadable(path, f"it unpacks to more than {limit:,} bytes")
        except FileError:
            raise
        except (OSError, EOFError, zlib.error) as error:
            raise _unreadable(path, str(error)) from error
    return b"".join(parts)


def _unreadable(path: str | os.PathLike[str], reason: str) -> FileError:
    return FileError(f"{os.fspath(path)}: cannot be read: {reason}", reason=reason)
