"""What a run reports: console lines, tables of networks, progress, stats.jsonl, TensorBoard events, provenance."""
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

import dnnlib
from dnnlib import strict_json
from dnnlib.progress import Progress
from torch_utils import distributed, training_stats
from torch_utils.summary import print_module_summary

_COLUMNS = [  # text, statistic, width, format
    ("tick", "Progress/tick", 5, "d"),
    ("kimg", "Progress/kimg", 8, ".1f"),
    ("time", "Timing/total_sec", 12, "time"),
    ("sec/tick", "Timing/sec_per_tick", 7, ".1f"),
    ("sec/kimg", "Timing/sec_per_kimg", 7, ".2f"),
    ("maintenance", "Timing/maintenance_sec", 6, ".1f"),
    ("cpumem", "Resources/cpu_mem_gb", 6, ".2f"),
    ("gpumem", "Resources/peak_gpu_mem_gb", 6, ".2f"),
    ("augment", "Progress/augment", 0, ".3f"),
]


def print_line(line: str) -> None:
    """Prints a line, on the main process only."""
    if distributed.is_main():
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def progress_bar(total_kimg: float, initial_kimg: float) -> Progress:
    """The progress bar of a run, shown by the main process only."""
    enabled = None if distributed.is_main() else False
    return Progress(total_kimg, "training", unit="kimg", enabled=enabled, initial=initial_kimg)


def print_summaries(G: Any, D: torch.nn.Module, device: torch.device) -> None:
    """Prints the tables of both networks on the main process, from a pass that draws no random numbers."""
    if not distributed.is_main():
        return
    data, label = (torch.zeros([1, dim], device=device) for dim in (G.z_dim, G.c_dim))
    was_training = D.training
    D.eval()  # its running estimates must not include these images
    with torch.no_grad():
        for network in (G, D):  # D takes the image of G
            data = print_module_summary(network, [data, label])
    D.train(was_training)


def status_line(values: dict[str, float]) -> str:
    """One line of fixed columns, e.g. 'tick 3     kimg 12.1     time 1m 02s ...'. Statistic name → value."""
    fields = []
    for text, name, width, spec in _COLUMNS:
        value = values[name]
        if spec == "time":
            shown = dnnlib.util.format_time(value)
        else:
            shown = format(int(value) if spec == "d" else value, spec)
        fields.append(f"{text} {shown:<{width}}")
    return " ".join(fields)


def resources(device: torch.device) -> dict[str, float]:
    """Memory in GiB: this process's, and on CUDA the peaks since the last call; its processor seconds so far."""
    values = {"Resources/cpu_mem_gb": psutil.Process().memory_info().rss / 2**30, "Resources/peak_gpu_mem_gb": 0.0,
              "Resources/cpu_sec": time.process_time()}
    if device.type == "cuda":
        values["Resources/peak_gpu_mem_gb"] = torch.cuda.max_memory_allocated(device) / 2**30
        values["Resources/peak_gpu_mem_reserved_gb"] = torch.cuda.max_memory_reserved(device) / 2**30
        torch.cuda.reset_peak_memory_stats(device)
    return values


class StatsWriter:
    """Appends one record per tick to stats.jsonl and, where TensorBoard is installed, to its event file.

    Args:
        run_dir: the run's folder.
        num_bytes: length of stats.jsonl when the state to resume from was saved; what follows is removed.
    """

    def __init__(self, run_dir: str | os.PathLike, num_bytes: int = 0) -> None:
        self._path = Path(run_dir, "stats.jsonl")
        with open(self._path, "ab") as f:
            f.truncate(min(num_bytes, f.tell()))  # it may have been removed or truncated since
        self._tensorboard: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._tensorboard = SummaryWriter(str(run_dir))

    @property
    def num_bytes(self) -> int:
        """The present length of stats.jsonl."""
        return self._path.stat().st_size

    def write(self, stats: dict[str, Any], metrics: dict[str, float], cur_nimg: int) -> None:
        """Writes the statistics of a tick (name → num, mean, std) and the latest metric values."""
        line = strict_json.dumps({**stats, "timestamp": time.time()})
        with open(self._path, "a", encoding="utf-8") as f:
            f.write(line + "\n")
        if self._tensorboard is not None:
            scalars = {name: value.mean for name, value in stats.items()}
            scalars |= {f"Metrics/{name}": value for name, value in metrics.items()}
            self._write_scalars(scalars, cur_nimg // 1000)

    def _write_scalars(self, scalars: dict[str, float], kimg: int) -> None:
        """Writes one event for each."""
        for name, value in scalars.items():
            self._tensorboard.add_scalar(name, value, global_step=kimg)
        self._tensorboard.flush()

    def close(self) -> None:
        """Closes the event file."""
        if self._tensorboard is not None:
            self._tensorboard.close()


class Stopwatch:
    """Measures named parts of an iteration; on CUDA with events, which are read in `report` only."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._events: dict[str, tuple[Any, Any]] = {}
        self._started: dict[str, Any] = {}

    def _mark(self) -> Any:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def start(self, name: str) -> None:
        """Starts to measure a part."""
        self._started[name] = self._mark()

    def stop(self, name: str) -> None:
        """Ends the measurement of a part."""
        self._events[name] = (self._started.pop(name), self._mark())

    def report(self) -> None:
        """Reports Timing/<name>, milliseconds of the latest measurement of each part."""
        for name, (start, end) in self._events.items():
            if self._device.type == "cuda":
                end.synchronize()
                milliseconds = start.elapsed_time(end)
            else:
                milliseconds = (end - start) * 1e3
            training_stats.report0(f"Timing/{name}", np.float64(milliseconds))
        self._events.clear()


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
