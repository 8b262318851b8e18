"""The largest error of a generator's image by every way to compute it on a CPU, as a share of the image's standard
deviation, against float64.

    python benchmarks/cpu_error.py --resolution=1024

The reference takes about a minute and 4 GB for the 1024 px generator of configuration F.
"""
import sys
from pathlib import Path
from unittest import mock

import click
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.cpu_works import Size, _generator
from tests import tiny
from torch_utils.devices import tune_allocator
from torch_utils.ops import settings
from training import networks

PATHS = {
    "torch path": {"mode": "ref"},
    "native, direct convolution": {"mode": "auto", "conv": "direct"},
    "native": {"mode": "auto", "conv": "auto"},
}


@click.command()
@click.option("--resolution", default=1024, show_default=True)
@click.option("--channel-base", default=32768, show_default=True)
@click.option("--seeds", default=1, show_default=True, help="Latents")
@torch.no_grad()
def main(resolution: int, channel_base: int, seeds: int) -> None:
    """Prints a line per path: the largest difference, and the root of the mean square."""
    tune_allocator()
    G = _generator(networks, Size(resolution, channel_base, 1)).eval()
    for name, tensor in G.named_parameters():
        if name.endswith("noise_strength"):
            tensor.fill_(0.1)
    for seed in range(seeds):
        ws = G.mapping(torch.randn(1, 512, generator=torch.Generator().manual_seed(seed)), None)
        images = {}
        for name, values in PATHS.items():
            with mock.patch.multiple(settings, **values):
                images[name] = G.synthesis(ws, noise_mode="const")
        G.double()
        with tiny.double_precision():
            expected = G.synthesis(ws.double(), noise_mode="const")
        G.float()
        for name, image in images.items():
            error = (image.double() - expected) / expected.std()
            click.echo(f"seed {seed}, {name}: {error.abs().max():.1e} at most, {error.square().mean().sqrt():.1e} rms")


if __name__ == "__main__":
    main()
