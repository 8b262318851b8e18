"""Which code and which libraries a run was made with."""
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch


def provenance() -> dict[str, Any]:
    """Command line, git commit (None outside a checkout), and versions of Python, torch, CUDA and NumPy."""
    return {
        "command": sys.argv,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "numpy": np.__version__,
    }


def _commit() -> str | None:
    root = Path(__file__).resolve().parent.parent
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
