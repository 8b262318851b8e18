"""Guidance by the density ratio: the teacher's logits are added to the student's own inside the loss.

The student's D learns the teacher's images against the student's, so its logit is log p_T/p_S. The teacher's D_T knows
log p_data/p_T. Their sum is what the student needs, log p_data/p_S.
"""
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from torch_utils import distributed, training_stats
from torch_utils.network_types import Generator
from training.loss import GenBatch, Step, report_logits

from .comparison import draw

CALIBRATION_IMAGES = 1024  # of each kind, over all ranks


class Ratio:
    """f(-(D + τ(a·D_T + b))) in place of f(-D), and the teacher's images as the reals of D.

    a and b make a·D_T + b the logistic regression of real images against the teacher's, from the first images that D
    is shown. Until then, and if `calibrate` is false, they are 1 and 0.

    Args:
        discriminators: of the teachers, frozen; their mean is D_T.
        G: the first teacher's generator, frozen on the device.
        weight: images seen → τ.
        calibrate: the real images are not the teacher's.
    """

    def __init__(
        self,
        discriminators: Sequence[torch.nn.Module],
        G: Generator,
        weight: Callable[[int], float],
        calibrate: bool = True,
    ) -> None:
        self.discriminators, self.G, self.weight = list(discriminators), G, weight
        self.a, self.b = 1.0, 0.0
        self._is_calibrated = not calibrate
        self._logits: list[list[float]] = [[], []]  # logits of reals and of the teacher's images so far, on this rank

    def teacher_logits(self, img: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """Mean of the teachers' logits of images [N, C, H, W] with labels [N, c_dim]: [N, 1]."""
        return torch.stack([D(img, c) for D in self.discriminators]).mean(dim=0)

    def add(self, logits: torch.Tensor, batch: GenBatch) -> torch.Tensor:
        """The student's logits [N, 1] of generated images plus the teacher's, calibrated and weighted, [N, 1]."""
        weight = self.weight(batch.cur_nimg)
        if weight == 0:
            return logits
        of_teacher = self.teacher_logits(batch.img, batch.c)
        report_logits("fake", of_teacher, prefix="teacher/")
        training_stats.report("Loss/teacher/weight", weight)
        return logits + weight * (self.a * of_teacher + self.b)

    @torch.no_grad()
    def with_teacher_images(self, step: Step) -> Step:
        """The step of D with the teacher's images, of random latents and the same labels, as the real ones."""
        z = torch.randn_like(step.gen_z)
        ws = self.G.mapping(z, step.real_c) if hasattr(self.G, "mapping") else z.new_empty([len(z), 0, 0])
        img = draw(self.G, z, step.real_c, ws)
        if not self._is_calibrated:
            self._observe(step.real_img, img, step.real_c)
        return Step(img, step.real_c, step.gen_z, step.gen_c, step.gain, step.cur_nimg)

    def _observe(self, real_img: torch.Tensor, img: torch.Tensor, c: torch.Tensor) -> None:
        """Notes the logits of real and of the teacher's images, and fits a and b once there are enough."""
        for logits, images in zip(self._logits, (real_img, img)):
            logits += self.teacher_logits(images, c).flatten().tolist()
        if len(self._logits[0]) * distributed.world_size() < CALIBRATION_IMAGES:
            return
        parts = distributed.gather_objects(self._logits)
        reals, fakes = ([x for part in parts for x in part[kind]] for kind in (0, 1))
        self.a, self.b = logistic_regression(reals, fakes)
        self._is_calibrated, self._logits = True, [[], []]

    def state_dict(self) -> dict[str, Any]:
        """What an exact resume must restore; logits noted so far are those of every rank. Collective."""
        return {"a": self.a, "b": self.b, "is_calibrated": self._is_calibrated,
                "seen": distributed.gather_objects(self._logits)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict()`; with another number of ranks, calibration begins again."""
        self.a, self.b, self._is_calibrated = state["a"], state["b"], state["is_calibrated"]
        logits_of_ranks = state["seen"]
        if len(logits_of_ranks) == distributed.world_size():
            self._logits = [list(logits) for logits in logits_of_ranks[distributed.rank()]]


def logistic_regression(reals: Sequence[float], fakes: Sequence[float], steps: int = 50) -> tuple[float, float]:
    """Slope a and offset b with which sigmoid(a·x + b) best tells reals from fakes, by Newton's method.

    A weak prior keeps (a, b) near (1, 0), and finite where the two are separated.
    """
    x = np.array([*reals, *fakes], dtype=np.float64)
    y = np.repeat([1.0, 0.0], [len(reals), len(fakes)])
    features = np.stack([x, np.ones_like(x)], axis=1)
    prior, strength = np.array([1.0, 0.0]), 1.0
    theta = prior.copy()
    for _ in range(steps):
        p = 0.5 * (1 + np.tanh(0.5 * features @ theta))
        gradient = features.T @ (p - y) + strength * (theta - prior)
        curvature = (features.T * (p * (1 - p))) @ features + strength * np.eye(2)
        change = np.linalg.solve(curvature, gradient)
        theta = theta - change * min(1.0, 2.0 / max(float(np.abs(change).max()), 1e-12))
        if math.isclose(float(np.abs(change).max()), 0.0, abs_tol=1e-10):
            break
    return float(theta[0]), float(theta[1])
