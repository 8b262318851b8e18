"""Gets compiled kernels for a GPU: a fitting build from the cache, else a new one, by nvcc or by NVRTC."""
import os
from collections.abc import Callable
from pathlib import Path

from . import archs, cache, driver, nvcc, nvrtc
from .archs import Targets
from .errors import BackendError
from .kernels import Kernels
from .library import Library


def targets_for(supported: list[str], compiler: str, arch: str) -> Targets:
    """What to compile for a GPU: what $TORCH_CUDA_ARCH_LIST says, else just for itself.

    Raises:
        BackendError: the GPU could not run it.
    """
    listed = archs.from_environment()
    targets = archs.choose(*(listed or ([arch], [])), supported, compiler)
    if not targets.run_on(arch):
        raise BackendError(f"TORCH_CUDA_ARCH_LIST={os.environ['TORCH_CUDA_ARCH_LIST']} leaves out this GPU's sm_{arch}")
    return targets


def _load_ninja(index: int) -> Kernels:
    return Library(find_or_build("ninja", archs.of_device(index), build_ninja) / nvcc.LIBRARY)


def _load_nvrtc(index: int) -> Kernels:
    cuda = driver.load_driver()
    folder = find_or_build("nvrtc", archs.of_device(index), build_nvrtc)
    return driver.Module(cuda, (folder / nvrtc.IMAGE).read_bytes(), index)


def find_or_build(kind: str, arch: str, build: Callable[[str], Path]) -> Path:
    """A build with machine code for the GPU, else a new one, else one whose PTX the driver can compile.

    Raises:
        BackendError: there is none, and `build` fails.
    """
    folder = cache.find(kind, lambda targets: targets.has_code_for(arch))
    if folder is not None:
        return folder
    try:
        return build(arch)
    except BackendError:
        folder = cache.find(kind, lambda targets: targets.run_on(arch))
        if folder is None:
            raise
        return folder


def build_ninja(arch: str) -> Path:
    """The folder of a library by nvcc for an architecture, such as "90".

    Raises:
        BackendError: a tool is missing or fails.
    """
    compiler = nvcc.find_nvcc()
    targets = targets_for(nvcc.supported_archs(compiler), nvcc.version(compiler), arch)
    return cache.get("ninja", targets, lambda path: nvcc.build(path, targets))


def build_nvrtc(arch: str) -> Path:
    """The folder of an image by NVRTC for an architecture, such as "90".

    Raises:
        BackendError: there is no NVRTC, or it fails.
    """
    targets = single_target(nvrtc.find(), arch)
    return cache.get("nvrtc", targets, lambda path: nvrtc.build(path, targets))


def single_target(compiler: nvrtc.Compiler, arch: str) -> Targets:
    """Machine code for the architecture, or PTX if it is newer than the compiler."""
    targets = archs.choose([arch], [], compiler.supported_archs, compiler.version)
    return Targets(sm=targets.sm) if targets.sm else targets


LOADERS: dict[str, Callable[[int], Kernels]] = {"ninja": _load_ninja, "nvrtc": _load_nvrtc}
