"""What a slicer must know of a network: its channel sets, which tensor axes belong to them, and how to rebuild it."""
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

import torch

from . import widths


@dataclasses.dataclass(frozen=True)
class Axis:
    """One axis of a tensor that is cut with a channel set.

    A channel occupies `repeat` neighbouring entries of the axis; `extra` entries behind them are always kept.
    """

    set_name: str
    repeat: int = 1
    extra: int = 0

    def indices(self, keep: torch.Tensor, size: int) -> torch.Tensor:
        """The entries to keep of an axis of `size` entries, for kept channels [C'] of the set."""
        entries = (keep[:, None] * self.repeat + torch.arange(self.repeat)).flatten()
        return torch.cat([entries, torch.arange(size - self.extra, size)])


@dataclasses.dataclass(frozen=True)
class Rule:
    """How one tensor is sliced.

    Attributes:
        axes: axis number → the set it belongs to.
        fan_in_gain: the layer divides by the square root of its fan-in, so what is left of axis 1 must be multiplied by
            sqrt(C'/C). Demodulated convolutions cancel that factor themselves.
    """

    axes: dict[int, Axis]
    fan_in_gain: bool = False


@dataclasses.dataclass(frozen=True)
class Consumer:
    """A layer that reads a channel set, as the scores see it.

    Attributes:
        layer: dotted name of the layer in the network.
        output: the set of its output channels; None if they reach the image directly.
        axis: of its weight, which the set is read along.
    """

    layer: str
    output: str | None
    axis: int = 1


# (z [n, z_dim], c [n, c_dim], latents per pass) of a generator, or (None, None, ...) of a discriminator → a function of
# (layer, magnitudes [O, C] of its weights) that gives their sum over O as the layer applies them, averaged over the
# latents, [C] in float64.
Applied = Callable[
    [torch.Tensor | None, torch.Tensor | None, int], Callable[[str, torch.Tensor], torch.Tensor]
]


def _as_they_are(requested: Mapping[str, int]) -> dict[str, int]:
    return dict(requested)


def _estimate_nothing(network: torch.nn.Module) -> None:
    """Nothing is estimated."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """A network's channel sets in their natural order, the rules of its tensors, and its resized self.

    Attributes:
        sets: set name → number of channels.
        rules: tensor name → rule; tensors without one are copied.
        consumers: set name → layers that read it.
        build: widths in the order of `sets` → a network of the same kind with those widths, freshly initialised.
        applied: see `Applied`.
        fit: set name → requested width, to the nearest widths that such a network can have.
        reestimate: updates, in place, what a network estimates about itself, after channels were removed.
        stable_name: tensor name → a name that is the same at all widths, for networks whose names contain widths.
    """

    sets: dict[str, int]
    rules: dict[str, Rule]
    consumers: dict[str, list[Consumer]]
    build: Callable[[Sequence[int]], torch.nn.Module]
    applied: Applied
    fit: Callable[[Mapping[str, int]], dict[str, int]] = _as_they_are
    reestimate: Callable[[torch.nn.Module], None] = _estimate_nothing
    stable_name: Callable[[str], str] = str

    def scaled(self, width: Fraction) -> dict[str, int]:
        """The widths of a uniform cut."""
        return self.fit(widths.scaled(self.sets, width))
