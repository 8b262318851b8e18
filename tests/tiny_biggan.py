"""Tiny BigGANs whose every tensor says something, as if they were trained."""
from pathlib import Path
from typing import Any

import torch

from training import networks_biggan
from training.checkpoints import pickles

GENERATORS = {
    "plain32": {"img_resolution": 32, "G_ch": 2, "dim_z": 8, "G_attn": "16"},
    "shared32": {"img_resolution": 32, "G_ch": 2, "dim_z": 6, "G_shared": True, "G_attn": "0"},
    "hier64": {"img_resolution": 64, "G_ch": 4, "dim_z": 13, "hier": True, "G_shared": True, "G_attn": "8_64"},
    "uneven32": {"img_resolution": 32, "G_channels": [9, 17, 16, 11], "dim_z": 8, "G_attn": "8_16"},
}
DISCRIMINATORS = {
    "32": {"img_resolution": 32, "D_ch": 4, "D_attn": "16"},
    "thin32": {"img_resolution": 32, "D_ch": 2, "D_wide": False, "D_attn": "0", "img_channels": 1},
    "64": {"img_resolution": 64, "D_ch": 4, "D_attn": "4_16"},
    "uneven32": {"img_resolution": 32, "D_channels": [9, 17, 17, 11], "D_attn": "0"},
}


def _network(cls: Any, seed: int, options: dict[str, Any]) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = cls(**{"c_dim": 3, "SN_eps": 1e-6, **options})
        with torch.no_grad():
            for name, tensor in network.state_dict().items():
                if name.endswith("stored_var"):
                    tensor.uniform_(0.5, 2)
                elif name.endswith(("bias", "gamma", "stored_mean", ".u0")):
                    tensor.normal_()
    return network.eval().requires_grad_(False)


def tiny_generator(name: str = "plain32", seed: int = 0, **options: Any) -> Any:
    """One of GENERATORS with 3 classes, in eval mode."""
    return _network(networks_biggan.Generator, seed, {**GENERATORS[name], **options})


def tiny_discriminator(name: str = "32", seed: int = 1, **options: Any) -> Any:
    """One of DISCRIMINATORS with 3 classes, in eval mode."""
    return _network(networks_biggan.Discriminator, seed, {**DISCRIMINATORS[name], **options})


def tiny_networks() -> dict[str, Any]:
    """G, D and G_ema for 32 px; the latter is not G."""
    return {"G": tiny_generator(seed=3, G_ch=4), "G_ema": tiny_generator(seed=4, G_ch=4),
            "D": tiny_discriminator(seed=5), "augment_pipe": None}


def write_teacher(path: Path) -> str:
    """A network pickle of `tiny_networks()`; returns its path as text."""
    pickles.save_networks(pickles.snapshot_data(tiny_networks(), {"path": "somewhere"}), path)
    return str(path)


def inputs(network: Any, count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """What a network is called with, of its own precision: latents or images, and labels of every class."""
    like = next(network.parameters())
    size = [network.z_dim] if hasattr(network, "z_dim") else [network.img_channels, *[network.img_resolution] * 2]
    generator = torch.Generator().manual_seed(7)
    return torch.randn([count, *size], generator=generator, dtype=torch.float64).to(like), torch.arange(count) % 3
