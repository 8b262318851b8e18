"""Which compiled CUDA kernels a device uses. They are built on first use; if that fails, PyTorch computes instead.

The ways to get them, in this order: a library built by nvcc and ninja, an image compiled by NVRTC. If neither works, or
there is no CUDA device, the operations use plain torch, and one line says why. $SG_OPS = ninja, nvrtc or ref insists on
one way ("auto" is the default). `python -m torch_utils.ops` shows what this machine uses.
"""
import logging
import sys
import threading
import time

import torch

from dnnlib.errors import UserError
from torch_utils.ops import settings

from . import loading, selftest
from .errors import BackendError
from .kernels import Kernels

_log = logging.getLogger(__name__)

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


def prepare(device: torch.device) -> None:
    """Gets the kernels ready. For all processes to call together: the first of each machine builds, the others wait.

    Without it the processes do so by themselves when they first need the kernels; a lock then makes one of them build.

    Raises:
        UserError: as `kernels_for`.
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
    if settings.mode not in settings.MODES:
        known = ", ".join(settings.MODES)
        raise UserError(f"environment variable SG_OPS: expected one of {known}, found {settings.mode!r}")
    problems = _reasons[device] = []
    ways = {"auto": ["ninja", "nvrtc"], "ref": []}.get(settings.mode, [settings.mode])
    if torch.version.hip is not None:
        ways, problems[:] = [], ["the kernels are for NVIDIA's GPUs, this PyTorch is for AMD's"]
    for way in ways:
        begin = time.monotonic()
        try:
            kernels = loading.LOADERS[way](device.index)
            selftest.run(kernels, device)
        except (BackendError, OSError, RuntimeError, UserError) as error:
            problems.append(f"{way}: {_one_line(error)}")
            continue
        _announce(logging.INFO, f"CUDA ops on {device}: {way}, ready in {time.monotonic() - begin:.1f} s")
        return kernels
    if settings.mode in ("ninja", "nvrtc"):
        raise UserError(f"environment variable SG_OPS: {settings.mode} is not possible here; {'; '.join(problems)}")
    if settings.mode == "auto":
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
