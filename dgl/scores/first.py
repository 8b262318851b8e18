"""Keeps the first channels: the plainest baseline."""
import torch

from ..plan import Plan
from .registry import ScoreOptions


def score(network: torch.nn.Module, plan: Plan, options: ScoreOptions) -> dict[str, torch.Tensor]:
    """Scores [C] fall with the channel's index, from 1 to nearly 0: across layers the same part of each comes first."""
    return {name: 1 - torch.arange(size, dtype=torch.float64) / size for name, size in plan.sets.items()}
