"""Distance of the distributions of student's and teacher's features, by their first two moments."""
import torch

from metrics.perceptual import block_features
from training.loss import GenBatch

from ..comparison import Comparison


class MomentsTerm:
    """weight · mean over D_T's blocks of MMD²(φ(G(z)), φ(G_T(z))), φ the unit-length activations averaged over pixels.

    With the kernel (a·b + 1)² that is 2 |μ - μ_T|² + |M - M_T|², μ = E φ and M = E φ φᵀ over the images of one pass.
    Images need not agree latent by latent, only together.

    Source: the kernel mean embeddings of NICKEL & DiME (ECCV 2024) match distributions in the same way; features and
    kernel are ours.

    Args:
        weight: of the term; 0 adds nothing.
        comparison: of student and teacher.
    """

    name = "kd_moments"

    def __init__(self, weight: float, comparison: Comparison) -> None:
        self.weight, self.comparison = weight, comparison
        self.D = comparison.teacher.D

    def __call__(self, batch: GenBatch) -> torch.Tensor | None:
        """Loss per sample [N], the same for all; None if the weight is 0."""
        if self.weight == 0:
            return None
        with torch.no_grad():
            target = self._pooled(self.comparison.teacher_image(batch))
        distances = [squared_mmd(a, b) for a, b in zip(self._pooled(batch.img), target)]
        return (torch.stack(distances).mean() * self.weight).expand(len(batch.img))

    def _pooled(self, img: torch.Tensor) -> list[torch.Tensor]:
        """The mean feature [N, C] of every block over the pixels that count, from images [N, C, H, W]."""
        pooled = []
        for features in block_features(self.D, img):
            if self.comparison.options.mask is not None:
                features = features * self.comparison.weights(features)
            pooled.append(features.mean(dim=[2, 3]))
        return pooled


def squared_mmd(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The (biased) squared maximum mean discrepancy of samples a [N, C] and b [M, C] with the kernel (a·b + 1)²."""
    means = (a.mean(dim=0) - b.mean(dim=0)).square().sum()
    seconds = (a.t() @ a / len(a) - b.t() @ b / len(b)).square().sum()
    return 2 * means + seconds
