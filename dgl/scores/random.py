"""Keeps random channels."""
import torch

from ..plan import Plan
from .registry import ScoreOptions


def score(network: torch.nn.Module, plan: Plan, options: ScoreOptions) -> dict[str, torch.Tensor]:
    """Uniform scores [C]; the seed reproduces them."""
    generator = torch.Generator().manual_seed(options.seed)
    return {name: torch.rand([size], generator=generator, dtype=torch.float64) for name, size in plan.sets.items()}
