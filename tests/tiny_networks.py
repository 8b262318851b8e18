"""Networks small enough to be trained and optimised in tests, and pickles of them."""
from pathlib import Path

import torch

from training.networks import Discriminator, Generator
from training.pickles import save_networks, snapshot_data

NARROW = {"channel_base": 256, "channel_max": 16}


def tiny_networks(
    img_channels: int = 3, img_resolution: int = 16, c_dim: int = 0, z_dim: int = 8, seed: int = 0
) -> tuple[Generator, Discriminator]:
    """G and D in eval mode, without gradients, whose images hardly leave [-1, 1]."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        size = {"c_dim": c_dim, "img_resolution": img_resolution, "img_channels": img_channels}
        G = Generator(z_dim=z_dim, w_dim=8, mapping_kwargs={"num_layers": 2}, synthesis_kwargs=NARROW, **size)
        D = Discriminator(**NARROW, **size)
    G, D = G.eval().requires_grad_(False), D.eval().requires_grad_(False)
    for name, parameter in G.named_parameters():
        if name.endswith("torgb.weight"):
            parameter.mul_(0.3)
    return G, D


def write_pickle(path: Path, G: Generator, D: Discriminator) -> str:
    """Stores them as G, G_ema and D of a snapshot."""
    networks = {"G": G, "D": D, "G_ema": G, "augment_pipe": None}
    save_networks(snapshot_data(networks, None), path)
    return str(path)
