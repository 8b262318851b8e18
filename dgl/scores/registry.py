"""The interface of a score, and finding one by name."""
import dataclasses
import importlib
from collections.abc import Callable

import torch

from dnnlib.util import UserError

from ..plan import Plan
from . import NAMES


@dataclasses.dataclass(frozen=True)
class ScoreOptions:
    """What a score may need besides the network."""

    seed: int = 0  # of everything random
    num_samples: int | None = None  # latents to average over; None is the score's own number
    batch: int = 32  # latents per pass; the scores do not depend on it
    roi: Callable[[torch.Tensor], torch.Tensor] | None = None  # images [1, C, H, W] → mask [H, W] of what matters


Score = Callable[[torch.nn.Module, Plan, ScoreOptions], dict[str, torch.Tensor]]


def compute(name: str, network: torch.nn.Module, plan: Plan, options: ScoreOptions) -> dict[str, torch.Tensor]:
    """Scores every channel of a network: set name → float64 [C] on the CPU, higher is better.

    Raises:
        UserError: no such score, or the network is of a kind it does not apply to.
    """
    if name not in NAMES:
        raise UserError(f"--score: unknown score {name!r}; known: {', '.join(NAMES)}")
    score: Score = importlib.import_module(f"dgl.scores.{name}").score
    found = score(network, plan, options)
    return {key: found[key].detach().to("cpu", torch.float64) for key in plan.sets}
