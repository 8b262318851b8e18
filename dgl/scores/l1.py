"""Keeps the channels with the largest outgoing weights.

The L1 norm of all weights that read a channel, as the network applies them: modulated by the styles and demodulated,
averaged over sampled latents (the baseline of Liu et al. 2021, arXiv:2104.02244, section 4; every consumer counts).
A weight whose output cannot reach the image counts nothing.
"""
from typing import Any

import torch

from training.networks import FullyConnectedLayer, SynthesisLayer, ToRGBLayer

from ..plan import Plan
from .registry import ScoreOptions

NUM_SAMPLES = 1024


@torch.no_grad()
def score(network: Any, plan: Plan, options: ScoreOptions) -> dict[str, torch.Tensor]:
    """Set name → mean L1 norm of each channel's outgoing weights."""
    styles = _sample_ws(network, options) if hasattr(network, "mapping") and hasattr(network, "synthesis") else None
    scores: dict[str, torch.Tensor] = {}
    for name in reversed(plan.sets):  # consumers before producers, so that it is known which outputs count
        total = torch.zeros([plan.sets[name]], dtype=torch.float64)
        for consumer in plan.consumers[name]:
            layer = network.get_submodule(consumer.layer)
            counts = None if consumer.output is None else scores[consumer.output] > 0
            outgoing = _outgoing(layer, styles, counts, options.batch)
            axis = plan.rules[f"{consumer.layer}.weight"].axes[1]
            total += outgoing[: len(outgoing) - axis.extra].reshape(len(total), axis.repeat).sum(dim=1)
        scores[name] = total
    return scores


def _sample_ws(G: Any, options: ScoreOptions) -> torch.Tensor:
    """Mapped latents [num_samples, w_dim], labels drawn uniformly."""
    generator = torch.Generator().manual_seed(options.seed)
    count = options.num_samples or NUM_SAMPLES
    device = next(G.parameters()).device
    z = torch.randn([count, G.z_dim], generator=generator)
    c = torch.zeros([count, G.c_dim])
    if G.c_dim > 0:
        c.scatter_(1, torch.randint(G.c_dim, [count, 1], generator=generator), 1)
    return G.mapping(z.to(device), c.to(device), skip_w_avg_update=True)[:, 0]


def _outgoing(layer: Any, ws: torch.Tensor | None, counts: torch.Tensor | None, batch: int) -> torch.Tensor:
    """Sum of the absolute effective weights that read each input, [I] float64, over the outputs that count."""
    weight = layer.weight.double()  # [O, I, ...]
    magnitude = weight.abs().flatten(2).sum(dim=2) if weight.ndim > 2 else weight.abs()  # [O, I]
    if counts is not None:
        magnitude = magnitude * counts.to(magnitude)[:, None]
    if not isinstance(layer, SynthesisLayer | ToRGBLayer):
        return (magnitude.sum(dim=0) * layer.weight_gain).cpu()
    assert ws is not None
    affine: FullyConnectedLayer = layer.affine
    energy = weight.square().sum(dim=[2, 3])
    total = torch.zeros([weight.shape[1]], dtype=torch.float64, device=weight.device)
    for w in ws.split(batch):
        styles = affine(w).double()  # [n, I]
        if isinstance(layer, ToRGBLayer):
            total += styles.abs().sum(dim=0) * magnitude.sum(dim=0) * layer.weight_gain
        else:
            demodulation = (styles.square() @ energy.t() + 1e-8).rsqrt()  # [n, O]
            total += (styles.abs() * (demodulation @ magnitude)).sum(dim=0)
    return (total / len(ws)).cpu()
