"""Builds the CUDA kernels for the host, whole or changed, and replays launches in builds with sanitizers."""
import ctypes
import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

import torch

from torch_utils.ops.backend import cache
from torch_utils.ops.backend.launch_config import Launch
from torch_utils.ops.backend.library import Library

COMPILER = shutil.which("g++")
SHIM = Path(__file__).parent / "host_shim"


def of_types(*tags: str) -> str:
    """All kernels of some element types, as `build` takes them."""
    return " ".join(f"SG_{tag.upper()}(K)" for tag in tags)


LIBRARY_FLAGS = ("-shared", "-fPIC")
ALL = of_types("f16", "bf16", "f32", "f64")


def build(
    output: Path,
    kernels: str = ALL,
    flags: tuple[str, ...] = (),
    sources: Mapping[str, str] | None = None,
    program: str = "runner.cpp",
) -> Path:
    """Compiles some kernels, as SG_DTYPES in csrc/kernels.cuh lists them, from changed sources if there are any."""
    assert COMPILER is not None
    headers = output.parent / f"{output.name}.src"
    headers.mkdir()
    for name, text in {**cache.sources(), **(sources or {})}.items():
        (headers / name).write_text(text)
    base = [COMPILER, "-std=c++17", "-O1", f"-DSG_DTYPES(K)={kernels}"]
    command = [*base, *flags, f"-I{SHIM}", f"-I{headers}", str(SHIM / program), "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return output


def build_library(output: Path, flags: tuple[str, ...] = (), **options) -> "HostLibrary":
    """The same as a library that PyTorch's process loads."""
    return HostLibrary(build(output, flags=(*LIBRARY_FLAGS, *flags), **options))


class HostLibrary(Library):
    """The kernels, running on the host."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, name="host")
        self._lib.shim_count.restype = ctypes.c_longlong
        self.launches: list[Launch] = []

    def launch(self, launch: Launch, device: int, stream: int) -> None:
        self.launches.append(launch)
        super().launch(launch, device, stream)

    def seed(self, seed: int) -> None:
        """Chooses the order in which the threads of a block run from now on."""
        self._lib.shim_seed(seed)

    def count_sectors(self, launch: Launch) -> int:
        """Runs a launch; the 32-byte sectors of memory that its blocks touch, counted once per block."""
        self._lib.shim_count(1)
        super().launch(launch, 0, 0)
        return self._lib.shim_count(0)


POINTERS = {"Upfirdn2dParams": ("x", "f", "y"), "BiasActParams": ("ref", "b", "dy", "ddx", "out")}


def replay(program: Path, cases: list[tuple[Launch, list[torch.Tensor]]]) -> list[torch.Tensor]:
    """Runs launches in a separate program; the last tensor of each case as the kernel leaves it.

    Args:
        program: built with -DSHIM_MAIN.
        cases: each launch with its dense tensors, in the order in which its arguments point to them.
    """
    chunks = [struct.pack("i", len(cases))]
    for (kernel, grid, params), tensors in cases:
        names = POINTERS[type(params).__name__]
        offsets = [getattr(type(params), name).offset for name in names if getattr(params, name)]
        blobs = [bytes_of(tensor) for tensor in tensors]
        assert len(offsets) == len(blobs)
        chunks.append(struct.pack("64s5i", kernel.encode(), *grid, len(blobs), ctypes.sizeof(params)))
        chunks.append(struct.pack(f"{len(blobs)}q{len(blobs)}i", *map(len, blobs), *offsets))
        chunks += [bytes(params), *blobs]
    source, target = program.with_suffix(".in"), program.with_suffix(".out")
    source.write_bytes(b"".join(chunks))
    done = subprocess.run([program, source, target], capture_output=True, text=True)
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stderr}"
    content, results = target.read_bytes(), []
    for _, tensors in cases:
        for tensor in tensors:
            size = tensor.numel() * tensor.itemsize
            part, content = content[:size], content[size:]
        results.append(torch.empty_like(tensors[-1]))
        ctypes.memmove(results[-1].data_ptr(), part, len(part))
    assert not content
    return results


def bytes_of(tensor: torch.Tensor) -> bytes:
    """The memory of a dense tensor, in whatever layout."""
    return ctypes.string_at(tensor.data_ptr(), tensor.numel() * tensor.itemsize)
