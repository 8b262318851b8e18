"""What is checked before an untrusted TorchScript file is loaded, and a time limit for what it does.

A TorchScript file is a program. Most of its operators only compute, but some read, write or map files, print, start
other work or skip their own checks, and code in it may run while it is loaded. Its code may therefore name only what
is known to compute (metrics/script_operators.py), and what torch reads is not the file itself but a copy of the parts
that were looked at.
"""
import atexit
import contextlib
import io
import os
import re
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator

from dnnlib.bounded import read_zip_entry
from dnnlib.errors import FileError, printable
from metrics.script_operators import UnsafeScript, check_code

TIME_LIMIT_SEC = 300.0

_MAX_ENTRY = 1 << 32  # bytes
_MAX_ENTRIES = 100_000
_FOLDER = re.compile(r"[^/]+/")  # all entries are in one
_CODE = re.compile(r"code/[\w./-]+\.py")
_LEFT_OUT = re.compile(r"code/[\w./-]+\.py\.debug_pkl|extra/.*|\.data/serialization_id")  # not needed to load it
_CONTENTS = re.compile(r"data\.pkl|constants\.pkl|(\.data/)?version|byteorder|\.\w+|(data|constants|tensors)/[\w.]+")
_COMPILED_CLASS = re.compile(rb"torch[.\s]+classes")  # in a pickle; they may do anything
_DAMAGE = (zipfile.BadZipFile, KeyError, OSError, EOFError, RuntimeError, ValueError, struct.error, zlib.error)
_WATCHER = """
import os, select, signal, sys
pid, left, text, rest = int(sys.argv[1]), None, b"", b""
while os.getppid() == pid:
    step = 1.0 if left is None else min(left, 1.0)
    if select.select([0], [], [], step)[0]:
        data = os.read(0, 65536)
        if not data:
            break
        *lines, rest = (rest + data).split(b"\\n")
        for line in lines:  # SECONDS TEXT begins, nothing ends
            seconds, _, text = line.partition(b" ")
            left = float(seconds) if seconds else None
    elif left is not None:
        left -= step  # what was spent stopped does not count
        if left <= 0:
            os.write(2, text + b"\\n")
            os.kill(pid, signal.SIGKILL)
            break
"""


class DamagedScript(ValueError):
    """A file that is no sound TorchScript archive."""


def checked_copy(content: bytes) -> bytes:
    """A TorchScript file with nothing but the parts that were looked at and are known to only compute.

    Executes nothing.

    Args:
        content: of the file.

    Raises:
        DamagedScript: it is no sound zip archive.
        UnsafeScript: its code names something that is not known to only compute, or is not all that torch would read.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive, io.BytesIO() as copy:
            names = archive.namelist()
            _check_names(content, names)
            with zipfile.ZipFile(copy, "w") as dest:
                for name in names:
                    # Reading compares the check sum, which torch does not.
                    data = read_zip_entry(archive, name, _MAX_ENTRY)
                    if _check_entry(name, data):
                        dest.writestr(zipfile.ZipInfo(name), data)
            return copy.getvalue()
    except FileError as error:
        raise DamagedScript(f"the archive is damaged: {error.reason}") from error
    except (UnsafeScript, DamagedScript):
        raise
    except _DAMAGE as error:
        reason = printable(" ".join(str(error).split()))[:300]
        raise DamagedScript(f"the archive is damaged: {reason}") from error


def _check_names(content: bytes, names: list[str]) -> None:
    # torch does not distinguish capital letters in the names of entries.
    if not content.startswith(b"PK") or len({name.lower() for name in names}) != len(names):
        raise UnsafeScript("the archive is ambiguous")
    if len(names) > _MAX_ENTRIES:
        raise UnsafeScript(f"the archive has more than {_MAX_ENTRIES:,} entries")
    if any(name.endswith("model.json") for name in names):
        raise UnsafeScript("the format is one of before 2019")
    if len({name.partition("/")[0] for name in names}) > 1:
        raise UnsafeScript("the archive has more than one folder")


def _check_entry(name: str, data: bytes) -> bool:
    """Whether an entry belongs into the copy."""
    folder = _FOLDER.match(name)
    inner = name[folder.end() :] if folder else name
    if _CODE.fullmatch(inner):
        check_code(data)
        return True
    if _LEFT_OUT.fullmatch(inner):
        return False
    if not _CONTENTS.fullmatch(inner):
        raise UnsafeScript(f"it has a part of an unknown kind, {printable(name)}")
    if inner.endswith(".pkl") and _COMPILED_CLASS.search(data):
        raise UnsafeScript("it has objects of classes that are compiled into torch")
    return True


@contextlib.contextmanager
def time_limit(name: str, seconds: float | None = None) -> Iterator[None]:
    """Ends this process, after one line on stderr, if the body takes longer; `TIME_LIMIT_SEC` by default.

    A loop in a script cannot be interrupted from Python, so another process watches. Does nothing on Windows.
    """
    if os.name == "nt":
        yield
        return
    limit = TIME_LIMIT_SEC if seconds is None else seconds
    _send_to_watcher(f"{limit} Error: detector {printable(name)}: not done after {limit:g} s; it may never be")
    try:
        yield
    finally:
        _send_to_watcher("")


_watcher: tuple[int, subprocess.Popen[bytes]] | None = None  # and the process that started it


def _send_to_watcher(line: str) -> None:
    """Sends a line to the watcher of this process, which is started with the first one."""
    global _watcher
    if _watcher is None or _watcher[0] != os.getpid() or _watcher[1].poll() is not None:
        command = [sys.executable, "-I", "-S", "-c", _WATCHER, str(os.getpid())]
        _watcher = os.getpid(), subprocess.Popen(command, stdin=subprocess.PIPE)
        atexit.register(_end_watcher, *_watcher)
    pipe = _watcher[1].stdin
    assert pipe is not None
    pipe.write(" ".join(line.splitlines()).encode() + b"\n")
    pipe.flush()


def _end_watcher(pid: int, watcher: subprocess.Popen[bytes]) -> None:
    if pid == os.getpid():
        watcher.communicate()
