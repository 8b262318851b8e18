"""Sections: the machine and its versions; the ways to get compiled kernels, each tried."""
import os
import platform
import subprocess
import time
from pathlib import Path

import torch

from torch_utils.ops import cpu_kernels
from torch_utils.ops.backend import choice, doctor, loading, selftest

from .section import Row, Setup

ROOT = Path(__file__).resolve().parents[2]


def machine(setup: Setup) -> list[Row]:
    """Versions, the GPU, the processor, the commit, and what `python -m torch_utils.ops` says."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    facts = {
        "commit": commit.stdout.strip() or "unknown",
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "system": platform.platform(),
        "processors": str(os.cpu_count()),
    }
    if setup.is_cuda:
        properties = torch.cuda.get_device_properties(setup.device)
        facts |= {
            "GPU": properties.name,
            "compute capability": f"{properties.major}.{properties.minor}",
            "GPU memory": f"{properties.total_memory / 2**30:.0f} GiB",
            "multiprocessors": str(properties.multi_processor_count),
            "cuDNN": str(torch.backends.cudnn.version()),
        }
    lines = [line for line in doctor.report() if line.strip()]
    return [*({"what": name, "value": value} for name, value in facts.items()),
            *({"what": "torch_utils.ops", "value": line} for line in lines)]  # fmt: skip


def builds(setup: Setup) -> list[Row]:
    """Every way to get kernels: seconds until they are tested, or why it is not possible."""
    if not setup.is_cuda:
        return [{"way": "native CPU kernels", "seconds": 0.0, "result": cpu_kernels.describe(), "ok": True}]
    rows = []
    for way, load in loading.LOADERS.items():
        begin = time.monotonic()
        try:
            selftest.run(load(setup.device.index or 0), setup.device)
            result, ok = "built, loaded and tested", True
        except Exception as error:
            result, ok = " ".join(str(error).split()), False
        rows.append({"way": way, "seconds": round(time.monotonic() - begin, 1), "result": result, "ok": ok})
    kernels = choice.kernels_for(setup.device)
    rows.append({"way": "in use", "seconds": 0.0, "result": kernels.name if kernels else "plain torch",
                 "ok": kernels is not None})  # fmt: skip
    return rows
