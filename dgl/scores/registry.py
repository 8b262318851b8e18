"""The interface of a score, and finding one by name."""
import dataclasses
import importlib
from collections.abc import Callable

import torch

from dnnlib.errors import UserError
from torch_utils import misc
from training.architectures import class_path

from ..plan import Plan
from . import NAMES, RECONSTRUCTED


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
        UserError: no such score, the network is of a kind it does not apply to, or a score is NaN or infinite; the
            message names the tensors that are to blame.
    """
    if name not in NAMES:
        raise UserError(f"unknown score {name!r}; known: {', '.join(NAMES)}", field="score")
    score: Score = importlib.import_module(f"dgl.scores.{name}").score
    raw_scores = score(network, plan, options)
    scores = {key: raw_scores[key].detach().to("cpu", torch.float64) for key in plan.sets}
    bad = [key for key, values in scores.items() if not values.isfinite().all()]
    if bad:
        tensors = [key for key, tensor in misc.named_params_and_buffers(network) if not tensor.isfinite().all()]
        blame = f"so are values in {_some(tensors)} of the network; pass another network" if tensors else (
            f"the weights of the network are finite; try another score than {name}")
        raise UserError(f"{name}: scores of {_some(bad)} are NaN or infinite; {blame}", field="score")
    return scores


def default_for(network: torch.nn.Module, is_refitted: bool) -> str:
    """The score of a slice when none is named: `reconstruct` is best for a refit (docs/results/refit.md), and is known
    for StyleGAN2 and StyleGAN3 generators; `l1` is that of the published method.
    """
    fits = is_refitted and class_path(network) in RECONSTRUCTED
    return "reconstruct" if fits else "l1"


def _some(names: list[str]) -> str:
    return f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]
