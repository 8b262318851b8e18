"""L1 distance to the teacher's image of the same latent."""
import torch

from training.loss import GenBatch

from ..comparison import Comparison


class RGBTerm:
    """weight · mean |G(z) - G_T(z)| over channels and pixels.

    Args:
        weight: of the term; 0 adds nothing.
        comparison: of student and teacher.
    """

    name = "kd_rgb"

    def __init__(self, weight: float, comparison: Comparison) -> None:
        self.weight, self.comparison = weight, comparison

    def __call__(self, batch: GenBatch) -> torch.Tensor | None:
        """Loss per sample [N]; None if the weight is 0."""
        if self.weight == 0:
            return None
        error = (batch.img - self.comparison.teacher_image(batch)).abs()
        return self.comparison.mean(error) * self.weight
