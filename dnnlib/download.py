"""Fetches one http(s) URL: attempts, check of length and hash, Google Drive's interposed pages, readable errors."""
import hashlib
import logging
import posixpath
import re
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from html.parser import HTMLParser
from typing import IO, TYPE_CHECKING

from dnnlib.errors import UrlError, printable
from dnnlib.progress import Progress

if TYPE_CHECKING:
    import requests

_BLOCK = 1 << 16  # bytes
MAX_BYTES = 1 << 35  # of one download
_SLOW_SEC, _SLOW_BYTES = 60.0, 1 << 16  # a transfer must bring so much in each span of this length
_CONNECT_SEC, _READ_SEC = 10, 60
_MAX_CONNECT_ATTEMPTS = 3  # without any connection, ten tries only make an offline user wait
_MAX_PAGE = 1 << 16  # bytes; Google Drive's interposed pages have a few kB
_MAX_HOPS = 3
_RETRY_STATUS = {408, 425, 429}  # and all from 500 on

OpenSink = Callable[[str], AbstractContextManager[IO[bytes]]]


class _AttemptFailed(Exception):
    """This attempt failed; `max_attempts` says after how many of its kind to give up."""

    def __init__(self, reason: str, max_attempts: int):
        super().__init__(reason)
        self.max_attempts = max_attempts


def unreadable(url: str, reason: str) -> UrlError:
    """The error for a URL that cannot be read."""
    reason = printable(" ".join(reason.split()))
    return UrlError(f"URL {url} could not be read: {reason}; download it and pass the local path")


def download(url: str, open_sink: OpenSink, num_attempts: int, verbose: bool, sha256: str | None = None) -> None:
    """Downloads a URL into what `open_sink` opens.

    Args:
        url: http or https.
        open_sink: called once per attempt with the content's own name (from Content-Disposition, else the URL); gives
            a context with a binary file. It is left by an exception unless the content is complete and right.
        num_attempts: tries for anything that may pass (5xx, broken transfer); a plain refusal such as 404 ends at once.
        verbose: show progress on stderr.
        sha256: what the content must hash to.

    Raises:
        UrlError: it could not be read, is a web page or larger than `MAX_BYTES`, or has another hash (which is not
            tried again).
    """
    for attempt in range(1, num_attempts + 1):
        try:
            return _attempt(url, open_sink, verbose, sha256)
        except _AttemptFailed as failure:
            if attempt >= min(num_attempts, failure.max_attempts):
                raise unreadable(url, str(failure)) from failure
            time.sleep(min(0.2 * 2 ** (attempt - 1), 5))


def _attempt(url: str, open_sink: OpenSink, verbose: bool, sha256: str | None) -> None:
    import requests

    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it warns of damaged headers with a traceback
    host = urllib.parse.urlsplit(url).netloc
    try:
        with requests.Session() as session:
            _fetch(session, url, open_sink, verbose, sha256)
    except requests.exceptions.SSLError as error:
        raise _AttemptFailed(f"no secure connection to {host} ({_innermost(error)})", _MAX_CONNECT_ATTEMPTS) from error
    except requests.exceptions.Timeout as error:
        raise _AttemptFailed(f"no answer from {host} in time", _MAX_CONNECT_ATTEMPTS) from error
    except requests.exceptions.ConnectionError as error:
        raise _AttemptFailed(f"no connection to {host} ({_innermost(error)})", _MAX_CONNECT_ATTEMPTS) from error
    except requests.exceptions.ChunkedEncodingError as error:
        raise _AttemptFailed("the connection broke during the transfer", 1 << 30) from error
    except requests.exceptions.RequestException as error:
        raise unreadable(url, str(error)) from error
    except ValueError as error:  # for example an address in it that is no text
        raise unreadable(url, f"the server's answer is damaged ({error})") from error


def _innermost(error: BaseException) -> str:
    """The operating system's words for a failed connection, out of the wrappings around them."""
    while inner := (error.__cause__ or error.__context__):
        error = inner
    return str(getattr(error, "strerror", None) or error)


def _fetch(session: "requests.Session", url: str, open_sink: OpenSink, verbose: bool, sha256: str | None) -> None:
    address = url
    for _ in range(_MAX_HOPS):
        response = session.get(
            address, stream=True, timeout=(_CONNECT_SEC, _READ_SEC), headers={"Accept-Encoding": "identity"}
        )
        with response:
            _check_status(url, response)
            page = _small_page(url, response)
            onward = _drive_link(url, page) if page else None
            if onward is None:
                return _save(url, response, page, open_sink, verbose, sha256)
            address = urllib.parse.urljoin(response.url, onward)
    raise unreadable(url, "Google Drive keeps answering with a page instead of the file")


def _check_status(url: str, response: "requests.Response") -> None:
    if response.status_code >= 400:
        reason = f"HTTP {response.status_code} {response.reason}".rstrip()
        if response.status_code >= 500 or response.status_code in _RETRY_STATUS:
            raise _AttemptFailed(reason, 1 << 30)
        raise unreadable(url, reason)


def _small_page(url: str, response: "requests.Response") -> bytes:
    """The whole body if it is a short HTML page, else nothing (and nothing is read)."""
    length = response.headers.get("Content-Length", "0")
    is_html = response.headers.get("Content-Type", "").startswith("text/html")
    if not is_html or not length.isdigit() or int(length) > _MAX_PAGE:
        return b""
    page = b""
    for block in response.iter_content(1 << 12):
        page += block
        if len(page) > _MAX_PAGE:  # it did not say how long it is, or it was compressed
            raise unreadable(url, "the server answers with a web page in its place")
    return page


class _DrivePage(HTMLParser):
    """Finds the way on from a Google Drive page: the download form with its hidden fields, or a confirming link."""

    def __init__(self) -> None:
        super().__init__()
        self.action: str | None = None
        self.fields: dict[str, str] = {}
        self.link: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attr = {name: value or "" for name, value in attrs}
        if tag == "form" and attr.get("id") in ("download-form", "downloadForm"):
            self.action = attr.get("action")
        elif tag == "input" and self.action is not None and attr.get("name"):
            self.fields[attr["name"]] = attr.get("value", "")
        elif tag == "a" and "confirm=" in attr.get("href", ""):
            self.link = attr["href"]

    def onward(self) -> str | None:
        if self.action is None:
            return self.link
        return self.action + ("&" if "?" in self.action else "?") + urllib.parse.urlencode(self.fields)


def _drive_link(url: str, page: bytes) -> str | None:
    """Where a page of Google Drive's virus scan leads to; None for any other content."""
    text = page.decode("utf-8", errors="replace")
    if "Google Drive" not in text:
        return None
    if re.search(r"quota exceeded|too many users have (viewed|downloaded)", text, re.IGNORECASE):
        raise unreadable(url, "Google Drive's quota for this file is used up for now")
    parser = _DrivePage()
    parser.feed(text)
    return parser.onward()


def _content_name(url: str, response: "requests.Response") -> str:
    """What the server calls the content, in quotes; the URL if it says nothing."""
    _, _, stated = response.headers.get("Content-Disposition", "").partition('filename="')
    name, closing, _ = stated.partition('"')
    return name if name and closing else url


def _save(
    url: str, response: "requests.Response", page: bytes, open_sink: OpenSink, verbose: bool, sha256: str | None
) -> None:
    length = response.headers.get("Content-Length", "")
    expected = int(length) if length.isdigit() else None
    digest, size = hashlib.sha256(), 0
    _check_kind(url, response, expected)
    blocks = [page] if page else _blocks(response)
    bar = Progress(expected and expected / 1e6, f"Downloading {url}", unit="MB", enabled=None if verbose else False)
    with open_sink(_content_name(url, response)) as out, bar:
        for block in blocks:
            out.write(block)
            digest.update(block)
            size += len(block)
            if size > MAX_BYTES:
                raise unreadable(url, f"it is larger than {MAX_BYTES:,} bytes")
            bar.update(len(block) / 1e6)
        if size == 0:
            raise _AttemptFailed("the answer is empty", 1 << 30)
        if expected is not None and size != expected and "Content-Encoding" not in response.headers:
            raise _AttemptFailed(f"expected {expected} bytes, found {size}", 1 << 30)
        check_sha256(url, digest.hexdigest(), sha256)


def _check_kind(url: str, response: "requests.Response", num_bytes: int | None) -> None:
    """Refuses what cannot be the file: a web page in its place, or far too much."""
    is_page = response.headers.get("Content-Type", "").startswith("text/html")
    suffix = posixpath.splitext(urllib.parse.urlsplit(url).path)[1]
    if is_page and suffix not in ("", ".html", ".htm"):
        raise unreadable(url, "the server answers with a web page in its place")
    if num_bytes is not None and num_bytes > MAX_BYTES:
        raise unreadable(url, f"it has {num_bytes:,} bytes, more than {MAX_BYTES:,}")


def _blocks(response: "requests.Response") -> Iterator[bytes]:
    """The body as it arrives; ends the attempt if hardly anything does."""
    has_read1 = hasattr(response.raw, "read1")
    blocks = iter(lambda: _read_some(response), b"") if has_read1 else response.iter_content(_BLOCK)
    begin, received = time.monotonic(), 0
    for block in blocks:
        yield block
        received += len(block)
        now = time.monotonic()
        if now - begin >= _SLOW_SEC:
            if received < _SLOW_BYTES:
                raise _AttemptFailed(f"only {received} bytes arrived in {now - begin:.0f} s", _MAX_CONNECT_ATTEMPTS)
            begin, received = now, 0


def _read_some(response: "requests.Response") -> bytes:
    """What has arrived, instead of waiting for a whole block."""
    import requests

    try:
        return response.raw.read1(_BLOCK, decode_content=True)
    except Exception as error:  # of the library below requests
        raise requests.exceptions.ChunkedEncodingError(error) from error


def check_sha256(source: str, sha256: str, expected: str | None) -> None:
    """Compares the hash of content with the expected one, if there is one.

    Raises:
        UrlError: they differ; it names both.
    """
    if expected is not None and sha256 != expected.lower():
        raise UrlError(f"{source}: expected content with sha256 {expected.lower()}, found {sha256}")
