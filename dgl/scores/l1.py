"""Keeps the channels with the largest outgoing weights.

The L1 norm of all weights that read a channel, as the network applies them: modulated by the styles and demodulated,
averaged over sampled latents (the baseline of Liu et al. 2021, arXiv:2104.02244, section 4; every consumer counts).
A weight whose output cannot reach the image counts nothing.
"""
from typing import Any

import torch

from training.networks import SynthesisLayer, ToRGBLayer

from ..plan import Plan
from ..reach import reachable, reading_weight
from .registry import ScoreOptions
from .sampling import latents

NUM_SAMPLES = 1024


@torch.no_grad()
def score(network: Any, plan: Plan, options: ScoreOptions) -> dict[str, torch.Tensor]:
    """Set name → mean L1 norm of each channel's outgoing weights."""
    ws = _sample_ws(network, options) if hasattr(network, "mapping") and hasattr(network, "synthesis") else None
    counts = reachable(network, plan)
    scores = {name: torch.zeros([size], dtype=torch.float64) for name, size in plan.sets.items()}
    for name, total in scores.items():
        for consumer in plan.consumers[name]:
            magnitude = reading_weight(network, plan, name, consumer).double().abs().sum(dim=2)  # [O, C]
            if consumer.output is not None:
                magnitude = magnitude * counts[consumer.output].to(magnitude)[:, None]
            total += _effective(network.get_submodule(consumer.layer), magnitude, ws, options.batch).cpu()
    return scores


def _sample_ws(G: Any, options: ScoreOptions) -> torch.Tensor:
    """Mapped latents [num_samples, w_dim]."""
    generator = torch.Generator().manual_seed(options.seed)
    z, c = latents(G, options.num_samples or NUM_SAMPLES, generator)
    return G.mapping(z, c, skip_w_avg_update=True)[:, 0]


def _effective(layer: Any, magnitude: torch.Tensor, ws: torch.Tensor | None, batch: int) -> torch.Tensor:
    """Sum over outputs of |weight| [O, C] as the layer applies it, averaged over latents, [C] float64."""
    if not isinstance(layer, SynthesisLayer | ToRGBLayer):
        return magnitude.sum(dim=0) * layer.weight_gain
    assert ws is not None
    energy = layer.weight.square().sum(dim=[2, 3]).double()  # [O, I]
    total = torch.zeros_like(magnitude[0])
    for w in ws.split(batch):
        styles = layer.affine(w).double()  # [n, I]
        if isinstance(layer, ToRGBLayer):
            total += styles.abs().sum(dim=0) * magnitude.sum(dim=0) * layer.weight_gain
        else:
            demodulation = (styles.square() @ energy.t() + 1e-8).rsqrt()  # [n, O]
            total += (styles.abs() * (demodulation @ magnitude)).sum(dim=0)
    return total / len(ws)
