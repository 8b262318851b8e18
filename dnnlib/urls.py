"""Opens local paths and URLs alike; downloads are cached under the user's cache folder."""
import glob
import hashlib
import io
import os
import re
import string
import tempfile
import urllib.parse
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import IO, Any

from dnnlib.bounded import open_regular
from dnnlib.download import check_sha256, download, unreadable
from dnnlib.errors import FileError
from dnnlib.files import open_atomic

_PLAIN = frozenset(string.ascii_letters + string.digits + "._-")
_MAX_NAME = 128  # characters of a URL in a file name, which most file systems limit to 255

_cache_dir: str | None = None


def set_cache_dir(path: str | None) -> None:
    """Sets the folder of all caches for this process; None restores the environment's choice."""
    global _cache_dir
    _cache_dir = path


def make_cache_dir_path(*paths: str) -> str:
    """A path below the cache folder. Makes nothing.

    The folder is the one given to `set_cache_dir`, else $DNNLIB_CACHE_DIR, else .cache/dnnlib below the home folder
    ($HOME, $USERPROFILE), else below the system's temporary folder.
    """
    base = _cache_dir or os.environ.get("DNNLIB_CACHE_DIR")
    if not base:
        home = os.environ.get("HOME") or os.environ.get("USERPROFILE") or tempfile.gettempdir()
        base = os.path.join(home, ".cache", "dnnlib")
    return os.path.join(base, *paths)


def is_url(obj: object, allow_file_urls: bool = False) -> bool:
    """Whether an object is a URL with a dotted host name; file:// counts only if allowed."""
    if not isinstance(obj, str) or "://" not in obj:
        return False
    if obj.startswith("file://"):
        return allow_file_urls
    try:
        parts = urllib.parse.urlsplit(obj)
        host = parts.hostname or ""
    except ValueError:
        return False
    return bool(parts.scheme) and "." in host.strip(".")


def open_url(
    url: str | os.PathLike[str],
    cache_dir: str | None = None,
    num_attempts: int = 10,
    verbose: bool = True,
    return_filename: bool = False,
    cache: bool = True,
    sha256: str | None = None,
) -> Any:
    """Opens a local path, a file:// URL or an http(s) URL for reading.

    Args:
        url: anything without "://" is a local path.
        cache_dir: folder of the downloads; `make_cache_dir_path("downloads")` by default.
        num_attempts: how often a download is tried.
        verbose: show the progress of a download on stderr.
        return_filename: return the path of the local or cached file instead of an open file.
        cache: keep the download on disk as md5(url)_name, and use what is already there.
        sha256: what the content must hash to (hex); a cached file that does not is downloaded again.

    Returns:
        A binary file object, or a path (str).

    Raises:
        FileError: a local file cannot be read.
        UrlError: the URL cannot be read, or the content has another sha256. Nothing enters the cache then.
    """
    assert num_attempts >= 1, num_attempts
    assert cache or not return_filename, "without a cache there is no file name to return"
    path = _local_path(os.fspath(url))
    if path is None:
        url = os.fspath(url)
        if not cache:
            return _download_to_memory(url, num_attempts, verbose, sha256)
        folder = cache_dir or make_cache_dir_path("downloads")
        path = _find_cached(url, folder, sha256) or _download_to_cache(url, folder, num_attempts, verbose, sha256)
    elif sha256 is not None:
        check_sha256(path, _hash_file(path), sha256)
    return path if return_filename else _open_local(path)


def _local_path(url: str) -> str | None:
    """The path a string stands for, None if it is an http(s) URL."""
    scheme = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]*)://", url)
    if scheme is None:
        return url
    if scheme.group(1).lower() in ("http", "https"):
        return None
    if scheme.group(1).lower() != "file":
        raise unreadable(url, f"the scheme {scheme.group(1)!r} is not supported, only http, https and file")
    path = urllib.parse.unquote(urllib.parse.urlsplit(url).path)
    return path[1:] if re.match(r"/[a-zA-Z]:", path) else path


def _open_local(path: str) -> IO[bytes]:
    snapshots = sorted(glob.glob(os.path.join(glob.escape(path), "network-snapshot-*.pkl")))
    if snapshots:
        raise FileError(f"{path}: is a folder, expected a file; its newest network is {snapshots[-1]}")
    return open_regular(path)


def _hash_file(path: str) -> str:
    digest = hashlib.sha256()
    with _open_local(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _url_hash(url: str) -> str:
    return hashlib.md5(url.encode(), usedforsecurity=False).hexdigest()


def _cached_name(url: str, name: str) -> str:
    """The cached file's name: the URL's hash, then of the content's own name what every file system takes."""
    return f"{_url_hash(url)}_" + "".join(char if char in _PLAIN else "_" for char in name[:_MAX_NAME])


def _find_cached(url: str, folder: str, sha256: str | None) -> str | None:
    pattern = os.path.join(glob.escape(folder), _url_hash(url) + "_*")
    matches = glob.glob(pattern)
    if len(matches) != 1 or (sha256 is not None and _hash_file(matches[0]) != sha256.lower()):
        return None
    return None if _is_page(matches[0]) else matches[0]


def _is_page(path: str) -> bool:
    """Whether a cached file is a web page: what a server answered in place of the file is fetched again."""
    with _open_local(path) as file:
        return file.read(64).lstrip().lower().startswith((b"<!doctype html", b"<html"))


def _download_to_memory(url: str, num_attempts: int, verbose: bool, sha256: str | None) -> IO[bytes]:
    body = io.BytesIO()

    @contextmanager
    def open_sink(name: str) -> Iterator[IO[bytes]]:
        body.seek(0)
        body.truncate()
        yield body

    download(url, open_sink, num_attempts, verbose, sha256)
    body.seek(0)
    return body


def _download_to_cache(url: str, folder: str, num_attempts: int, verbose: bool, sha256: str | None) -> str:
    path = ""

    def open_sink(name: str) -> AbstractContextManager[IO[bytes]]:
        nonlocal path
        path = os.path.join(folder, _cached_name(url, name))
        return open_atomic(path)

    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise FileError(f"cache folder {folder}: cannot be made: {error.strerror or error}") from error
    download(url, open_sink, num_attempts, verbose, sha256)
    return path
