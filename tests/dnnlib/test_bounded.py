"""Strangers' files: regular ones only, sizes checked before memory is taken, JSON as the standard has it."""
import gzip
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dnnlib import arrays, bounded, files, strict_json, urls
from dnnlib.errors import FileError, UserError

ROOT = Path(__file__).parents[2]


def peak_growth_mb(code: str, *args: object) -> float:
    """How much the peak memory of a process grows while a piece of code runs that must raise a UserError."""
    script = (
        "import resource, sys; from dnnlib import arrays, bounded; from dnnlib.errors import UserError\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        f"try:\n    {code}\nexcept UserError:\n    print((peak() - before) / 1024)\n"
    )
    command = [sys.executable, "-c", script, *map(str, args)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices")
def test_pipes_devices_and_folders_are_refused_at_once(pipe: Path, tmp_path: Path) -> None:
    for path in (pipe, "/dev/zero"):
        with pytest.raises(FileError, match="cannot be read: it is no regular file but a pipe or a device"):
            bounded.open_regular(path)
        with pytest.raises(UserError, match="a pipe or a device"):
            urls.open_url(str(path))
    with pytest.raises(FileError, match="it is a folder"):
        bounded.read_file(tmp_path, 10)


def test_a_run_directory_is_answered_with_its_newest_network(tmp_path: Path) -> None:
    for number in (0, 200, 1000):
        (tmp_path / f"network-snapshot-{number:06d}.pkl").write_bytes(b"")
    with pytest.raises(FileError, match=r"is a folder, expected a file; its newest network is .*snapshot-001000\.pkl"):
        urls.open_url(str(tmp_path))


def test_files_have_a_largest_size(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert bounded.read_file(path, 5) == b"12345"
    with pytest.raises(FileError, match="it has 5 bytes, more than the 4 that such a file may have"):
        bounded.read_file(path, 4)


def test_gzip_and_zip_that_unpack_to_much_more(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(bytes(256 << 20)))
    assert peak_growth_mb("bounded.read_gzip(sys.argv[1], 1 << 40)", tmp_path / "a.gz") < 64
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x", bytes(256 << 20))
    code = "import zipfile; bounded.read_zip_entry(zipfile.ZipFile(sys.argv[1]), 'x', 1 << 40)"
    assert peak_growth_mb(code, tmp_path / "a.zip") < 64
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("x", b"abc")
    with zipfile.ZipFile(tmp_path / "b.zip") as archive, pytest.raises(FileError, match="in another way than stored"):
        bounded.read_zip_entry(archive, "x", 10)


@pytest.mark.parametrize("content", [b"", b"junk",
                                     gzip.compress(b"abc", mtime=0)[:-6], gzip.compress(b"abc", mtime=0) + b"junk"],
                         ids=["empty", "junk", "cut", "tail"])  # fmt: skip
def test_damaged_gzip(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.gz").write_bytes(content)
    if content == b"":
        assert bounded.read_gzip(tmp_path / "a.gz", 10) == b""
    else:
        with pytest.raises(FileError, match=r"a\.gz: cannot be read: "):
            bounded.read_gzip(tmp_path / "a.gz", 10)


def test_arrays(tmp_path: Path) -> None:
    w = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.savez(tmp_path / "a.npz", w=w, fortran=np.asfortranarray(w), none=np.zeros([0, 3]))
    np.savez_compressed(tmp_path / "b.npz", w=w)
    np.save(tmp_path / "c.npy", w)
    result = arrays.load_arrays(tmp_path / "a.npz")
    np.testing.assert_array_equal(result["w"], w)
    np.testing.assert_array_equal(result["fortran"], w)
    assert result["none"].shape == (0, 3)
    np.testing.assert_array_equal(arrays.load_arrays(tmp_path / "b.npz")["w"], w)
    np.testing.assert_array_equal(arrays.load_arrays(tmp_path / "c.npy")[""], w)


def npy(shape: str, descr: str = "<f4", data: bytes = b"") -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


@pytest.mark.parametrize(("content", "message"), [
    (npy("(1000000, 1000000)"), r"expected 4000000000000 bytes for shape \[1000000, 1000000\], found 0"),
    (npy("(2,)", "|O", b"12345678" * 2), "Python objects"),
    (npy("(2,)", "<f4", b"123"), "expected 8 bytes"),
    (npy("(-1,)"), "expected -4 bytes"),
    (npy("()[0]"), "cannot be read as NumPy arrays"),
    (b"junk", "cannot be read as NumPy arrays"),
    (b"PKjunk", "cannot be read as NumPy arrays"),
    (b"", "cannot be read as NumPy arrays"),
])  # fmt: skip
def test_damaged_arrays(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(FileError, match=message):
        arrays.load_arrays(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w.npy", content)
    with pytest.raises(FileError, match="cannot be read as NumPy arrays"):
        arrays.load_arrays(path)


def test_strict_json(tmp_path: Path) -> None:
    for text in ("NaN", "[Infinity]", "-Infinity", "[" * 100_000, "{", b"\xff", ""):
        with pytest.raises(ValueError):  # noqa: PT011, of json's many texts none is ours
            strict_json.loads(text)
    assert strict_json.loads('{"a": [1, null]}') == {"a": [1, None]}
    assert strict_json.dumps({"a": [float("nan"), 1.5], "b": float("-inf")}) == '{"a": [null, 1.5], "b": null}'
    files.write_json_atomic(tmp_path / "a.json", {"x": float("nan")})
    assert (tmp_path / "a.json").read_text() == '{\n  "x": null\n}\n'


def test_names_of_run_directories_are_safe(tmp_path: Path) -> None:
    assert files.safe_name("a/../b \x1b[31m\n") == "a_.._b__31m_".replace("__31m", "___31m")
    assert files.next_run_dir(tmp_path, "../x").parent == tmp_path
    assert len(files.safe_name("ä" * 200)) == 100


def test_bytes_of_a_file_object_know_their_name(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(b"x")
    with urls.open_url(str(tmp_path / "a.pkl")) as file:
        assert file.name == str(tmp_path / "a.pkl")
        assert isinstance(file, io.BufferedReader)
