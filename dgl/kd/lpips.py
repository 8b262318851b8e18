"""LPIPS distance to the teacher's image of the same latent, by a TorchScript file."""
import torch

from metrics import detector
from metrics.perceptual import DetectorFeatures
from training.loss import GenBatch

from ..comparison import Comparison


class LPIPSTerm:
    """weight · LPIPS(G(z), G_T(z)) (Zhang et al. 2018, arXiv:1801.03924).

    With a mask, the student's image takes part only where the mask is bright; elsewhere it is the teacher's.

    Args:
        weight: of the term; 0 adds nothing.
        comparison: of student and teacher; its options name the file.

    Raises:
        ValueError: its options name none.
        DetectorError: the file cannot be used.
    """

    name = "kd_lpips"

    def __init__(self, weight: float, comparison: Comparison) -> None:
        self.weight, self.comparison = weight, comparison
        if comparison.options.lpips is None:
            raise ValueError("lpips: expected the path of a TorchScript file, found none")
        device = next(comparison.teacher.G_ema.parameters()).device
        spec = detector.DetectorSpec.parse(comparison.options.lpips)
        self.features = DetectorFeatures(detector.load(spec, device))

    def __call__(self, batch: GenBatch) -> torch.Tensor | None:
        """Loss per sample [N]; None if the weight is 0."""
        if self.weight == 0:
            return None
        target = self.comparison.teacher_image(batch)
        images = (self.comparison.inside(batch.img, target), target)
        a, b = (self.features(img * 127.5 + 127.5) for img in images)
        return (a - b).square().sum(dim=1) * self.weight
