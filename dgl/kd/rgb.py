"""L1 distance to the teacher's image of the same ws."""
from typing import Any

import torch

from training.loss import GenBatch

from ..teacher import Teacher


class RGBTerm:
    """weight · mean |G(ws) - G_T(ws)| over channels and pixels.

    The teacher is given the student's ws (style mixing included) without gradient, so it presupposes the teacher's w
    space, which a student keeps that starts with the teacher's mapping network. Its noise is constant.

    Args:
        weight: of the term; 0 adds nothing.
        teacher: whose G_ema is imitated, frozen on the device.
        G: unused.
        device: unused.
    """

    name = "kd_rgb"

    def __init__(self, weight: float, teacher: Teacher, G: Any, device: torch.device) -> None:
        self.weight = weight
        self.synthesis = teacher.G_ema.synthesis

    def __call__(self, batch: GenBatch) -> torch.Tensor | None:
        """Loss per sample [N]; None if the weight is 0."""
        if self.weight == 0:
            return None
        with torch.no_grad():
            target = self.synthesis(batch.ws, noise_mode="const")
        return (batch.img - target).abs().mean(dim=[1, 2, 3]) * self.weight
