"""What torch.compile would gain on a CPU: generators and training phases, compiled against the native path.

    python benchmarks/compiled.py

Seconds of processor time of one thread in turns, medians, and of the compilation. A compiled function of torch's own
operations takes the place of the native kernels, because those are no part of a captured program. Regularisation is
left out: torch.compile has no second derivatives.
"""
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks import cpu_works
from torch_utils.devices import tune_allocator
from training import networks

SIZES = {"32 px, batch 32": cpu_works.Size(32, 1024, 32, 64, 64, 1), "256 px, batch 4": cpu_works.Size(256, 16384, 4)}


def seconds(call: Callable[[], object]) -> float:
    """Of processor time, of one call."""
    begin = time.process_time()
    call()
    return time.process_time() - begin


def compared(native: Callable[[], object], compiled: Callable[[], object], pairs: int) -> tuple[float, float, float]:
    """Medians of both, and seconds of the first compiled call."""
    native()
    first = seconds(compiled)
    rounds = [(seconds(native), seconds(compiled)) for _ in range(pairs)]
    return statistics.median(a for a, _ in rounds), statistics.median(b for _, b in rounds), first


def measured(size: cpu_works.Size, pairs: int) -> dict[str, tuple[float, float, float]]:
    """Images of a generator, images with gradients of its weights, and a step of distillation → `compared`."""
    G = cpu_works._generator(networks, size)
    ws = torch.randn(size.batch, G.num_ws, size.w_dim)

    def images() -> torch.Tensor:
        return G.synthesis(ws, noise_mode="const")

    def gradients(call: Callable[[], torch.Tensor]) -> None:
        G.requires_grad_(True)
        call().square().mean().backward()
        G.requires_grad_(False).zero_grad()

    program = torch.compile(images)
    with torch.no_grad():
        alone = compared(images, program, pairs)
    steps = [cpu_works.distilling(size, compiled=compiled) for compiled in (False, True)]
    return {"images": alone,
            "images and gradients": compared(lambda: gradients(images), lambda: gradients(program), pairs),
            "step of distillation": compared(*steps, pairs)}  # fmt: skip


@click.command()
@click.option("--pairs", default=5, show_default=True, help="Rounds that count")
@click.option("--only", help="Only this size", type=click.Choice(list(SIZES)))
def main(pairs: int, only: str | None) -> None:
    """Prints a line for each work."""
    tune_allocator()
    torch.set_num_threads(1)
    for name, size in SIZES.items() if only is None else [(only, SIZES[only])]:
        for work, (ours, compiled, first) in measured(size, pairs).items():
            click.echo(f"{name}, {work}: native {ours:.3f} s, compiled {compiled:.3f} s ({ours / compiled:.2f}x), "
                       f"compilation {first:.0f} s")


if __name__ == "__main__":
    main()
