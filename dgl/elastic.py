"""Elastic students: one set of weights that holds a network at every one of several widths.

The channels of a set are ordered by their score, best first, and the network at width w consists of the first w · C of
each set. Its tensors are slices of the whole network's (`prune.slice_state`), so cutting it out afterwards by the score
`first` is the same computation as training it. Sandwich training (Yu and Huang 2019, arXiv:1903.05134, section 3):
every step the whole network, the narrowest, and one of the others. Nested channels in order of importance are those of
once-for-all networks (Cai et al. 2020, arXiv:1908.09791) and Anycost GAN (Lin et al. 2021, arXiv:2103.03243).
"""
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from dnnlib.errors import UserError
from torch_utils import misc
from torch_utils.network_types import Generator

from .architectures import plan_of
from .prune import slice_state
from .student import Cut

NOTE = "elastic"  # key in a pickle's notes → widths as text


class Subnetwork:
    """The first channels of a generator, at one width, as a generator of its own that shares its weights.

    Args:
        G: the whole network, a StyleGAN2 generator; gradients flow into its weights.
        width: part of the channels.
    """

    def __init__(self, G: Generator, width: Fraction) -> None:
        self._G, self._plan = G, plan_of(G)
        widths = self._plan.scaled(width)
        self._keep = {name: torch.arange(size) for name, size in widths.items()}
        with torch.random.fork_rng(devices=[]):  # its weights are never used
            narrow: Any = self._plan.build(list(widths.values()))
        self._synthesis = narrow.synthesis.requires_grad_(False).to(next(G.parameters()).device)

    def synthesis(self, ws: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """Images [N, C, H, W] of ws [N, num_ws, w_dim]; `kwargs` are those of the whole network's synthesis."""
        prefix = "synthesis."
        state = {name: tensor for name, tensor in misc.named_params_and_buffers(self._G) if name.startswith(prefix)}
        narrow = slice_state(state, self._plan, self._keep)
        tensors = {name.removeprefix(prefix): tensor for name, tensor in narrow.items()}
        images = torch.func.functional_call(self._synthesis, tensors, (ws,), kwargs)
        assert isinstance(images, torch.Tensor)
        return images


class Sandwich:
    """The widths that a step trains.

    Args:
        G: the whole network.
        widths: of its subnetworks, all below 1.
        seed: of the choice between those that are neither the whole nor the narrowest.
    """

    def __init__(self, G: Generator, widths: Sequence[Fraction], seed: int) -> None:
        ordered = sorted(widths, reverse=True)
        self.subnetworks = {width: Subnetwork(G, width) for width in ordered}
        self._between, self._narrowest, self._seed = ordered[:-1], ordered[-1], seed
        self._G = G

    def at(self, cur_nimg: int) -> dict[Fraction, Any]:
        """Width → generator, for the step after that many images: the same on every rank and after resuming."""
        chosen = [self._narrowest]
        if self._between:
            drawn = int(np.random.SeedSequence([self._seed, cur_nimg]).generate_state(1)[0])
            chosen.insert(0, self._between[drawn % len(self._between)])
        return {Fraction(1): self._G, **{width: self.subnetworks[width] for width in chosen}}


def note(widths: Sequence[str]) -> dict[str, Any]:
    """What is saved in a pickle beside an elastic network: the widths that it was trained for, as text."""
    return {NOTE: list(widths)}


def trained_widths(notes: object) -> list[Fraction] | None:
    """The widths that an elastic network was trained for, from the notes of its pickle; None if it is not elastic.

    Raises:
        UserError: the note is damaged.
    """
    if not isinstance(notes, Mapping) or NOTE not in notes:
        return None
    values = notes[NOTE]
    try:
        if not isinstance(values, list) or not all(isinstance(text, str) and len(text) < 20 for text in values):
            raise ValueError
        widths = [Fraction(text) for text in values]
        if not all(0 < width < 1 for width in widths):
            raise ValueError
    except (ValueError, ZeroDivisionError):
        raise UserError(f"the note {NOTE!r} in the pickle is damaged: expected widths below 1 such as '1/2', found "
                        f"{values!r:.80}", field="teacher") from None
    return widths


def was_trained(widths: Sequence[Fraction], cut: Cut) -> bool:
    """Whether a cut of an elastic network gives one of the networks that were trained."""
    is_nested = cut.score == "first" and cut.refine == "none" and not (cut.refit or cut.across_layers)
    return cut.width == 1 or (is_nested and cut.width in widths)
