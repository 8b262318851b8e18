"""Builds the kernels into a shared library: nvcc, driven by ninja (not by torch: docs/adr/0009-own-ninja-file.md)."""
import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from . import cache
from .archs import Targets
from .errors import BackendError

BUILD_TIMEOUT_SEC = 300.0  # shorter than processes wait for one another (cache.LOCK_TIMEOUT_SEC, torch.distributed)
LIBRARY = "kernels.dll" if os.name == "nt" else "kernels.so"
_EXE = ".exe" if os.name == "nt" else ""


def find_nvcc() -> Path:
    """The compiler of $CUDA_HOME or $CUDA_PATH, on the PATH, from pip's nvidia wheels, or at its usual place.

    Raises:
        BackendError: there is none.
    """
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    places = [Path(home) / "bin" / f"nvcc{_EXE}" for home in homes if home]
    on_path = shutil.which("nvcc")
    if on_path:
        places.append(Path(on_path))
    places += sorted(Path(sysconfig.get_paths()["purelib"], "nvidia").glob(f"cu*/bin/nvcc{_EXE}"), reverse=True)
    places.append(Path("/usr/local/cuda/bin/nvcc"))
    for place in places:
        if place.is_file():
            return place
    raise BackendError("nvcc was not found; install the CUDA toolkit, or set CUDA_HOME to where it is")


def find_ninja() -> Path:
    """The ninja of its Python package, beside this Python (its environment may not be activated), or on the PATH.

    Raises:
        BackendError: there is none.
    """
    try:
        import ninja

        places = [Path(ninja.BIN_DIR) / f"ninja{_EXE}"]
    except (ImportError, AttributeError):
        places = []
    places.append(Path(sys.executable).parent / f"ninja{_EXE}")
    on_path = shutil.which("ninja")
    if on_path:
        places.append(Path(on_path))
    for place in places:
        if place.is_file():
            return place
    raise BackendError("ninja was not found; pip install ninja")


@functools.cache
def version(nvcc: Path) -> str:
    """Such as "nvcc 13.0.88".

    Raises:
        BackendError: it cannot be run.
    """
    match = re.search(r"V(\d[\d.]*)", run([str(nvcc), "--version"]))
    return f"nvcc {match[1]}" if match else "nvcc of unknown version"


@functools.cache
def supported_archs(nvcc: Path) -> list[str]:
    """The architectures it compiles for, such as "90".

    Raises:
        BackendError: it cannot be run, or names none.
    """
    architectures = re.findall(r"compute_(\d+)\b", run([str(nvcc), "--list-gpu-arch"]))
    if not architectures:
        raise BackendError(f"{nvcc} --list-gpu-arch names no architecture")
    return architectures


def build(folder: Path, targets: Targets) -> dict[str, Any]:
    """Puts the library for the given architectures into a folder.

    Returns:
        Facts for the manifest.

    Raises:
        BackendError: a tool is missing, or the compiler's first error.
    """
    nvcc, ninja = find_nvcc(), find_ninja()
    for name, text in cache.sources().items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "build.ninja").write_text(_ninja_file(nvcc, targets), encoding="utf-8")
    run([str(ninja)], folder)
    return {"compiler": version(nvcc)}


def _ninja_file(nvcc: Path, targets: Targets) -> str:
    flags = ["-O3", "-std=c++17", "-shared", "--threads 0", "-allow-unsupported-compiler"]
    if os.name != "nt":
        flags.append("-Xcompiler -fPIC,-fvisibility=hidden")
    for arch in dict.fromkeys([*targets.sm, *targets.ptx]):
        code = [f"sm_{arch}"] * (arch in targets.sm) + [f"compute_{arch}"] * (arch in targets.ptx)
        flags.append(f'-gencode "arch=compute_{arch},code=[{",".join(code)}]"')
    headers = " ".join(name for name in cache.sources() if name.endswith(".cuh"))
    command = f'"{nvcc}"'.replace("$", "$$")
    return (
        f"rule library\n  command = {command} {' '.join(flags)} -o $out $in\n"
        f"build {LIBRARY}: library launcher.cu | {headers}\n"
    )


def run(command: list[str], folder: Path | None = None) -> str:
    """Runs a tool, and ends all that it started if it takes too long; its output.

    Raises:
        BackendError: it cannot be run, fails or takes too long.
    """
    try:
        process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise BackendError(f"{command[0]} cannot be run: {error.strerror}") from error
    try:
        output, _ = process.communicate(timeout=BUILD_TIMEOUT_SEC)
    except subprocess.TimeoutExpired as error:
        _kill(process)
        raise BackendError(f"{Path(command[0]).name} did not end within {BUILD_TIMEOUT_SEC:.0f} s") from error
    except BaseException:
        _kill(process)
        raise
    if process.returncode != 0:
        raise BackendError(f"{Path(command[0]).name} failed: {_first_error(output)}")
    return output


def _kill(process: "subprocess.Popen[str]") -> None:
    if os.name == "nt":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _first_error(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"\b(error|fatal|not found)\b", line, re.IGNORECASE)]
    return (telling or lines[-1:] or ["it said nothing"])[0][:300]
