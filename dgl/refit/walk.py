"""What refits of generators of every family share: the pass through the layers, and the images that it is judged by."""
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import torch

from torch_utils.network_types import Generator

from ..scores.sampling import latents
from .report import LayerFit, RefitOptions, Report, psnr

BATCH_BYTES = 64 << 20  # features of one pass
MIN_LATENTS = 4
_NUM_CHECKED = 64  # latents that images are compared on, fewer from 256 px on

Pair = list[torch.Tensor]  # of teacher and student


class Batch(Protocol):
    """Some latents on their way through both networks."""

    def __len__(self) -> int:
        """Number of latents."""

    def split(self, size: int) -> list[Any]:
        """Parts of at most `size` latents, of the same class."""


B = TypeVar("B", bound=Batch)


class Walk(ABC):
    """One pass through all layers of a generator and its slice.

    Args:
        teacher: the generator that was sliced.
        student: its slice, changed in place.
        keep: channel set → kept channels, ascending int64 [C'].
        options: see `RefitOptions`.
        advance: called after each layer that is fitted.
    """

    def __init__(
        self,
        teacher: Any,
        student: Any,
        keep: Mapping[str, torch.Tensor],
        options: RefitOptions,
        advance: Callable[[], None] = lambda: None,
    ) -> None:
        self.nets = [teacher, student]
        self.device = next(teacher.parameters()).device
        self.keep = {name: kept.to(self.device) for name, kept in keep.items()}
        self.options, self.advance = options, advance
        self.generator = torch.Generator().manual_seed(options.seed)
        self.fits: list[LayerFit] = []

    @abstractmethod
    def run(self) -> list[LayerFit]:
        """Fits all layers; returns their rows of the report."""

    def _num_latents(self, side: int) -> int:
        return self.options.num_latents * max(32 // side, 1)

    def _room(self, side: int, bytes_each: int) -> int:
        """How many latents a layer of `side` pixels is fitted on, if each takes `bytes_each`."""
        return max(MIN_LATENTS, min(self._num_latents(side), self.options.memory // bytes_each))

    def _passes(self, batches: Sequence[B], side: int, bytes_each: int, bytes_in_pass: int) -> list[B]:
        """The first latents of batches for which there is room, in parts of the size of a pass."""
        num = self._room(side, bytes_each)
        kept: list[B] = []
        for batch in batches:
            if num > 0:
                kept += batch.split(num)[0].split(max(1, BATCH_BYTES // bytes_in_pass))
                num -= len(batch)
        return kept


@torch.no_grad()
def refit_generator(
    walk: type[Walk],
    teacher: Generator,
    student: Generator,
    keep: Mapping[str, torch.Tensor],
    options: RefitOptions,
    advance: Callable[[], None] = lambda: None,
) -> Report:
    """Refits a generator in place by a family's walk; the other arguments are those of `Walk`, keep int64 [C']."""
    check = ImageCheck(teacher, options)
    before = check(student)
    layers = walk(teacher, student, keep, options, advance).run()
    return Report(layers, before, check(student))


class ImageCheck:
    """PSNR of a student's images to the teacher's, on latents of its own."""

    def __init__(self, teacher: Generator, options: RefitOptions) -> None:
        num = max(MIN_LATENTS, min(_NUM_CHECKED, _NUM_CHECKED * 256**2 // teacher.img_resolution**2))
        generator = torch.Generator().manual_seed(options.seed + 1)
        self.z, self.c = latents(teacher, num, generator)
        self.images = self._run(teacher)

    def _run(self, G: Generator) -> torch.Tensor:
        parts = zip(self.z.split(MIN_LATENTS), self.c.split(MIN_LATENTS))
        return torch.cat([G(z, c, noise_mode="const", force_fp32=True) for z, c in parts])

    def __call__(self, student: Generator) -> float:
        return psnr(self._run(student), self.images)
