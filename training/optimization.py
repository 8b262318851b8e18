"""Optimizers and phases, and one step of a phase."""
import itertools
from collections.abc import Mapping
from typing import Any

import torch

from torch_utils import distributed
from torch_utils.gradient_guard import GradientGuard

from .loss import Part, Phase
from .run_config import OPTIMIZERS


def make_phases(
    network: str,
    module: torch.nn.Module,
    opt_kwargs: Mapping[str, Any],
    reg_interval: int | None,
    steps: int = 1,
) -> list[Phase]:
    """The phases of one network, which share one optimizer.

    With a regularisation interval k, the learning rate and the decay of the moments are corrected for the k+1 steps
    that are taken where k would be (arXiv:1912.04958, appendix B). None makes a single phase.

    Args:
        network: whose phases they are, 'G', 'D' or another one's.
        opt_kwargs: class_name and arguments of the optimizer; betas may be any numbers.
        reg_interval: iterations between regularisation steps.
        steps: of a phase in one iteration.
    """
    share = 1.0 if reg_interval is None else reg_interval / (reg_interval + 1)
    arguments = _for_share(opt_kwargs, share)
    opt = OPTIMIZERS.call(arguments.pop("class_name"), arguments, params=list(module.parameters()))
    intervals = {Part.BOTH: 1} if reg_interval is None else {Part.MAIN: 1, Part.REG: reg_interval}
    return [Phase(network, part, module, opt, interval, steps) for part, interval in intervals.items()]


def _for_share(opt_kwargs: Mapping[str, Any], share: float) -> dict[str, Any]:
    """The options of an optimizer each of whose steps is to count as this fraction of one."""
    corrected = {"lr": opt_kwargs["lr"] * share}
    if "betas" in opt_kwargs:
        corrected["betas"] = tuple(float(beta) ** share for beta in opt_kwargs["betas"])
    return {**opt_kwargs, **corrected}


def optimizers(phases: list[Phase]) -> list[torch.optim.Optimizer]:
    """Every optimizer once, in the order of the phases."""
    return list({id(phase.opt): phase.opt for phase in phases}.values())


def step(phase: Phase, guard: GradientGuard) -> None:
    """Averages the gradients of a phase over the ranks (one flat all-reduce), cleans them and takes the step.

    Parameters that a loss does not depend on have gradient 0; a phase without any loss takes no step.
    """
    params = list(phase.module.parameters())
    if not any(param.grad is not None for param in params):
        return
    flat = torch.cat([_gradient(param).flatten() for param in params])
    distributed.mean_([flat])
    guard.clean_(flat, phase.name)
    _scatter(flat, params)
    phase.opt.step()


def _gradient(param: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(param) if param.grad is None else param.grad


def _scatter(flat: torch.Tensor, params: list[Any]) -> None:
    """Makes the elements of `flat`, in order, the gradients of the parameters."""
    ends = tuple(itertools.accumulate(param.numel() for param in params))
    for param, part in zip(params, flat.tensor_split(ends)):
        param.grad = part.view(param.shape)
