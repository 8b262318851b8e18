"""Time and memory of a refit: a StyleGAN2 generator of a given size with random weights, random channels kept.

    python -m benchmarks.refit_cost --resolution=1024 --threads=2

One JSON line. On a busy machine only the processor time of all threads tells something.
"""
import json
import os
import platform
import resource
import time
from fractions import Fraction
from typing import Any

import click
import torch

from dgl import prune
from dgl.architectures import plan_of
from dgl.refit import RefitOptions, refit_network
from dnnlib.cli import Command, Fraction01
from torch_utils.devices import tune_allocator
from training.networks import Generator


def peak_gib() -> float:
    """The most memory that this process had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)


def measure(G: Any, width: Fraction) -> dict[str, Any]:
    """Refits a random slice of a generator."""
    plan = plan_of(G)
    random = torch.Generator().manual_seed(0)
    sizes = plan.scaled(width)
    keep = {name: torch.randperm(size, generator=random)[: sizes[name]].sort().values
            for name, size in plan.sets.items()}
    narrow = prune.slice_network(G, keep)
    before, start, start_cpu = peak_gib(), time.perf_counter(), time.process_time()
    report = refit_network("G", G, narrow, keep, RefitOptions())
    assert report is not None
    return {"seconds": round(time.perf_counter() - start, 1), "cpu_seconds": round(time.process_time() - start_cpu, 1),
            "peak_gib": round(peak_gib(), 2), "peak_gib_before": round(before, 2), "summary": report.summary()}


@click.command(cls=Command)
@click.option("--resolution", type=int, default=1024, show_default=True, help="Side of the images.")
@click.option("--channel-base", type=int, default=32768, show_default=True, help="Channels times resolution.")
@click.option("--width", help="Part of the channels to keep.", type=Fraction01(), default="1/2", show_default=True,
              metavar="FRACTION")
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True, help="CPU threads.")
def main(resolution: int, channel_base: int, width: Fraction, threads: int) -> None:
    """Measure one refit."""
    tune_allocator()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    G = Generator(z_dim=512, c_dim=0, w_dim=512, img_resolution=resolution, img_channels=3,
                  synthesis_kwargs={"channel_base": channel_base, "channel_max": 512}).eval().requires_grad_(False)
    click.echo(json.dumps({
        **measure(G, width), "resolution": resolution, "channel_base": channel_base, "width": str(width),
        "threads": threads, "torch": torch.__version__, "machine": platform.machine(),
        "load_average": round(os.getloadavg()[0], 1),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
