"""Times calls on a GPU by its own clock, on a CPU by the wall's."""
import statistics
import time
from collections.abc import Callable

import torch


def milliseconds(call: Callable[[], object], device: torch.device, calls: int = 20, repeats: int = 9) -> float:
    """Of one call: the median of some runs of `calls` calls each, after a warm-up."""
    for _ in range(3):
        call()
    return statistics.median(_run(call, device, calls) / calls for _ in range(repeats))


def _run(call: Callable[[], object], device: torch.device, calls: int) -> float:
    if device.type != "cuda":
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - begin) * 1000
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(calls):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)
