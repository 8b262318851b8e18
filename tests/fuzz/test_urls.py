"""Damaged answers of a server on this machine: refused in one line or taken; only what is taken enters the cache."""
import gzip
import itertools
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dnnlib import download
from dnnlib.errors import UserError
from dnnlib.util import open_url
from tests.fuzz.mutations import Count, damaged, tried
from tests.fuzz.test_readers import CASES, SEED, check

BODY = b"network" * 20
PAGE = (b"<html>Google Drive - Virus scan warning<form id='download-form' action='/file'>"
        b"<input name='id' value='1'></form></html>")


def answer(*headers: str, body: bytes = BODY, status: str = "200 OK") -> bytes:
    """A whole response."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


ANSWERS = {
    "file": answer("Content-Type: application/octet-stream", 'Content-Disposition: attachment; filename="a.pkl"'),
    "page": answer("Content-Type: text/html", body=PAGE),
    "redirection": answer("Location: /other", status="302 Found", body=b""),
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n7\r\nnetwork\r\n0\r\n\r\n",
    "packed": answer("Content-Encoding: gzip", body=gzip.compress(BODY, mtime=0)),
    "busy": answer("Retry-After: 1", status="503 Busy", body=b"later"),
}


@contextmanager
def serving(answers: Iterator[bytes]) -> Iterator[str]:
    """The address of a server that sends the next answer to every request."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        def serve() -> None:
            for content in answers:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    try:
                        client.settimeout(5)
                        client.recv(65536)
                        client.sendall(content)
                    except OSError:
                        pass

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("kind", ANSWERS)
def test_damaged_answers(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_MAX_CONNECT_ATTEMPTS", 1)
    count, cache = Count(), tmp_path / "cache"
    contents = itertools.chain.from_iterable(itertools.repeat(content, 4) for content in damaged(
        ANSWERS[kind], SEED, max(CASES // 4, 1)))  # redirections ask several times
    with serving(itertools.cycle(contents)) as address:
        for case in range(max(CASES // 4, 1)):
            url = f"{address}/{case}.pkl"
            tried(count, lambda: open_url(url, str(cache), 1, verbose=False).close())  # noqa: B023
            assert len(list(cache.glob("*_*"))) == count.loaded
            assert not list(cache.glob(".*"))
    check(count, f"url, {kind}")


def test_an_endless_page_is_not_read(tmp_path: Path) -> None:
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n" + b"<p>" * (1 << 20)
    with serving(itertools.repeat(page)) as address, pytest.raises(UserError, match="answers with a web page in its"):
        open_url(f"{address}/a.pkl", str(tmp_path), 1, verbose=False)


def test_a_redirection_to_what_is_no_text(tmp_path: Path) -> None:
    redirection = b"HTTP/1.1 302 Found\r\nLocation: /\xd1\xff\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with serving(itertools.repeat(redirection)) as address, pytest.raises(UserError, match="answer is damaged"):
        open_url(f"{address}/a.pkl", str(tmp_path), 1, verbose=False)
