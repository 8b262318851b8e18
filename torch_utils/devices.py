"""Chooses the device to compute on, its numerical modes, and the CPU's memory allocator."""
import ctypes
import os

import torch

from dnnlib.errors import UserError

# glibc's mallopt: parameter numbers from malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_UNLIMITED = 2**31 - 1
_OLD_GLIBC_LIMIT = 2**25  # older versions refuse a larger mmap threshold

_allocator_tuned: bool | None = None


def resolve_device(name: str) -> torch.device:
    """The device that a name stands for.

    Args:
        name: "auto" (a CUDA GPU if there is one, else Apple's, else the CPU), "cpu", "cuda", "mps", or "cuda:1".
            "cuda" without a number is the GPU of this process, $LOCAL_RANK, 0 if not set.

    Raises:
        UserError: there is no such device here.
    """
    if name == "auto":
        without_cuda = "mps" if torch.backends.mps.is_available() else "cpu"
        name = "cuda" if torch.cuda.is_available() else without_cuda
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"expected auto, cpu, cuda or mps, found {name!r}", "device") from error
    if device.type == "cuda":
        return _cuda_device(device.index)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"torch {torch.__version__} finds no Apple GPU here; use `device=cpu`", "device")
    return device


def set_numerical_modes(cudnn_benchmark: bool, allow_tf32: bool) -> None:
    """Sets how this process computes on CUDA GPUs.

    Args:
        cudnn_benchmark: cuDNN times its algorithms for every new shape, and takes the fastest.
        allow_tf32: matrix products and convolutions of float32 may round their operands to ten bits.
    """
    torch.backends.cudnn.benchmark = cudnn_benchmark
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allow_tf32


def _cuda_device(index: int | None) -> torch.device:
    if not torch.cuda.is_available():
        raise UserError(f"torch {torch.__version__} finds no CUDA GPU here; use `device=cpu`", "device")
    index = int(os.environ.get("LOCAL_RANK", 0)) if index is None else index
    count = torch.cuda.device_count()
    if index >= count:
        raise UserError(f"cuda:{index} does not exist, this machine has {count} GPU(s); use fewer processes", "device")
    return torch.device("cuda", index)


def tune_allocator() -> bool:
    """Makes glibc keep large freed blocks instead of returning each to the system.

    The page faults of handing blocks back and forth cost more than the arithmetic of most image-sized operations: they
    become two to six times faster. The price is that the process keeps its peak memory. Does nothing where the C
    library is not glibc or $SG_MALLOC is "default". Only the first call acts; what was freed before it goes back to the
    system.

    Returns:
        Whether the allocator is tuned now.
    """
    global _allocator_tuned
    if _allocator_tuned is None:
        _allocator_tuned = os.environ.get("SG_MALLOC") != "default" and _is_glibc() and _set_thresholds()
    return _allocator_tuned


def _is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError, OSError):
        return False


def _set_thresholds() -> bool:
    library = ctypes.CDLL(None)
    mallopt = getattr(library, "mallopt", None)
    if mallopt is None:
        return False
    library.malloc_trim(0)
    mapped = mallopt(_M_MMAP_THRESHOLD, _UNLIMITED) or mallopt(_M_MMAP_THRESHOLD, _OLD_GLIBC_LIMIT)
    return bool(mapped and mallopt(_M_TRIM_THRESHOLD, _UNLIMITED))
