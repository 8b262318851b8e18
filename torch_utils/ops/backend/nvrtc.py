"""Compiles the kernels with NVRTC, the compiler inside a library that CUDA builds of PyTorch bring along.

Needs no nvcc, no host compiler and no ninja.
"""
import ctypes
import ctypes.util
import functools
import importlib.util
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from . import cache
from .archs import Targets
from .errors import BackendError

IMAGE = "kernels.bin"  # machine code of one architecture, or PTX


class Compiler:
    """One NVRTC library.

    Raises:
        BackendError: the file is not an NVRTC that can be loaded.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._lib = ctypes.CDLL(path)
            self._lib.nvrtcGetErrorString.restype = ctypes.c_char_p
        except (OSError, AttributeError) as error:
            raise BackendError(f"{path} cannot be loaded: {error}") from error

    def _call(self, function: str, *args: Any) -> None:
        code = getattr(self._lib, function)(*args)
        if code != 0:
            raise BackendError(f"{function}: {self._lib.nvrtcGetErrorString(code).decode()}")

    @property
    def version(self) -> str:
        """Such as "NVRTC 13.0"."""
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        return f"NVRTC {major.value}.{minor.value}"

    @property
    def supported_archs(self) -> list[str]:
        """The architectures it compiles for, such as "90"."""
        count = ctypes.c_int()
        self._call("nvrtcGetNumSupportedArchs", ctypes.byref(count))
        archs = (ctypes.c_int * count.value)()
        self._call("nvrtcGetSupportedArchs", archs)
        return [str(arch) for arch in archs]

    def compile(self, targets: Targets, defines: tuple[str, ...] = ()) -> bytes:
        """The image for a single target: machine code, or PTX as text.

        Raises:
            BackendError: the compiler's first error.
        """
        (arch,) = (f"sm_{arch}" for arch in targets.sm) if targets.sm else (f"compute_{arch}" for arch in targets.ptx)
        options = [f"--gpu-architecture={arch}", "--std=c++17", *[f"-D{define}" for define in defines]]
        headers = {name: text for name, text in cache.sources().items() if name.endswith(".cuh")}
        program = ctypes.c_void_p()
        self._call(
            "nvrtcCreateProgram", ctypes.byref(program), b'#include "kernels.cuh"\n', b"kernels.cu", len(headers),
            _strings(headers.values()), _strings(headers),
        )  # fmt: skip
        try:
            try:
                self._call("nvrtcCompileProgram", program, len(options), _strings(options))
            except BackendError as error:
                raise BackendError(f"{error}: {_first_error(self._result(program, 'ProgramLog').decode())}") from error
            return self._result(program, "CUBIN" if targets.sm else "PTX")
        finally:
            self._lib.nvrtcDestroyProgram(ctypes.byref(program))

    def _result(self, program: ctypes.c_void_p, kind: str) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"nvrtcGet{kind}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._call(f"nvrtcGet{kind}", program, buffer)
        return buffer.raw


def _strings(items: Iterable[str]) -> ctypes.Array[ctypes.c_char_p]:
    encoded = [item.encode() for item in items]
    return (ctypes.c_char_p * len(encoded))(*encoded)


def _first_error(log: str) -> str:
    lines = [line.strip() for line in log.strip("\0").splitlines() if line.strip()]
    return ([line for line in lines if "error" in line] or lines or ["it said nothing"])[0][:300]


@functools.cache
def find() -> Compiler:
    """The NVRTC that came with PyTorch, else one of pip's nvidia wheels or of a CUDA toolkit.

    Of several the one whose major version is that of PyTorch's CUDA comes first: drivers refuse newer ones.

    Raises:
        BackendError: there is none, or none that loads.
    """
    problems = []
    for path in _candidates():
        try:
            return Compiler(path)
        except BackendError as error:
            problems.append(str(error))
    nothing = "no NVRTC library was found; CUDA builds of PyTorch bring one, as does pip install nvidia-cuda-nvrtc"
    raise BackendError(problems[0] if problems else nothing)


def _candidates() -> Iterator[str]:
    major = (torch.version.cuda or "").split(".")[0]
    files = [path for folder in _folders() for path in sorted(folder.glob("*nvrtc*")) if _is_nvrtc(path.name)]
    fits = [path for path in files if major and re.search(rf"(\.so\.|64_){major}", path.name)]
    yield from map(str, dict.fromkeys([*fits, *files]))
    for name in {"nvrtc", f"nvrtc64_{major}0_0"}:
        library = ctypes.util.find_library(name)
        if library:
            yield library


def _is_nvrtc(name: str) -> bool:
    """Not its companion with the built-in functions, nor PyTorch's wrapper, nor the slower alternative build."""
    return re.fullmatch(r"libnvrtc(-\w+)?\.so[.\d]*|nvrtc64_[\d_]+\.dll", name) is not None and "builtins" not in name


def _folders() -> Iterator[Path]:
    spec = importlib.util.find_spec("nvidia")
    for base in (spec.submodule_search_locations or []) if spec else []:
        wheels = [Path(base, "cuda_nvrtc"), *sorted(Path(base).glob("cu*"), reverse=True)]
        for wheel in wheels:
            yield from (wheel / "lib", wheel / "bin")
    yield Path(torch.__file__).parent / "lib"
    for home in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"):
        if home:
            yield from (Path(home, "lib64"), Path(home, "bin"), Path(home, "lib"))


def build(folder: Path, targets: Targets) -> dict[str, Any]:
    """Puts the image for a single target into a folder; facts for the manifest."""
    compiler = find()
    (folder / IMAGE).write_bytes(compiler.compile(targets))
    return {"compiler": compiler.version}
