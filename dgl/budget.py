"""Widths from a budget, and channels kept across layers instead of the same part of each."""
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

import torch

from dnnlib.errors import UserError

from .plan import Plan
from .widths import scaled

FLOOR = Fraction(1, 4)  # of the uniform width: the least that a layer keeps of it when channels compete across layers
TIME_TRIALS = 12  # measured networks per search


def candidate_widths(sets: Mapping[str, int]) -> list[Fraction]:
    """Every width at which some layer's number of channels changes, ascending, 1 last."""
    fractions = sorted({Fraction(k, size) for size in set(sets.values()) for k in range(1, size + 1)})
    distinct = {tuple(scaled(sets, width).values()): width for width in reversed(fractions)}  # the least of equal ones
    return sorted(distinct.values())


def largest_width(
    plan: Plan,
    cost: Callable[[torch.nn.Module], float],
    target: float,
    flag: str,
    candidates: Sequence[Fraction] | None = None,
) -> Fraction:
    """The largest uniform width whose network costs at most `target`, by bisection over all widths that differ.

    Args:
        cost: of a freshly built network; must not fall with the width.
        what: the flag, for the message.

    Raises:
        UserError: even the narrowest network costs more.
    """
    widths = candidate_widths(plan.sets) if candidates is None else list(candidates)
    low, high = 0, len(widths)  # widths[:low] fit, widths[high:] do not
    narrowest = 0.0
    while low < high:
        middle = (low + high) // 2
        middle_cost = cost(plan.build(list(plan.scaled(widths[middle]).values())))
        if middle == 0:
            narrowest = middle_cost
        low, high = (middle + 1, high) if middle_cost <= target else (low, middle)
    if low == 0:
        raise UserError(f"{flag}: even the narrowest network costs {narrowest:g}, more than {target:g} (in the "
                        "unit of this option); pass at least that")
    return widths[low - 1]


def thinned(widths: Sequence[Fraction], count: int = 2**TIME_TRIALS) -> list[Fraction]:
    """At most `count` of the widths, evenly chosen, the last included."""
    step = max(1, -(-len(widths) // count))
    return list(widths[::-1][::step][::-1])


def global_widths(
    plan: Plan,
    scores: Mapping[str, torch.Tensor],
    cost: Callable[[torch.nn.Module], float],
    target: float,
    uniform: Fraction,
) -> dict[str, int]:
    """Keeps the best channels of the whole network, by the scores [C] of every set, at the cost of a uniform cut.

    Every set's scores are divided by their mean, so that layers can be compared; all channels above one common
    threshold are kept, but at least `FLOOR` of a set's uniform width. The threshold is the lowest at which the network
    costs at most `target`.

    Returns:
        Set name → number of channels.
    """
    normalised = {name: score / score.mean().clamp_min(1e-30) for name, score in scores.items()}
    floors = plan.scaled(uniform * FLOOR)
    thresholds = torch.cat(list(normalised.values())).unique().tolist()

    def widths(threshold: float) -> dict[str, int]:
        best = {name: int((score >= threshold).sum()) for name, score in normalised.items()}
        return plan.fit({name: max(floors[name], number) for name, number in best.items()})

    low, high = 0, len(thresholds)  # the first threshold that fits is in [low, high]
    while low < high:
        middle = (low + high) // 2
        fits = cost(plan.build(list(widths(thresholds[middle]).values()))) <= target
        low, high = (low, middle) if fits else (middle + 1, high)
    return widths(thresholds[low]) if low < len(thresholds) else floors
