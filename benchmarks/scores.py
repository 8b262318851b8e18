"""Times every channel score on a StyleGAN2 generator of a given size with random weights.

    python -m benchmarks.scores --resolution=256 --threads=2

A score's work is its number of latents, each with a pass (and for content and diversity a gradient); the time per
latent is measured on --samples of them and multiplied. One JSON line per score, with the CPU time of all threads beside
the time that passed: on a busy machine only the former tells something.
"""
import json
import os
import platform
import time

import click
import numpy as np
import torch

from dgl.architectures import plan_of
from dgl.scores import NAMES, content, diversity, l1, reconstruct, slimming
from dgl.scores.registry import ScoreOptions, compute
from dnnlib.cli import Command
from torch_utils.devices import tune_allocator
from training.networks import Generator

NUM_SAMPLES = {"l1": l1.NUM_SAMPLES, "content": content.NUM_SAMPLES, "diversity": diversity.NUM_SAMPLES,
               "reconstruct": reconstruct.NUM_SAMPLES, "slimming": slimming.NUM_SAMPLES}
STEPS = {"content": 1, "diversity": 1, "slimming": slimming.BATCH}  # latents of a step, of which all take equally long


def timed(name: str, G: torch.nn.Module, samples: int) -> np.ndarray:
    """Seconds that one call takes: passed, and of all threads."""
    start = time.perf_counter(), time.process_time()
    compute(name, G, plan_of(G), ScoreOptions(num_samples=samples))
    return np.array([time.perf_counter() - start[0], time.process_time() - start[1]])


@click.command(cls=Command)
@click.option("--resolution", type=int, default=256, show_default=True, help="Side of the images.")
@click.option("--channel-base", type=int, default=32768, show_default=True, help="Channels times resolution.")
@click.option("--samples", type=click.IntRange(min=1), default=2, show_default=True,
              help="Latents, or steps of slimming, to measure the gradient scores on.")
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True, help="CPU threads.")
@click.option("--only", multiple=True, type=click.Choice(NAMES), help="Scores to time; repeatable.", show_default="all")
def main(resolution: int, channel_base: int, samples: int, threads: int, only: tuple[str, ...]) -> None:
    """Time every channel score."""
    tune_allocator()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    G = Generator(z_dim=512, c_dim=0, w_dim=512, img_resolution=resolution, img_channels=3,
                  synthesis_kwargs={"channel_base": channel_base, "channel_max": 512}).eval().requires_grad_(False)
    for name in only or NAMES:
        full = NUM_SAMPLES.get(name, 1)
        if name in STEPS:
            step = STEPS[name]
            first = timed(name, G, step)
            each = (timed(name, G, step * (1 + samples)) - first) / samples
            seconds, measured = first + each * (full // step - 1), step * (2 + samples)
        else:
            seconds, measured = timed(name, G, full), full
        click.echo(json.dumps({
            "score": name, "latents": NUM_SAMPLES.get(name, 0), "latents_measured": measured,
            "seconds": round(float(seconds[0]), 2), "cpu_seconds": round(float(seconds[1]), 2),
            "resolution": resolution, "channel_base": channel_base, "threads": threads, "torch": torch.__version__,
            "machine": platform.machine(), "load_average": round(os.getloadavg()[0], 1),
        }))  # fmt: skip


if __name__ == "__main__":
    main()
