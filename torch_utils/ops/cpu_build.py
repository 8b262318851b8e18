"""Builds the CPU kernels (csrc/cpu_kernels.cpp) with the host's compiler, into the user's cache, and loads them.

It takes a second, once. Where that is not possible there are no kernels, and the operations compute in plain torch.
"""
import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

import dnnlib
from dnnlib.errors import UserError
from dnnlib.files import open_atomic
from dnnlib.private_dirs import digest, private_dir

from . import settings
from .backend import cache
from .backend.errors import BackendError

SOURCE = Path(__file__).parent / "csrc" / "cpu_kernels.cpp"
HEADERS = [SOURCE.with_name(name) for name in ("epilogue.h", "winograd.h", "winograd_up.h")]
# No -ffast-math: linked into a shared object it changes the arithmetic of the whole process. The second and third flag
# are the harmless parts of it that vectorisation needs.
FLAGS = ["-O3", "-fno-trapping-math", "-fno-math-errno", "-fPIC", "-fvisibility=default"]
ISA_FLAGS = {"native": "-march=native", "avx2": "-march=x86-64-v3"}  # of $SG_CPU_ISA
THREADED, SERIAL = ["-fopenmp"], ["-fopenmp-simd"]
_TIMEOUT_SEC = 120
_LOCK_TIMEOUT_SEC = 60

_log = logging.getLogger(__name__)


def load() -> tuple["ctypes.CDLL | None", str]:
    """The library, built first if need be, and a line that says what it is; or None and why there is none."""
    try:
        compiler = _find_compiler()
        try:
            return _load(compiler, THREADED), f"compiled by {compiler.name}, all threads"
        except (BackendError, OSError) as error:  # no OpenMP, or not one that torch has loaded
            _log.debug("CPU kernels with OpenMP: %s", error)
            return _load(compiler, SERIAL), f"compiled by {compiler.name}, one thread"
    except (BackendError, OSError) as error:
        _log.debug("CPU kernels: %s", error)
        return None, " ".join(str(error).split())


def _find_compiler() -> Path:
    wanted = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++"]
    for name in wanted:
        path = shutil.which(name)
        if path:
            return Path(path)
    raise BackendError(f"no host compiler: {', '.join(wanted)} not found on the PATH")


def _load(compiler: Path, threads: list[str]) -> ctypes.CDLL:
    return ctypes.CDLL(str(_built(compiler, [ISA_FLAGS[_isa()], *FLAGS, *threads])))


def _isa() -> str:
    """Which instructions the kernels are compiled for.

    Raises:
        UserError: $SG_CPU_ISA is none of `ISA_FLAGS`, or names instructions that this processor lacks.
    """
    isa = settings.cpu_isa
    if isa not in ISA_FLAGS:
        raise UserError(f"environment variable SG_CPU_ISA: expected {' or '.join(ISA_FLAGS)}, found {isa!r}")
    if isa != "native" and isa not in _instructions().split():
        raise UserError(f"environment variable SG_CPU_ISA: this processor has no {isa}; leave the variable out")
    return isa


def _built(compiler: Path, flags: list[str]) -> Path:
    """The library's path; it is built if the cache does not have it."""
    name = f"{_key(compiler, flags)}.so"
    folder = private_dir(dnnlib.util.make_cache_dir_path("cpu-ops"))
    target = folder / name
    if not _is_whole(target):
        with cache.lock(folder / f"{name}.lock", _LOCK_TIMEOUT_SEC):
            if not _is_whole(target):
                _compile(compiler, flags, target)
    return target


def _sum_file(library: Path) -> Path:
    return library.with_suffix(".sha256")


def _is_whole(library: Path) -> bool:
    """Whether the library is what was built: loading half a file may end the process."""
    try:
        return _sum_file(library).read_text(encoding="ascii") == digest(library)
    except (OSError, ValueError):
        return False


def _key(compiler: Path, flags: list[str]) -> str:
    """Changes with the sources, the compiler, and the instructions that this processor has."""
    status = compiler.resolve().stat()
    sources = [path.read_text(encoding="utf-8") for path in (SOURCE, *HEADERS)]
    parts = [*sources, *flags, str(compiler.resolve()), str(status.st_mtime_ns),
             platform.machine(), _instructions()]  # fmt: skip
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


@functools.cache
def _instructions() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _compile(compiler: Path, flags: list[str], target: Path) -> None:
    """Builds the library and its check sum; each appears only once it is complete, and on the disk."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        built, whole = Path(folder) / "kernels.o", Path(folder) / target.name
        _run([str(compiler), *flags, "-c", str(SOURCE), "-o", str(built)])
        # Linked without -fopenmp: the threads are those of the OpenMP runtime that torch has already loaded. A second
        # runtime's threads would compete with them.
        _run([str(compiler), "-shared", str(built), "-o", str(whole)])
        content = whole.read_bytes()
    with open_atomic(_sum_file(target), "w") as file:
        file.write(hashlib.sha256(content).hexdigest())
    with open_atomic(target) as file:
        file.write(content)


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SEC, check=False)
    except subprocess.TimeoutExpired as error:
        raise BackendError(f"{command[0]}: not done after {_TIMEOUT_SEC} s") from error
    if done.returncode != 0:
        raise BackendError(f"{command[0]}: exit status {done.returncode}: {done.stderr.strip()[:500]}")


def threads() -> int:
    """How many threads a kernel uses: as many as torch's own operations."""
    return torch.get_num_threads()
