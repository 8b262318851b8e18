"""The files of a data set: one reading interface over a folder and a zip. No torch."""
import abc
import functools
import hashlib
import os
import struct
import zipfile
import zlib

from dnnlib.bounded import read_file, read_zip_entry
from dnnlib.errors import FileError, UserError

from .formats import is_hidden, is_image_name, is_unsupported_name

# What reading a missing, damaged, encrypted or oddly compressed entry raises.
_ZIP_ENTRY_ERRORS = (KeyError, OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error)

MAX_FILE = 1 << 30  # bytes of one image or label file


class DatasetError(UserError, OSError):
    """A data set that cannot be used. The message names the file, and what to do."""

    def __str__(self) -> str:
        # A DataLoader worker re-raises with its whole traceback as the text; its last line is for the user.
        return super().__str__().rpartition(f"{__name__}.{type(self).__name__}: ")[2].strip()


class BadFile(Exception):
    """Why one file cannot be used. It does not know the file's name: the caller adds that with `describe`."""

    def __init__(self, reason: str, mode: str = "", size: tuple[int, int] | None = None):
        super().__init__(reason)
        self.reason = reason
        self.mode = mode  # PIL's, empty if the file is no readable image
        self.size = size  # (width, height), pixels; None likewise

    def describe(self, name: str) -> str:
        """One line: the name, then mode and size if they are known, then the reason."""
        facts = f" ({self.mode} {self.size[0]}x{self.size[1]})" if self.size else ""
        return f"{name}{facts}: {self.reason}"


class FileTree(abc.ABC):
    """Read-only files under relative names with forward slashes. Safe to pickle, to fork and to read from threads."""

    def __init__(self, path: str):
        self.path = path

    @abc.abstractmethod
    def names(self) -> list[str]:
        """Every file, sorted as strings."""

    @abc.abstractmethod
    def read(self, name: str) -> bytes:
        """The file's bytes.

        Raises:
            BadFile: they cannot be read.
        """

    @abc.abstractmethod
    def fingerprint(self, name: str) -> bytes:
        """Bytes that change whenever the content of the file does."""

    @abc.abstractmethod
    def close(self) -> None:
        """Releases what is held open; the next read opens it again."""

    def image_names(self) -> list[str]:
        """The files that are images by their extension, without hidden ones, sorted as strings."""
        return [name for name in self.names() if is_image_name(name) and not is_hidden(name)]

    def unsupported_names(self) -> list[str]:
        """The files that are images of a kind that cannot be read, by their extension, without hidden ones."""
        return [name for name in self.names() if is_unsupported_name(name) and not is_hidden(name)]

    def hidden_names(self) -> list[str]:
        """The images that belong to an operating system or a tool (`formats.is_hidden`)."""
        return [name for name in self.names() if is_hidden(name) and (is_image_name(name) or is_unsupported_name(name))]


class FolderTree(FileTree):
    """The files below a folder."""

    def names(self) -> list[str]:
        """Every file, sorted as strings."""
        names = []
        for folder, _, files in os.walk(self.path):
            relative = os.path.relpath(folder, self.path)
            names += [os.path.normpath(os.path.join(relative, file)).replace(os.sep, "/") for file in files]
        return sorted(names)

    def read(self, name: str) -> bytes:
        """The file's bytes.

        Raises:
            BadFile: they cannot be read.
        """
        try:
            return read_file(os.path.join(self.path, name), MAX_FILE)
        except FileError as error:
            raise BadFile(f"cannot be read: {error.reason}") from error

    def fingerprint(self, name: str) -> bytes:
        """A digest of the file's bytes.

        Raises:
            DatasetError: the file cannot be read.
        """
        path = os.path.abspath(os.path.join(self.path, name))
        try:
            stat = os.stat(path)
            return _file_digest(path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
        except OSError as error:
            raise DatasetError(f"{path}: cannot be read: {error.strerror}") from error

    def close(self) -> None:
        """Nothing is held open."""


class ZipTree(FileTree):
    """The files in a zip."""

    def __init__(self, path: str):
        super().__init__(path)
        self._handle: zipfile.ZipFile | None = None
        self._handle_pid = 0
        self._zip()

    def names(self) -> list[str]:
        """Every file, sorted as strings."""
        return sorted(name for name in self._zip().namelist() if not name.endswith("/"))

    def read(self, name: str) -> bytes:
        """The file's bytes.

        Raises:
            BadFile: they cannot be read.
        """
        try:
            return read_zip_entry(self._zip(), name, MAX_FILE)
        except FileError as error:
            raise BadFile(f"cannot be read from the zip: {error.reason}") from error
        except _ZIP_ENTRY_ERRORS as error:
            raise BadFile(f"cannot be read from the zip: {error}") from error

    def fingerprint(self, name: str) -> bytes:
        """The archive's check sum and size of the file."""
        entry = self._zip().getinfo(name)
        return f"{entry.CRC:08x} {entry.file_size}".encode()

    def close(self) -> None:
        """Closes the archive; the next read opens it again."""
        if self._handle is not None and self._handle_pid == os.getpid():
            self._handle.close()
        self._handle = None

    def _zip(self) -> zipfile.ZipFile:
        # A handle inherited through fork shares its file position with the parent: every process opens its own.
        if self._handle is None or self._handle_pid != os.getpid():
            try:
                self._handle = zipfile.ZipFile(self.path)
            except (*_ZIP_ENTRY_ERRORS, struct.error) as error:
                raise DatasetError(f"{self.path}: cannot be read as a zip: {error}") from error
            self._handle_pid = os.getpid()
        return self._handle

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_handle": None}


def open_tree(path: str) -> FileTree:
    """Opens a folder or a zip for reading.

    Raises:
        DatasetError: the path is missing or of another kind.
    """
    if os.path.isdir(path):
        return FolderTree(path)
    if not os.path.exists(path):
        raise DatasetError(f"{path}: no such folder or zip")
    if os.path.splitext(path)[1].lower() != ".zip":
        raise DatasetError(f"{path}: expected a folder or a .zip. Make one with dataset_tool.py.")
    return ZipTree(path)


@functools.cache
def _file_digest(path: str, size: int, mtime_ns: int, ctime_ns: int, inode: int) -> bytes:
    """SHA-256 of a file's bytes; the other arguments make a changed file a new cache key within this process."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.digest()
