"""Distance to the teacher's image of the same ws in the features of the teacher's discriminator."""
from typing import Any

import torch

from metrics.perceptual import block_distance, block_features
from training.loss import GenBatch

from ..teacher import Teacher


class FeatureTerm:
    """weight · mean over D_T's blocks of |φ(G(ws)) - φ(G_T(ws))|², φ the unit-length activations.

    A perceptual distance that needs no external weights. The teacher is given the student's ws without gradient.

    Args:
        weight: of the term; 0 adds nothing.
        teacher: whose G_ema is imitated and whose D gives the features, frozen on the device.
        G: unused.
        device: unused.
    """

    name = "kd_feature"

    def __init__(self, weight: float, teacher: Teacher, G: Any, device: torch.device) -> None:
        self.weight = weight
        self.synthesis = teacher.G_ema.synthesis
        self.D = teacher.D

    def __call__(self, batch: GenBatch) -> torch.Tensor | None:
        """Loss per sample [N]; None if the weight is 0."""
        if self.weight == 0:
            return None
        with torch.no_grad():
            target = block_features(self.D, self.synthesis(batch.ws, noise_mode="const"))
        return block_distance(block_features(self.D, batch.img), target) * self.weight
