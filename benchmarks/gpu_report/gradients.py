"""Section: loss gradients of every phase of StyleGAN2 on this device, with and without the ops, against the CPU's.

Random numbers are drawn on the CPU, so that all devices see the same ones.
"""
import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch

from torch_utils.ops import settings
from training import networks
from training.loss import Part, Step, StyleGAN2Loss

from .section import Row, Setup

ALLOWED = 1e-3  # of the length of the gradient
PHASES = (("G", Part.MAIN), ("G", Part.REG), ("D", Part.MAIN), ("D", Part.REG))


@contextlib.contextmanager
def _random_numbers_of_the_cpu() -> Iterator[None]:
    """Makes torch.rand, randn and randn_like draw on the CPU."""

    def drawn(function: Any) -> Any:
        def draw(*args: Any, device: Any = None, **kwargs: Any) -> torch.Tensor:
            return function(*args, **kwargs).to(device or "cpu")

        return draw

    def randn_like(x: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return randn(x.shape, dtype=x.dtype).to(x.device)

    randn = torch.randn
    with (
        mock.patch.object(torch, "randn", drawn(torch.randn)),
        mock.patch.object(torch, "rand", drawn(torch.rand)),
        mock.patch.object(torch, "randn_like", randn_like),
    ):
        yield


def _networks(resolution: int) -> tuple[Any, Any]:
    torch.manual_seed(0)
    options = {"channel_base": 1024, "channel_max": 64}
    G: Any = networks.Generator(32, 0, 32, resolution, 3, mapping_kwargs={"num_layers": 2}, synthesis_kwargs=options)
    D: Any = networks.Discriminator(0, resolution, 3, **options)
    for name, tensor in [*G.named_parameters(), *D.named_parameters()]:
        if name.endswith(("noise_strength", "bias")) and "affine" not in name:
            tensor.data.normal_(std=0.3)
    return G, D


def _gradients(device: torch.device, resolution: int) -> dict[str, torch.Tensor]:
    """Phase → its gradient as one vector, float64 on the CPU."""
    G, D = (network.train().to(device) for network in _networks(resolution))
    loss = StyleGAN2Loss(device, G, D, r1_gamma=1)
    generator = torch.Generator().manual_seed(1)
    z = torch.randn([8, 32], generator=generator).to(device)
    real = torch.rand([8, 3, resolution, resolution], generator=generator).to(device) * 2 - 1
    c = torch.zeros([8, 0], device=device)
    vectors = {}
    for network, part in PHASES:
        module = G if network == "G" else D
        G.requires_grad_(module is G).zero_grad(set_to_none=True)
        D.requires_grad_(module is D).zero_grad(set_to_none=True)
        torch.manual_seed(2)
        loss.accumulate_gradients(network, part, Step(real, c, z, c, gain=1, cur_nimg=0))
        grads = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in module.parameters()]
        vectors[network + part.value] = torch.cat(grads).cpu().double()
    return vectors


def gradients(setup: Setup) -> list[Row]:
    """One row per phase and implementation."""
    resolution = 16 if setup.is_tiny else 64
    rows = []
    with _random_numbers_of_the_cpu():
        expected = _gradients(torch.device("cpu"), resolution)
        for mode in dict.fromkeys([settings.mode, "ref"]):
            with mock.patch.object(settings, "mode", mode):
                result = _gradients(setup.device, resolution)
            for phase, reference in expected.items():
                error = ((result[phase] - reference).norm() / reference.norm()).item()
                rows.append({"phase": phase, "SG_OPS": mode, "length of the gradient": reference.norm().item(),
                             "difference": error, "allowed": ALLOWED, "ok": error <= ALLOWED})  # fmt: skip
    return rows
