"""What is checked before a stranger's TorchScript runs, and a time limit for it.

A TorchScript file is a program. Most of its operators only compute, but some read, write or map files, print, start
other work or skip their own checks, and code in it may run while it is loaded. Files that use such operators are
refused unless their content is pinned by its sha256, which says that somebody vouches for it.
"""
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

TIME_LIMIT_SEC = 300.0

_MAX_ENTRY = 1 << 32  # bytes
# As identifiers or in strings, wherever they are: names can be given to other names.
_SIDE_EFFECTS = re.compile(
    r"\b(from_file|\w*save\w*|load\w*|print|Print|fork|awaitable\w*|rpc_\w+|remote|open|exec|eval|breakpoint|"
    r"manual_seed|set_num_threads|\w*unsafe\w*|set_data|dlopen|import_\w+|symbolic_\w+|_debug\w*|backward)\b"
)
_NUMBERS = re.compile(r"/(data|constants|tensors)/[\w.]+$")  # entries with the elements of tensors
_DAMAGE = (zipfile.BadZipFile, KeyError, OSError, EOFError, RuntimeError, ValueError, struct.error, zlib.error)
_WATCHER = """
import os, select, signal, sys
pid, seconds, text = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
if not select.select([0], [], [], seconds)[0]:
    os.write(2, text.encode())
    os.kill(pid, signal.SIGKILL)
"""


class UnsafeScript(ValueError):
    """A TorchScript file that does more than compute."""


class DamagedScript(ValueError):
    """A file that is no sound TorchScript archive."""


def check_archive(content: bytes) -> None:
    """Reads all of a TorchScript file and looks for what it should not do; executes nothing.

    Raises:
        DamagedScript: it is no sound zip archive.
        UnsafeScript: its code names an operator with side effects, or is not all that torch would read.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            if not content.startswith(b"PK") or len(set(names)) != len(names):
                raise UnsafeScript("the archive is ambiguous")
            if any(name.endswith("model.json") for name in names):
                raise UnsafeScript("the format is one of before 2019")
            for name in names:
                # Reading compares the check sum, which torch does not.
                _check_entry(name, read_zip_entry(archive, name, _MAX_ENTRY))
    except FileError as error:
        raise DamagedScript(f"the archive is damaged: {error.reason}") from error
    except (UnsafeScript, DamagedScript):
        raise
    except _DAMAGE as error:
        reason = printable(" ".join(str(error).split()))[:300]
        raise DamagedScript(f"the archive is damaged: {reason}") from error


def _check_entry(name: str, data: bytes) -> None:
    if _NUMBERS.search(name):
        return
    texts = [data.decode("latin-1")]
    if name.endswith(".py"):
        texts.append(texts[0].encode("latin-1").decode("unicode_escape", errors="replace"))
        for text in texts:
            if found := _SIDE_EFFECTS.search(text):
                raise UnsafeScript(f"its code names `{found.group()}`, which does more than compute")
    elif "code/" in name and not name.endswith(".debug_pkl"):
        raise UnsafeScript(f"it has code of an unknown kind, {name}")


@contextlib.contextmanager
def time_limit(name: str, seconds: float | None = None) -> Iterator[None]:
    """Ends this process, after one line on stderr, if the body takes longer; `TIME_LIMIT_SEC` by default.

    A loop in a script cannot be interrupted from Python, so another process watches. Does nothing on Windows.
    """
    if os.name == "nt":
        yield
        return
    limit = TIME_LIMIT_SEC if seconds is None else seconds
    message = f"Error: detector {name}: not done after {limit:g} s; it may never be\n"
    command = [sys.executable, "-I", "-S", "-c", _WATCHER, str(os.getpid()), str(limit), message]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as watcher:
        try:
            yield
        finally:
            assert watcher.stdin is not None
            watcher.stdin.close()
