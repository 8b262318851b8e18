"""Keeps the channels with the largest outgoing weights.

The L1 norm of all weights that read a channel, as the network applies them, averaged over sampled latents (the baseline
of Liu et al. 2021, arXiv:2104.02244, section 4; every consumer counts): modulated by the styles and demodulated, or
spectrally normalised and behind a conditional norm. A weight whose output cannot reach the image counts nothing.
"""
import torch

from ..plan import Plan
from ..reach import reachable, reading_weight
from .registry import ScoreOptions
from .sampling import latents

NUM_SAMPLES = 1024


@torch.no_grad()
def score(network: torch.nn.Module, plan: Plan, options: ScoreOptions) -> dict[str, torch.Tensor]:
    """Set name → mean L1 norm of each channel's outgoing weights, [C]."""
    z = c = None
    if hasattr(network, "z_dim"):
        generator = torch.Generator().manual_seed(options.seed)
        z, c = latents(network, options.num_samples or NUM_SAMPLES, generator)
    applied = plan.applied(z, c, options.batch)
    counts = reachable(network, plan, applied)
    scores = {name: torch.zeros([size], dtype=torch.float64) for name, size in plan.sets.items()}
    for name, total in scores.items():
        for consumer in plan.consumers[name]:
            magnitude = reading_weight(network, plan, name, consumer).double().abs().sum(dim=2)  # [O, C]
            if consumer.output is not None:
                magnitude = magnitude * counts[consumer.output].to(magnitude)[:, None]
            total += applied(consumer.layer, magnitude).cpu()
    return scores
