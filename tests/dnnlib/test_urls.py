"""open_url and its cache, against a server on the loopback device."""
import contextlib
import hashlib
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import dnnlib
from dnnlib import download, errors, urls, util

CONTENT = bytes(range(256)) * 5000  # 1.28 MB, more than one block
SHA256 = hashlib.sha256(CONTENT).hexdigest()

VIRUS_PAGE = """<html><head><title>Google Drive - Virus scan warning</title></head><body>
<form id="download-form" action="{action}" method="get"><input type="submit" value="Download anyway"/>
<input type="hidden" name="id" value="a b"><input type="hidden" name="confirm" value="t"></form></body></html>"""
LINK_PAGE = (
    '<html>Google Drive can\'t scan this file<a href="/">home</a><a href="/drive/get?confirm=1&amp;id=x">go</a></html>'
)
QUOTA_PAGE = "<html><title>Google Drive - Quota exceeded</title></html>"


class Handler(BaseHTTPRequestHandler):
    """Each path behaves in its own way; paths are counted in `server.hits`."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, body, status=200, **headers):
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), "Connection": "close", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def page(self, text):
        self.answer(text.encode(), Content_Type="text/html; charset=utf-8")

    def do_GET(self):
        path, _, query = self.path.partition("?")
        hits = self.server.hits[path] = self.server.hits.get(path, 0) + 1
        if path == "/net.pkl" or (path == "/drive/get" and "confirm=" in query):
            self.answer(CONTENT)
        elif path == "/named":
            self.answer(CONTENT, Content_Disposition='attachment; filename="my net.pkl"')
        elif path == "/moved":
            self.answer(b"", 302, Location="/net.pkl")
        elif path == "/flaky":
            self.answer(CONTENT if hits > 2 else b"", 200 if hits > 2 else 503)
        elif path == "/torn":
            self.answer(CONTENT if hits > 1 else CONTENT[:1000], Content_Length=str(len(CONTENT)))
        elif path == "/always-torn":
            self.answer(CONTENT[:1000], Content_Length=str(len(CONTENT)))
        elif path == "/empty":
            self.answer(b"")
        elif path == "/no-length":
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(CONTENT)
        elif path == "/page":
            self.page("<html>an ordinary page</html>")
        elif path == "/error.pkl":
            self.page("<html>please log in</html>")
        elif path == "/drip.pkl":
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                for _ in range(200):
                    self.wfile.write(b"x")
                    self.server.pause.wait(0.02)
        elif path == "/drive/form":
            self.page(VIRUS_PAGE.format(action="/drive/get"))
        elif path == "/drive/link":
            self.page(LINK_PAGE)
        elif path == "/drive/loop":
            self.page(VIRUS_PAGE.format(action="/drive/loop?again=1"))
        elif path == "/drive/quota":
            self.page(QUOTA_PAGE)
        else:
            self.answer(b"nothing here", 404)


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.daemon_threads = True
        httpd.pause = threading.Event()
        threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield httpd
        httpd.shutdown()


@pytest.fixture
def base(server, tmp_path, monkeypatch):
    server.hits = {}
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(urls, "_cache_dir", str(tmp_path / "cache"))
    return f"http://127.0.0.1:{server.server_port}"


def cached():
    folder = dnnlib.make_cache_dir_path("downloads")
    return os.listdir(folder) if os.path.isdir(folder) else []


def fetch(url, **kwargs):
    with util.open_url(url, verbose=False, **kwargs) as file:
        return file.read()


def test_download_is_cached_under_its_md5_and_name(base, server):
    url = base + "/net.pkl"
    assert fetch(url) == CONTENT
    md5 = hashlib.md5(url.encode()).hexdigest()
    assert cached() == [f"{md5}_http___127.0.0.1_{server.server_port}_net.pkl"]
    assert fetch(url) == CONTENT
    assert server.hits == {"/net.pkl": 1}
    path = util.open_url(url, return_filename=True)
    assert os.path.dirname(path) == dnnlib.make_cache_dir_path("downloads")
    with open(path, "rb") as file:
        assert file.read() == CONTENT


def test_name_from_the_header_is_made_safe(base):
    fetch(base + "/named")
    assert cached() == [hashlib.md5((base + "/named").encode()).hexdigest() + "_my_net.pkl"]


def test_long_url_makes_a_short_name(base, tmp_path):
    fetch(base + "/net.pkl?" + "x" * 400, cache_dir=str(tmp_path / "other"))
    (name,) = os.listdir(tmp_path / "other")
    assert len(name) < 200
    assert cached() == []


def test_without_cache(base):
    assert fetch(base + "/torn", cache=False) == CONTENT  # the first attempt's bytes are forgotten
    assert cached() == []


@pytest.mark.parametrize("path", ["/flaky", "/torn", "/moved", "/no-length", "/drive/form", "/drive/link"])
def test_content_arrives_in_spite_of_obstacles(base, path):
    assert fetch(base + path, sha256=SHA256) == CONTENT
    assert len(cached()) == 1


def test_ordinary_page_is_content(base):
    assert fetch(base + "/page") == b"<html>an ordinary page</html>"


@pytest.mark.parametrize(
    ("path", "reason", "num_hits"),
    [
        ("/missing", "HTTP 404 Not Found", 1),
        ("/empty", "the answer is empty", 4),
        ("/always-torn", "the connection broke during the transfer|expected 1280000 bytes, found 1000", 4),
        ("/drive/quota", "Google Drive's quota for this file is used up for now", 1),
        ("/drive/loop", "Google Drive keeps answering with a page instead of the file", 3),
    ],
)
def test_errors_leave_nothing_in_the_cache(base, server, path, reason, num_hits):
    url = base + path
    with pytest.raises(errors.UrlError, match=f"URL {url} could not be read: ({reason}); download it and pass the"):
        fetch(url, num_attempts=4)
    assert server.hits == {path: num_hits}
    assert cached() == []
    with pytest.raises(errors.UrlError, match=reason):
        fetch(url, num_attempts=1, cache=False)


def test_number_of_attempts(base, server):
    with pytest.raises(errors.UrlError, match="HTTP 503 Service Unavailable"):
        fetch(base + "/flaky", num_attempts=2)
    assert server.hits == {"/flaky": 2}


def test_offline(base):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/net.pkl"
    with pytest.raises(
        errors.UserError, match=r"could not be read: no connection to 127\.0\.0\.1:\d+ \(Connection refused\)"
    ):
        fetch(url)
    assert cached() == []


def test_server_that_says_nothing(base, monkeypatch):
    monkeypatch.setattr(download, "_CONNECT_SEC", 0.05)
    monkeypatch.setattr(download, "_READ_SEC", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/net.pkl"
        with pytest.raises(errors.UrlError, match=r"no answer from 127\.0\.0\.1:.* in time; download it"):
            fetch(url, num_attempts=1)


def test_plain_server_does_not_do_tls(base):
    with pytest.raises(errors.UrlError, match=r"no secure connection to 127\.0\.0\.1"):
        fetch(base.replace("http:", "https:") + "/net.pkl", num_attempts=1)


def test_malformed_url(base):
    with pytest.raises(errors.UrlError, match=r"URL http:// could not be read: .*; download it and pass the local"):
        fetch("http://")


def test_sha256_mismatch_names_both_and_keeps_nothing(base):
    with pytest.raises(errors.UrlError, match=f"/net.pkl: expected content with sha256 {'0' * 64}, found {SHA256}"):
        fetch(base + "/net.pkl", sha256="0" * 64)
    assert cached() == []
    with pytest.raises(errors.UrlError, match="expected content with sha256"):
        fetch(base + "/net.pkl", sha256="0" * 64, cache=False)
    assert fetch(base + "/net.pkl", sha256=SHA256.upper()) == CONTENT


def test_cached_file_with_the_wrong_hash_is_replaced(base, server):
    path = util.open_url(base + "/net.pkl", return_filename=True, verbose=False)
    with open(path, "wb") as file:
        file.write(b"damaged")
    assert fetch(base + "/net.pkl") == b"damaged"  # no hash was given
    assert fetch(base + "/net.pkl", sha256=SHA256) == CONTENT
    assert server.hits == {"/net.pkl": 2}
    assert len(cached()) == 1


def test_cache_folder_that_cannot_be_made(base, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.FileError, match=r"cache folder .*file/sub: cannot be made: Not a directory"):
        fetch(base + "/net.pkl", cache_dir=str(tmp_path / "file" / "sub"))


def test_progress_goes_to_stderr(base, capfd):
    util.open_url(base + "/net.pkl", return_filename=True, verbose=True)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")  # not a terminal, and quickly done


def test_local_files(tmp_path):
    path = tmp_path / "a b.bin"
    path.write_bytes(CONTENT)
    assert fetch(str(path)) == fetch(path) == CONTENT
    assert fetch("file://" + str(path)) == fetch("file://" + str(path).replace(" ", "%20")) == CONTENT
    assert util.open_url(str(path), return_filename=True) == str(path)
    assert fetch(path, sha256=SHA256) == CONTENT
    with pytest.raises(errors.UrlError, match=r"a b.bin: expected content with sha256 00, found"):
        fetch(path, sha256="00")
    with pytest.raises(errors.FileError, match=r"missing.pkl: cannot be read: No such file or directory"):
        fetch(tmp_path / "missing.pkl")
    with pytest.raises(errors.UrlError, match="the scheme 'ftp' is not supported, only http, https and file"):
        fetch("ftp://host.example/x")


def test_drive_letters():
    assert urls._local_path("file:///C:/nets/a.pkl") == "C:/nets/a.pkl"
    assert urls._local_path("C:/nets/a.pkl") == "C:/nets/a.pkl"
    assert urls._local_path("HTTPS://host.example/a") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://host.example/a.pkl", True),
        ("http://127.0.0.1:80/", True),
        ("http://localhost/a", False),
        ("http://host./a", False),
        ("://host.example/a", False),
        ("host.example/a", False),
        ("http://[bad/a.b", False),
        ("file:///a.b", False),
        (None, False),
    ],
)
def test_is_url(text, expected):
    assert util.is_url(text) is expected


def test_is_url_with_files():
    assert util.is_url("file:///a.b", allow_file_urls=True)


def test_cache_dir_choice(monkeypatch, tmp_path):
    monkeypatch.setattr(urls, "_cache_dir", None)
    for name in ("DNNLIB_CACHE_DIR", "HOME", "USERPROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(urls.tempfile, "gettempdir", lambda: "/some/tmp")
    assert util.make_cache_dir_path("a", "b") == "/some/tmp/.cache/dnnlib/a/b"
    monkeypatch.setenv("USERPROFILE", "/profile")
    assert util.make_cache_dir_path() == "/profile/.cache/dnnlib"
    monkeypatch.setenv("HOME", "/home/me")
    assert util.make_cache_dir_path("a") == "/home/me/.cache/dnnlib/a"
    monkeypatch.setenv("DNNLIB_CACHE_DIR", "/cache")
    assert util.make_cache_dir_path("a") == "/cache/a"
    util.set_cache_dir(str(tmp_path))
    assert util.make_cache_dir_path("a") == str(tmp_path / "a")


def test_tests_cannot_leave_the_machine():
    with pytest.raises(OSError, match="tests must not use the network"):
        socket.create_connection(("192.0.2.1", 80), timeout=0.1)


# Servers that answer with something else, too much or hardly anything.


def test_a_web_page_in_place_of_a_file_does_not_enter_the_cache(base):
    with pytest.raises(errors.UrlError, match="could not be read: the server answers with a web page in its place"):
        urls.open_url(base + "/error.pkl")
    assert cached() == []


def test_a_page_in_the_cache_is_asked_for_again(base, server):
    for _ in range(2):
        with urls.open_url(base + "/page", verbose=False) as file:
            assert file.read() == b"<html>an ordinary page</html>"
    assert server.hits["/page"] == 2


def test_largest_download(base, monkeypatch):
    monkeypatch.setattr(download, "MAX_BYTES", 1000)
    with pytest.raises(errors.UrlError, match="it has 1,280,000 bytes, more than 1,000"):
        urls.open_url(base + "/net.pkl")
    with pytest.raises(errors.UrlError, match="it is larger than 1,000 bytes"):
        urls.open_url(base + "/no-length")
    assert cached() == []


def test_a_server_that_hardly_sends_anything(base, monkeypatch):
    monkeypatch.setattr(download, "_SLOW_SEC", 0.2)
    with pytest.raises(errors.UrlError, match=r"only \d+ bytes arrived in 0 s"):
        urls.open_url(base + "/drip.pkl")
    assert cached() == []
