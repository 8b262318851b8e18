"""Tiny networks, teachers and data sets with which training and compression take seconds."""
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.helpers import random_images, write_images, zip_folder
from training import networks
from training.checkpoints import pickles
from training.loss import GenBatch, Part, Step
from training.run_config import LOSS_TERMS

WIDTHS = {"channel_base": 128, "channel_max": 16}  # 16 channels up to 8 px, 8 at 16 px
DATA_KWARGS = {"class_name": "training.dataset.ImageFolderDataset"}


def tiny_generator(
    architecture: str = "skip",
    c_dim: int = 0,
    resolution: int = 16,
    channels: int = 3,
    seed: int = 0,
    **synthesis_kwargs: Any,
) -> Any:
    """A generator whose biases, noise strengths and w_avg are not zero, as if it were trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        G: Any = networks.Generator(
            z_dim=16,
            c_dim=c_dim,
            w_dim=16,
            img_resolution=resolution,
            img_channels=channels,
            mapping_kwargs={"num_layers": 2},
            synthesis_kwargs={**WIDTHS, "architecture": architecture, **synthesis_kwargs},
        )
        for name, tensor in [*G.named_parameters(), *G.named_buffers()]:
            if name.endswith(("noise_strength", "w_avg")) or (name.endswith("bias") and "affine" not in name):
                tensor.data.normal_(std=0.3)
    return G.eval().requires_grad_(False)


def tiny_discriminator(
    architecture: str = "resnet",
    c_dim: int = 0,
    resolution: int = 16,
    channels: int = 3,
    seed: int = 1,
    **kwargs: Any,
) -> Any:
    """A discriminator whose biases are not zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        D: Any = networks.Discriminator(
            c_dim=c_dim,
            img_resolution=resolution,
            img_channels=channels,
            architecture=architecture,
            **{**WIDTHS, "epilogue_kwargs": {"mbstd_group_size": 2}, **kwargs},
        )
        for name, tensor in D.named_parameters():
            if name.endswith("bias"):
                tensor.data.normal_(std=0.3)
    return D.eval().requires_grad_(False)


def tiny_networks(c_dim: int = 0, resolution: int = 16, channels: int = 3, seed: int = 0) -> dict[str, Any]:
    """G, D and G_ema; the latter is not G."""
    size = {"c_dim": c_dim, "resolution": resolution, "channels": channels}
    return {
        "G": tiny_generator(seed=10 * seed, **size),
        "D": tiny_discriminator(seed=10 * seed + 1, **size),
        "G_ema": tiny_generator(seed=10 * seed + 2, **size),
        "augment_pipe": None,
    }


def write_teacher(path: Path, **kwargs: Any) -> str:
    """A network pickle of `tiny_networks(**kwargs)`; returns its path as text."""
    pickles.save_networks(pickles.snapshot_data(tiny_networks(**kwargs), {"path": "somewhere"}), path)
    return str(path)


def write_data(folder: Path, num: int = 12, side: int = 16, channels: int = 3, num_classes: int = 0) -> str:
    """A zip of random images, with class labels if `num_classes`; returns its path as text."""
    labels = [i % num_classes for i in range(num)] if num_classes else None
    return str(zip_folder(write_images(folder, random_images(num, side=side, num_channels=channels), labels)))


def latents(num: int = 4, c_dim: int = 0, seed: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """z [num, 16] and labels [num, c_dim], one class after the other."""
    z = torch.from_numpy(np.random.RandomState(seed).randn(num, 16)).float()
    return z, torch.eye(c_dim)[torch.arange(num) % c_dim] if c_dim else torch.zeros([num, 0])


def images(num: int = 4, resolution: int = 16, channels: int = 3, seed: int = 6) -> torch.Tensor:
    """Random images in [-1, 1], float32."""
    shape = (num, channels, resolution, resolution)
    return torch.from_numpy(np.random.RandomState(seed).uniform(-1, 1, shape)).float()


class _DoubleTorch:
    """torch, but what the networks call float32 is float64."""

    float32 = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """Within this context networks whose tensors are float64 compute in float64 throughout."""
    networks.torch = _DoubleTorch()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        networks.torch = torch  # type: ignore[attr-defined]


def split_phase(name: str) -> tuple[str, Part]:
    """The network and the part of a phase: "Gmain" is the main part of G."""
    (part,) = [part for part in Part if name.endswith(part.value)]
    return name.removesuffix(part.value), part


def gradients(loss: Any, phase: str, module: torch.nn.Module, seed: int = 0, **kwargs: Any) -> dict[str, torch.Tensor]:
    """Gradients that a phase ("Gmain", ...) gives a module, with all randomness seeded; `random_state` is what it left.

    `kwargs` are fields of the step.
    """
    module.requires_grad_(True)
    module.zero_grad(set_to_none=True)
    G = getattr(loss, "base", loss).G
    z, c = latents(c_dim=getattr(G, "c_dim", 0))
    torch.manual_seed(seed)
    batch = {"real_img": images(), "real_c": c, "gen_z": z, "gen_c": c, "gain": 1, "cur_nimg": 0, **kwargs}
    loss.accumulate_gradients(*split_phase(phase), Step(**batch))
    module.requires_grad_(False)
    result = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad(set_to_none=True)
    return {**result, "random_state": torch.random.get_rng_state()}


class ConstantTerm:
    """A term of the generator's loss that is the same for every sample."""

    name = "constant"

    def __init__(self, device: torch.device, value: float) -> None:
        self.value = torch.tensor(value, device=device)

    def __call__(self, batch: GenBatch) -> torch.Tensor:
        return self.value.expand(len(batch.z))


if "tests.tiny.ConstantTerm" not in LOSS_TERMS.names():
    LOSS_TERMS.register("tests.tiny.ConstantTerm", ConstantTerm)
