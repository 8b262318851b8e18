"""Networks for images of another resolution, made of trained ones: what fits is copied, the rest is new."""
from typing import Any

import torch

from dnnlib.errors import UserError

from .. import architectures
from .parts import NETWORKS
from .transfer import transplant

SEED = 0  # of the weights that are new


def resized(networks: dict[str, Any], resolution: int) -> tuple[dict[str, Any], list[str]]:
    """G, D and G_ema for another resolution, those of them that are there, and lines that say what was copied.

    New weights are the same in G and G_ema, and in every call.

    Args:
        networks: role → network; others than these three are returned as they are.
        resolution: power of two.

    Raises:
        UserError: networks of this family cannot be resized, or not to this resolution.
    """
    made, lines = dict(networks), []
    for role in NETWORKS:
        if networks.get(role) is None:
            continue
        source = networks[role]
        family = architectures.of_network(source)
        if family.alignment is None:
            raise UserError(f"the blocks of a {type(source).__name__} differ from resolution to resolution, so it "
                            f"cannot be resized; its images are {source.img_resolution}x{source.img_resolution}",
                            field="resolution")
        arguments = family.module("alignment").at_resolution(source, resolution)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            made[role] = type(source)(**arguments)
        made[role].train(source.training).requires_grad_(False)
        lines += transplant(source, made[role]).lines(role)
    return made, lines
