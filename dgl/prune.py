"""Slicing: a score per channel → kept channels → the narrow network's tensors, their run-time gains corrected.

Pure functions on dictionaries of tensors, and one that puts them together.
"""
import math
from collections.abc import Mapping

import torch

from dnnlib.errors import UserError
from torch_utils import misc

from .architectures import plan_of
from .plan import Plan, Rule

Scores = Mapping[str, torch.Tensor]
KeepLists = Mapping[str, torch.Tensor]


def choose(scores: Scores, widths: Mapping[str, int]) -> dict[str, torch.Tensor]:
    """Keeps the best channels of every set.

    Args:
        scores: set name → score per channel [C]; higher is better, ties go to the lower index.
        widths: set name → how many to keep, 1 ≤ C' ≤ C.

    Returns:
        Set name → kept channels, ascending int64 [C'].

    Raises:
        ValueError: a width is out of range; the message names the set.
        UserError: a score is not finite; likewise.
    """
    kept = {}
    for name, score in scores.items():
        width = widths[name]
        if not 1 <= width <= len(score):
            raise ValueError(f"{name}: cannot keep {width} of {len(score)} channels")
        bad = int((~torch.isfinite(score)).sum())
        if bad:
            raise UserError(f"{name}: the scores of {bad} of {len(score)} channels are NaN or infinite, so the best "
                            "cannot be chosen; check the network that they are of")
        order = torch.argsort(score, descending=True, stable=True)
        kept[name] = order[:width].sort().values
    return kept


def slice_tensor(tensor: torch.Tensor, rule: Rule, keep: KeepLists) -> torch.Tensor:
    """Slices one tensor [..., C, ...]; rescales by sqrt(C'/C) where the layer multiplies by 1/sqrt(fan_in)."""
    for axis, which in rule.axes.items():
        kept, size = keep[which.set_name], tensor.shape[axis]
        if len(kept) * which.repeat + which.extra != size:
            tensor = tensor.index_select(axis, which.indices(kept, size).to(tensor.device))
        if rule.fan_in_gain and axis == 1 and tensor.shape[axis] != size:
            tensor = tensor * math.sqrt(tensor.shape[axis] / size)
    return tensor


def slice_state(state: Mapping[str, torch.Tensor], plan: Plan, keep: KeepLists) -> dict[str, torch.Tensor]:
    """Cuts a network's tensors down to the kept channels and corrects the run-time gains.

    No module is built and `state` is not changed. Keeping every channel returns the tensors themselves. Removing
    channels whose outgoing weights are zero does not change what the network computes (but for the minibatch standard
    deviation of a discriminator, which averages over channels).

    Args:
        state: name → tensor [...], as `state_dict()` gives it.
        plan: of the network the state belongs to.
        keep: set name → kept channels, ascending int64.

    Returns:
        name → tensor of the narrow network.

    Raises:
        ValueError: a set has no keep list, or its list is not ascending within range; the message names it.
    """
    for name, size in plan.sets.items():
        kept = keep.get(name)
        if kept is None:
            raise ValueError(f"no keep list for channel set {name}")
        in_range = len(kept) > 0 and 0 <= int(kept[0]) and int(kept[-1]) < size
        if not in_range or bool((kept.diff() <= 0).any()):
            raise ValueError(f"{name}: expected ascending channels from 0 to {size - 1}, found {kept.tolist()}")
    return {name: slice_tensor(t, plan.rules[name], keep) if name in plan.rules else t for name, t in state.items()}


def reorder(network: torch.nn.Module, order: KeepLists) -> None:
    """Puts the channels of every set of a network in another order, in place; it computes the same, but for rounding.

    Args:
        order: set name → all channels in their new order, int64 [C].

    Raises:
        ValueError: a set has no order, or its order is none of all channels; the message names it.
    """
    plan = plan_of(network)
    for name, size in plan.sets.items():
        if name not in order or order[name].sort().values.tolist() != list(range(size)):
            raise ValueError(f"{name}: expected an order of {size} channels")
    with torch.no_grad():
        for name, tensor in misc.named_params_and_buffers(network):
            for axis, which in plan.rules[name].axes.items() if name in plan.rules else ():
                entries = which.indices(order[which.set_name], tensor.shape[axis]).to(tensor.device)
                tensor.copy_(tensor.index_select(axis, entries))


def slice_network(network: torch.nn.Module, keep: KeepLists) -> torch.nn.Module:
    """The narrow network that the kept channels of a wide one make up, in its mode, on its device, without gradients.

    Source: channel sets as in Liu et al. 2021 (arXiv:2104.02244), section 3; gain corrections are ours
    (docs/adr/0002-slicing-gains.md).

    Raises:
        UserError: networks of this class cannot be sliced, or the kept channels make no such network.
    """
    plan = plan_of(network)
    whole = slice_state(dict(misc.named_params_and_buffers(network)), plan, keep)
    state = {plan.stable_name(name): tensor for name, tensor in whole.items()}
    with torch.random.fork_rng(devices=[]):  # the initial weights are all overwritten
        narrow = plan.build([len(keep[name]) for name in plan.sets])
    narrow.train(network.training).requires_grad_(False).to(next(network.parameters()).device)
    with torch.no_grad():
        for full_name, tensor in misc.named_params_and_buffers(narrow):
            name = plan.stable_name(full_name)
            if tensor.shape != state[name].shape:
                raise UserError(f"{name}: sliced to {list(state[name].shape)}, but the narrow network has "
                                f"{list(tensor.shape)}")
            tensor.copy_(state[name])
    if any(len(keep[name]) < size for name, size in plan.sets.items()):
        plan.reestimate(narrow)
    return narrow
