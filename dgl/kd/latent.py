"""Latent-direction relations (StyleKD: Xu et al., ECCV 2022, arXiv:2208.08840, section 3.3).

Moving a latent along a direction changes the image; how alike the changes of different latents are is a relation that
the student should share with its teacher.
"""
import numpy as np
import torch
import torch.nn.functional as F

from metrics.perceptual import block_features
from training.loss import GenBatch

from ..comparison import Comparison
from ..scores.diversity import principal_directions

STEP = 5.0  # length of a move in w


class LatentDirectionTerm:
    """weight · mean |R(G) - R(G_T)|, R[n, m] = cos(φ(G(ws_n + s)) - φ(G(ws_n)), φ(G(ws_m + s)) - φ(G(ws_m))).

    φ are the flattened features of the lowest block of the teacher's discriminator, s is a principal direction of w,
    drawn for every iteration from its number of images: the same on all ranks and in all passes of a batch.

    Args:
        weight: of the term; 0 adds nothing.
        comparison: of student and teacher. The student's moved images need a pass of their own; a mask weighs the
            features.
    """

    name = "kd_latent"

    def __init__(self, weight: float, comparison: Comparison) -> None:
        self.weight, self.comparison = weight, comparison
        self.G = comparison.G
        self.teacher = comparison.teacher.G_ema
        self.D = comparison.teacher.D
        self.directions = principal_directions(self.teacher, torch.Generator().manual_seed(0))

    def __call__(self, batch: GenBatch) -> torch.Tensor | None:
        """Loss per sample [N]; None if the weight is 0."""
        if self.weight == 0:
            return None
        drawn = np.random.SeedSequence(batch.cur_nimg).generate_state(1)[0]
        step = STEP * self.directions[int(drawn) % len(self.directions)]
        with torch.no_grad():
            plain, moved = (self.teacher.synthesis(ws, noise_mode="const") for ws in (batch.ws, batch.ws + step))
            target = self._relations(plain, moved)
        plain, moved = (self.G.synthesis(ws, noise_mode="const") for ws in (batch.ws, batch.ws + step))
        return (self._relations(plain, moved) - target).abs().mean(dim=1) * self.weight

    def _relations(self, plain: torch.Tensor, moved: torch.Tensor) -> torch.Tensor:
        """Cosines between the changes of all pairs of samples, [N, N], from images [N, C, H, W]."""
        change = block_features(self.D, moved)[-1] - block_features(self.D, plain)[-1]
        if self.comparison.options.mask is not None:
            change = change * self.comparison.weights(change)
        change = change.flatten(1)
        unit = F.normalize(change, dim=1)
        return unit @ unit.t()
