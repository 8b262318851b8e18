"""Keeps the first channels: the plainest baseline."""
import torch

from ..plan import Plan
from .registry import ScoreOptions


def score(network: torch.nn.Module, plan: Plan, options: ScoreOptions) -> dict[str, torch.Tensor]:
    """Scores fall with the channel's index."""
    return {name: -torch.arange(size, dtype=torch.float64) for name, size in plan.sets.items()}
