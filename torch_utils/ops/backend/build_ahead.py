"""Builds kernels ahead of time, on a machine that need not have a GPU."""
from pathlib import Path

import torch

from dnnlib.errors import UserError

from . import archs, cache, loading, nvcc, nvrtc
from .errors import BackendError


def build_ahead(wanted: list[str] | None = None) -> list[Path]:
    """Builds for given architectures into the cache.

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
        raise UserError(str(error), field="wanted") from error


def _build_singles(sm: list[str], no_nvcc: BackendError) -> list[Path]:
    try:
        nvrtc.find()
    except BackendError as no_nvrtc:
        raise BackendError(f"{no_nvcc}; {no_nvrtc}") from no_nvrtc
    return [loading.build_nvrtc(arch) for arch in sm]


def _wanted_archs(wanted: list[str] | None) -> tuple[list[str], list[str]]:
    if wanted:
        return archs.parse(";".join(wanted))
    listed = archs.from_environment()
    if listed is not None:
        return listed
    present = [archs.of_device(index) for index in range(torch.cuda.device_count())]
    if not present:
        raise BackendError("this machine has no GPU to build for; name architectures, such as `wanted=8.0`")
    return list(dict.fromkeys(present)), []
