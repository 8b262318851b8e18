"""Compiled CUDA kernels: built when they are first needed, and never what makes a program fail.

The ways to get them, in this order: a library built by nvcc and ninja, an image compiled by NVRTC. If neither works, or
there is no CUDA device, the operations compute in plain torch, and one line says why. $SG_OPS = ninja, nvrtc or ref
insists on one way ("auto" is the default). `python -m torch_utils.ops` shows what this machine uses.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

from dnnlib.util import UserError

from . import archs, cache, driver, nvcc, nvrtc, selftest
from .archs import Targets
from .errors import BackendError
from .library import Library
from .plan import TAGS, Launch
from .selftest import Kernels

__all__ = ["BackendError", "Kernels", "build_ahead", "kernels_for", "prepare", "reasons", "run", "serves"]

_log = logging.getLogger(__name__)

LIBRARY = torch.library.Library("sg2", "FRAGMENT")  # the namespace of the registered operations

MODES = ("auto", "ninja", "nvrtc", "ref")
mode = os.environ.get("SG_OPS") or "auto"

# Device → its kernels; None: there are none, use plain torch. Tests put kernels that run on the host here.
_chosen: dict[torch.device, Kernels | None] = {torch.device("cpu"): None}
_reasons: dict[torch.device, list[str]] = {}  # why a device does not use something faster
_choosing = threading.Lock()


def kernels_for(device: torch.device) -> Kernels | None:
    """The kernels to use on a device, built or loaded now if this is its first use; None: use plain torch.

    Raises:
        UserError: $SG_OPS insists on kernels that cannot be had, or is not a mode.
    """
    try:
        return _chosen[device]
    except KeyError:
        pass
    if device.type != "cuda":
        return None
    with _choosing:
        if device not in _chosen:
            _chosen[device] = _choose(device)
        return _chosen[device]


def serves(*tensors: torch.Tensor | None) -> bool:
    """Whether tensors should go through a registered operation: they are on a CUDA device, of one supported type.

    Elsewhere, plain torch operations are quicker to call and can be exported to other formats.
    """
    first = tensors[0]
    assert first is not None
    if not first.is_cuda or mode == "ref" or first.dtype not in TAGS:
        return False
    return all(t is None or (t.is_cuda and t.dtype == first.dtype) for t in tensors)


def run(kernels: Kernels, launch: Launch, device: torch.device) -> None:
    """Queues a kernel on the device's current stream."""
    if device.type == "cuda":
        kernels.launch(launch, device.index, torch.cuda.current_stream(device).cuda_stream)
    else:
        kernels.launch(launch, 0, 0)


def prepare(device: torch.device) -> None:
    """Gets the kernels ready. For all processes to call together: the first of each machine builds, the others wait.

    Without it the processes do so by themselves when they first need the kernels; a lock then makes one of them build.
    """
    if device.type != "cuda":
        return
    from torch_utils import distributed  # not at import: most users of an operation never need it

    device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
    if distributed.local_rank() == 0:
        kernels_for(device)
    distributed.barrier()
    kernels_for(device)


def reasons(device: torch.device) -> list[str]:
    """Why a device does not use something faster, one line per way that was tried."""
    return list(_reasons.get(device, []))


def _choose(device: torch.device) -> Kernels | None:
    if mode not in MODES:
        raise UserError(f"environment variable SG_OPS: expected one of {', '.join(MODES)}, found {mode!r}")
    problems = _reasons[device] = []
    ways = {"auto": ["ninja", "nvrtc"], "ref": []}.get(mode, [mode])
    if torch.version.hip is not None:
        ways, problems[:] = [], ["the kernels are for NVIDIA's GPUs, this PyTorch is for AMD's"]
    for way in ways:
        begin = time.monotonic()
        try:
            kernels = LOADERS[way](device.index)
            selftest.run(kernels, device)
        except (BackendError, OSError, RuntimeError, UserError) as error:
            problems.append(f"{way}: {_one_line(error)}")
            continue
        _announce(logging.INFO, f"CUDA ops on {device}: {way}, ready in {time.monotonic() - begin:.1f} s")
        return kernels
    if mode in ("ninja", "nvrtc"):
        raise UserError(f"environment variable SG_OPS: {mode} is not possible here; {'; '.join(problems)}")
    if mode == "auto":
        _announce(logging.WARNING, f"CUDA ops on {device}: plain torch, which is slower; {'; '.join(problems)}. "
                  "Run `python -m torch_utils.ops` for more")
    return None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _announce(level: int, line: str) -> None:
    from torch_utils import distributed

    if not distributed.is_main():
        return
    if logging.getLogger().hasHandlers():
        _log.log(level, line)
    else:  # a program without logging would hide it
        sys.stderr.write(f"{line}\n")


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
    return Library(_folder("ninja", archs.of_device(index), _build_ninja) / nvcc.LIBRARY)


def _load_nvrtc(index: int) -> Kernels:
    cuda = driver.load_driver()
    folder = _folder("nvrtc", archs.of_device(index), _build_nvrtc)
    return driver.Module(cuda, (folder / nvrtc.IMAGE).read_bytes(), index)


def _folder(kind: str, arch: str, build: Callable[[str], Path]) -> Path:
    """A build with machine code for the GPU, else a new one, else one whose PTX the driver can compile."""
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


def _build_ninja(arch: str) -> Path:
    compiler = nvcc.find_nvcc()
    targets = targets_for(nvcc.supported_archs(compiler), nvcc.version(compiler), arch)
    return cache.get("ninja", targets, lambda path: nvcc.build(path, targets))


def _build_nvrtc(arch: str) -> Path:
    targets = single_target(nvrtc.find(), arch)
    return cache.get("nvrtc", targets, lambda path: nvrtc.build(path, targets))


def single_target(compiler: nvrtc.Compiler, arch: str) -> Targets:
    """Machine code for the architecture, or PTX if it is newer than the compiler."""
    targets = archs.choose([arch], [], compiler.supported_archs, compiler.version)
    return Targets(sm=targets.sm) if targets.sm else targets


LOADERS: dict[str, Callable[[int], Kernels]] = {"ninja": _load_ninja, "nvrtc": _load_nvrtc}


def build_ahead(wanted: list[str] | None = None) -> list[Path]:
    """Builds for given architectures into the cache, on a machine that need not have a GPU.

    Args:
        wanted: as in $TORCH_CUDA_ARCH_LIST, which is the default, then this machine's GPUs.

    Returns:
        The folders of the builds: one by nvcc, or, without nvcc, one by NVRTC per architecture.

    Raises:
        UserError: nothing to build for, or no compiler can.
    """
    try:
        sm, ptx = _wanted_archs(wanted)
        try:
            nvcc.find_ninja()
            compiler = nvcc.find_nvcc()
        except BackendError as no_nvcc:
            return _build_singles(sm, no_nvcc)
        targets = archs.choose(sm, ptx, nvcc.supported_archs(compiler), nvcc.version(compiler))
        if targets.skipped:
            too_old = ", ".join(f"sm_{arch}" for arch in targets.skipped)
            raise BackendError(f"{nvcc.version(compiler)} no longer knows {too_old}; leave it out")
        return [cache.get("ninja", targets, lambda path: nvcc.build(path, targets))]
    except BackendError as error:
        raise UserError(f"--build: {error}") from error


def _build_singles(sm: list[str], no_nvcc: BackendError) -> list[Path]:
    try:
        nvrtc.find()
    except BackendError as no_nvrtc:
        raise BackendError(f"{no_nvcc}; {no_nvrtc}") from no_nvrtc
    return [_build_nvrtc(arch) for arch in sm]


def _wanted_archs(wanted: list[str] | None) -> tuple[list[str], list[str]]:
    if wanted:
        return archs.parse(";".join(wanted))
    listed = archs.from_environment()
    if listed is not None:
        return listed
    found = [archs.of_device(index) for index in range(torch.cuda.device_count())]
    if not found:
        raise BackendError("this machine has no GPU to build for; name architectures, such as --arch=8.0 --arch=9.0")
    return list(dict.fromkeys(found)), []
