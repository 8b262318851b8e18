"""Atomic writing, appending, run folders."""
import errno
import json
import os
import signal
import subprocess
import sys

import pytest

from dnnlib import files
from dnnlib.errors import FileError, UserError


def test_open_atomic_appears_complete(tmp_path):
    path = tmp_path / "a.bin"
    with files.open_atomic(path) as file:
        file.write(b"12")
        assert not path.exists()
        assert [p.name[0] for p in tmp_path.iterdir()] == ["."]
    assert path.read_bytes() == b"12"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_open_atomic_text_and_permissions(tmp_path):
    with files.open_atomic(tmp_path / "a.txt", "w") as file:
        file.write("ä\n")
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "a.txt").read_bytes() == b"\xc3\xa4\n"
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_open_atomic_keeps_the_old_file_on_error(tmp_path, error):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def write():
        with files.open_atomic(path) as file:
            file.write(b"new")
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_open_atomic_survives_kill(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    code = (
        "import os, sys, dnnlib.files as f\n"
        "with f.open_atomic(sys.argv[1]) as file:\n"
        "    file.write(b'x' * 1000000); file.flush(); os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"


def test_open_atomic_writes_through_a_link(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    with files.open_atomic(tmp_path / "link", "w") as file:
        file.write("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def _write(path):
    with files.open_atomic(path) as file:
        file.write(b"x")


def test_open_atomic_errors_name_the_file(tmp_path):
    with pytest.raises(FileError, match=r"missing/a.bin: cannot be written: No such file or directory"):
        _write(tmp_path / "missing" / "a.bin")
    with pytest.raises(FileError, match=r"cannot be written: not a regular file"):
        _write(tmp_path)
    with pytest.raises(FileError, match=r"/dev/null: cannot be written: not a regular file"):
        _write("/dev/null")


def test_open_atomic_disk_full(tmp_path):
    def write():
        with files.open_atomic(tmp_path / "a.bin") as file:
            file.write(b"x")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(FileError, match=r"a.bin: cannot be written: No space left on device"):
        write()
    assert os.listdir(tmp_path) == []


def test_atomic_dir(tmp_path):
    path = tmp_path / "state"
    with files.atomic_dir(path) as folder:
        (folder / "a").write_text("1")
        assert not path.exists()
    assert (path / "a").read_text() == "1"
    assert os.listdir(tmp_path) == ["state"]


def test_atomic_dir_errors(tmp_path):
    def fill(path, error=None):
        with files.atomic_dir(path) as folder:
            (folder / "a").write_text("1")
            if error:
                raise error

    with pytest.raises(ValueError, match="no"):
        fill(tmp_path / "b", ValueError("no"))
    assert os.listdir(tmp_path) == []
    fill(tmp_path / "b")
    with pytest.raises(FileError, match="b: already exists"):
        fill(tmp_path / "b")
    with pytest.raises(FileError, match=r"missing/b: cannot be written: No such file"):
        fill(tmp_path / "missing" / "b")


def test_write_json_atomic(tmp_path):
    path = tmp_path / "a.json"
    files.write_json_atomic(path, {"b": [1, 2.5, None]})
    assert json.loads(path.read_text()) == {"b": [1, 2.5, None]}
    assert path.read_text().endswith("}\n")
    with pytest.raises(TypeError, match="not JSON serializable"):
        files.write_json_atomic(path, {"b": object()})
    assert json.loads(path.read_text()) == {"b": [1, 2.5, None]}


def test_append_line(tmp_path):
    path = tmp_path / "a.jsonl"
    files.append_line(path, "one")
    files.append_line(path, "two")
    assert path.read_text() == "one\ntwo\n"
    path.write_text("one\ntw")  # a process was killed while it wrote
    files.append_line(path, "three")
    assert path.read_text() == "one\ntw\nthree\n"
    with pytest.raises(FileError, match="cannot be written"):
        files.append_line(tmp_path / "no" / "a", "x")


def test_unfinished_files_are_removed(tmp_path):
    kept = [".hidden.tmp", "a.bin", f"b.{'0' * 12}.tmp", ".c.00000000000g.tmp"]
    for name in kept:
        (tmp_path / name).write_text("")
    (tmp_path / f".folder.{'0' * 12}.tmp").mkdir()
    code = "import sys, os; from dnnlib import files; f = files.open_atomic(sys.argv[1]); f.__enter__(); os._exit(1)"
    subprocess.run([sys.executable, "-c", code, tmp_path / "half.bin"], check=False)
    assert len(os.listdir(tmp_path)) == 6
    files.remove_unfinished(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, f".folder.{'0' * 12}.tmp"])


def test_run_dirs_count_up(tmp_path):
    outdir = tmp_path / "runs"
    assert files.next_run_dir(outdir, "a") == outdir / "00000-a"
    assert not outdir.exists()
    assert files.new_run_dir(outdir, "a") == outdir / "00000-a"
    (outdir / "00007-x").mkdir()
    (outdir / "00033-file").write_text("")  # only folders count
    (outdir / "notes").mkdir()
    assert files.new_run_dir(outdir, "b").name == "00008-b"
    assert files.next_run_dir(outdir, "b").name == "00009-b"
    (outdir / "00009-b").write_text("in the way")
    assert files.new_run_dir(outdir, "b").name == "00010-b"


def test_run_dir_takes_the_next_number_if_another_process_was_faster(tmp_path, monkeypatch):
    original = files.next_run_dir
    calls = []

    def slow(outdir, desc):
        path = original(outdir, desc)
        if not calls:
            path.mkdir()
        calls.append(path.name)
        return path

    monkeypatch.setattr(files, "next_run_dir", slow)
    assert files.new_run_dir(tmp_path, "a").name == "00001-a"
    assert calls == ["00000-a", "00001-a"]


def test_run_dir_has_its_contents_from_the_first_moment_on(tmp_path, monkeypatch):
    rename = os.rename

    def late(source, target):
        if target.name == "00000-a":  # another process was faster
            target.mkdir()
            (target / "other").write_text("")
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    path = files.new_run_dir(tmp_path, "a", lambda path: {"options.json": {"run_dir": path.name}})
    assert path == tmp_path / "00001-a"
    assert json.loads((path / "options.json").read_text()) == {"run_dir": "00001-a"}
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == [
        "00000-a", "00000-a/other", "00001-a", "00001-a/options.json"
    ]


def test_run_dir_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match=r"file: cannot make a run folder: File exists"):
        files.new_run_dir(tmp_path / "file", "a")


def test_check_writable_dir(tmp_path):
    files.check_writable_dir(tmp_path, "outdir")
    files.check_writable_dir(tmp_path / "new" / "deeper", "outdir")
    with pytest.raises(FileError, match=r"outdir: cannot write to .*: File name too long"):
        files.check_writable_dir(tmp_path / ("x" * 300), "outdir")
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^outdir: cannot write to '.*file': .*file is not a folder$"):
        files.check_writable_dir(tmp_path / "file", "outdir")
    with pytest.raises(UserError, match=r"^outdir: cannot write to '/proc/x': "):
        files.check_writable_dir("/proc/x", "outdir")
