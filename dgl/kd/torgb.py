"""L1 distance to the teacher's images of every resolution on the way to the full one."""
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from dnnlib.errors import UserError
from training.loss import GenBatch

from ..comparison import Comparison


class ToRGBTerm:
    """weight · mean over the resolutions of mean |image so far of G - of G_T|, with constant noise.

    In a StyleGAN2 with skip connections the image is a sum over resolutions, so every block has one. The student's
    needs a pass of its own.

    Args:
        weight: of the term; 0 adds nothing.
        comparison: of student and teacher.

    Raises:
        UserError: the networks have no image per resolution.
    """

    name = "kd_torgb"

    def __init__(self, weight: float, comparison: Comparison) -> None:
        self.weight, self.comparison = weight, comparison
        for G in (comparison.G, comparison.teacher.G_ema):
            if not all(hasattr(block, "torgb") for block in _blocks(G.synthesis)):
                raise UserError("torgb needs a generator with an image at every resolution (architecture `skip`), "
                                "this one has only the last", field="kd")

    def __call__(self, batch: GenBatch) -> torch.Tensor | None:
        """Loss per sample [N]; None if the weight is 0."""
        if self.weight == 0:
            return None
        with torch.no_grad():
            target = images_by_resolution(self.comparison.teacher.G_ema.synthesis, batch.ws)
        images = images_by_resolution(self.comparison.G.synthesis, batch.ws)
        errors = [self.comparison.mean((img - other).abs()) for img, other in zip(images, target)]
        return torch.stack(errors).mean(dim=0) * self.weight


def images_by_resolution(synthesis: torch.nn.Module, ws: torch.Tensor) -> list[torch.Tensor]:
    """The image [N, C, r, r] after every block of a synthesis network with ws [N, num_ws, w_dim]."""
    with _outputs(_blocks(synthesis)) as images:
        synthesis(ws, noise_mode="const")
    return images


def _blocks(synthesis: Any) -> list[torch.nn.Module]:
    return [getattr(synthesis, f"b{res}") for res in synthesis.block_resolutions]


@contextmanager
def _outputs(blocks: list[torch.nn.Module]) -> Iterator[list[torch.Tensor]]:
    """Within this, the images that blocks return are appended to a list."""
    images: list[torch.Tensor] = []

    def note(block: torch.nn.Module, args: object, result: tuple[torch.Tensor, torch.Tensor]) -> None:
        images.append(result[1].to(torch.float32))

    hooks = [block.register_forward_hook(note) for block in blocks]
    try:
        yield images
    finally:
        for hook in hooks:
            hook.remove()
