"""Distance to the teacher's image of the same latent in the features of the teacher's discriminator."""
import torch

from metrics.perceptual import block_errors, block_features
from training.loss import GenBatch

from ..comparison import Comparison


class FeatureTerm:
    """weight · mean over D_T's blocks of |φ(G(z)) - φ(G_T(z))|², φ the unit-length activations.

    A perceptual distance that needs no external weights. With weights of the blocks it is their weighted sum instead
    of the mean.

    Args:
        weight: of the term; 0 adds nothing.
        comparison: of student and teacher.

    Raises:
        ValueError: there is not one weight for each block.
    """

    name = "kd_feature"

    def __init__(self, weight: float, comparison: Comparison) -> None:
        self.weight, self.comparison = weight, comparison
        self.D = comparison.teacher.D
        self.blocks = comparison.options.blocks

    def __call__(self, batch: GenBatch) -> torch.Tensor | None:
        """Loss per sample [N]; None if the weight is 0."""
        if self.weight == 0:
            return None
        with torch.no_grad():
            target = block_features(self.D, self.comparison.teacher_image(batch))
        errors = block_errors(block_features(self.D, batch.img), target)
        values = torch.stack([self.comparison.mean(error) for error in errors])  # [blocks, N]
        if self.blocks is None:
            return values.mean(dim=0) * self.weight
        if len(self.blocks) != len(values):
            raise ValueError(f"blocks: expected one weight for each of the {len(values)} blocks of the teacher's "
                             f"discriminator, found {len(self.blocks)}")
        return (values * values.new_tensor(self.blocks)[:, None]).sum(dim=0) * self.weight
