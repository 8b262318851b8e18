"""One writer per folder, also after a kill."""
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dnnlib.errors import FileError
from dnnlib.locks import LOCK_FILE, sole_writer

ROOT = Path(__file__).parents[2]
HOLD = """
import sys
from dnnlib.locks import sole_writer
with sole_writer(sys.argv[1]):
    print("held", flush=True)
    input()
"""


def test_a_second_writer_is_refused_and_a_killed_one_forgotten(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, tmp_path]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        expected = f"process {holder.pid} on {socket.gethostname()} is writing into it"
        with pytest.raises(FileError, match=expected), sole_writer(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with sole_writer(tmp_path):
        assert f'"pid": {os.getpid()}' in (tmp_path / LOCK_FILE).read_text()


def test_again_after_the_end(tmp_path: Path) -> None:
    for _ in range(2):
        with sole_writer(tmp_path):
            with pytest.raises(FileError, match="is writing into it"), sole_writer(tmp_path):
                pass
    (tmp_path / LOCK_FILE).write_text("junk")
    with sole_writer(tmp_path):
        (tmp_path / LOCK_FILE).write_text("junk")
        with pytest.raises(FileError, match="another process is writing into it"), sole_writer(tmp_path):
            pass


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="none: cannot be written: No such file"), sole_writer(tmp_path / "none"):
        pass
