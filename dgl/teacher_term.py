"""The teacher's term of the generator's loss, and the statistics it reports.

λ · f(-D_T(G(z))), f that of the student's own loss (DGL-GAN, arXiv:2112.06502, equation 5 and section 4); several
teachers are averaged, with fixed weights or with weights that follow the batch.
"""
import logging
from collections.abc import Callable, Sequence

import torch

from torch_utils import distributed, training_stats
from training.loss import GenBatch, StyleGAN2Loss, report_logits

SURE_SIGN = 0.95  # mean sign of a teacher's logits on fakes from which it hardly distinguishes them
SURE_CALLS = 200  # passes for which that must last before a warning
_log = logging.getLogger(__name__)


class TeacherDiscriminatorTerm:
    """λ · Σ_k w_k f(-D_k(img)) over the teachers' discriminators D_k, Σ w_k = 1.

    Args:
        discriminators: D_k; frozen by the caller.
        weight: λ; 0 adds nothing.
        augmented: show the teachers the augmented images that D sees, instead of the plain ones.
        start_nimg: the teachers' weight is 0 before that many images (stage one).
        ramp_nimg: λ grows linearly from 0 over that many images after the start; 0 is at once.
        teacher_weights: w_k before they are scaled to sum to 1; None weights all alike; 'dynamic' gives each teacher
            the share of its own loss in that of all, so that the one least convinced by the student counts most; for
            losses that are not negative.
        g_loss: logits → f(-logits).
        reference: batch → images [N, C, H, W]; the logits are taken relative to those of these images, so that nothing
            is required of an image that is as good as its reference (`guidance=relative`).

    Raises:
        ValueError: the weights do not fit the teachers.
    """

    name = "dgl"

    def __init__(
        self,
        discriminators: Sequence[torch.nn.Module],
        weight: float = 0.1,
        augmented: bool = False,
        start_nimg: int = 0,
        ramp_nimg: int = 0,
        teacher_weights: Sequence[float] | str | None = None,
        g_loss: Callable[[torch.Tensor], torch.Tensor] = StyleGAN2Loss.g_loss,
        reference: Callable[[GenBatch], torch.Tensor] | None = None,
    ) -> None:
        self.discriminators = list(discriminators)
        self.weight = weight
        self.augmented = augmented
        self.g_loss = g_loss
        self.reference = reference
        self.start_nimg = start_nimg
        self.ramp_nimg = ramp_nimg
        self.dynamic = teacher_weights == "dynamic"
        fixed = [1.0] * len(self.discriminators) if teacher_weights is None or self.dynamic else teacher_weights
        if len(fixed) != len(self.discriminators) or min(map(float, fixed)) < 0 or sum(map(float, fixed)) == 0:
            raise ValueError(f"teacher_weights: expected one weight for each of {len(self.discriminators)} teachers, "
                             f"not negative and not all 0, found {teacher_weights!r}")
        self._fixed = torch.tensor([float(w) for w in fixed]) / sum(map(float, fixed))
        self._confidence = _Confidence()

    def current_weight(self, cur_nimg: int) -> float:
        """λ after that many images."""
        if cur_nimg < self.start_nimg:
            return 0.0
        if cur_nimg < self.start_nimg + self.ramp_nimg:
            return self.weight * (cur_nimg - self.start_nimg) / self.ramp_nimg
        return self.weight

    def __call__(self, batch: GenBatch) -> torch.Tensor | None:
        """Loss per sample [N]; None while the weight is 0."""
        weight = self.current_weight(batch.cur_nimg)
        if weight == 0:
            return None
        shown = batch.img_aug if self.augmented else batch.img
        img = shown.view_as(shown)  # a node of its own, at which the teachers' part of the gradient can be read
        _report_gradient_share(shown, img)
        logits = torch.cat([D(img, batch.c) for D in self.discriminators], dim=1)  # [N, teachers]
        report_logits("fake", logits, prefix="teacher/")
        if not any(D.training for D in self.discriminators):
            self._confidence.watch(logits)
        if self.reference is not None:
            with torch.no_grad():
                images = self.reference(batch)
                offsets = torch.cat([D(images, batch.c) for D in self.discriminators], dim=1)
            logits = logits - offsets
        losses = self.g_loss(logits)
        training_stats.report("Loss/teacher/weight", weight)
        return (losses * self._teacher_weights(losses)).sum(dim=1) * weight

    def _teacher_weights(self, losses: torch.Tensor) -> torch.Tensor:
        """w_k, [teachers], for losses [N, teachers]; dynamic ones are the same on all ranks and carry no gradient."""
        if not self.dynamic:
            return self._fixed.to(losses)
        means = losses.detach().mean(dim=0).clamp_min(1e-30)  # not all 0, however convinced the teachers are
        distributed.mean_([means])
        return means / means.sum()


def _report_gradient_share(shown: torch.Tensor, view: torch.Tensor) -> None:
    """Reports, once the gradients of this batch are known, how much of the image's gradient comes from the teachers:
    |g_T| / (|g_T| + |g - g_T|), g the whole gradient and g_T the teachers' part.
    """
    if not shown.requires_grad:
        return
    part: list[torch.Tensor] = []

    def note_part(gradient: torch.Tensor) -> None:
        part.append(gradient.detach())

    def note_whole(gradient: torch.Tensor) -> None:
        if part:
            of_teachers, rest = part[0].norm(), (gradient.detach() - part[0]).norm()
            training_stats.report("Loss/teacher/gradient_share", of_teachers / (of_teachers + rest).clamp_min(1e-30))

    view.register_hook(note_part)
    shown.register_hook(note_whole)


class _Confidence:
    """Warns once when a frozen teacher has kept calling nearly every fake real, or nearly every fake fake."""

    def __init__(self) -> None:
        self._calls = 0
        self._signs: torch.Tensor | None = None
        self._warned = False

    def watch(self, logits: torch.Tensor) -> None:
        """Takes the logits [N, teachers] of one pass into account."""
        signs = logits.detach().sign().mean(dim=0)  # [teachers]
        self._signs = signs if self._signs is None else self._signs.lerp(signs, 1 / 50)
        self._calls += 1
        if self._warned or self._calls % SURE_CALLS != 0:
            return
        mean = float(self._signs[self._signs.abs().argmax()])
        if abs(mean) >= SURE_SIGN:
            self._warned = True
            verdict = "real" if mean > 0 else "fake"
            advice = ("its term no longer teaches anything; end the run, or start one with `teacher_update=true`"
                      if mean > 0 else
                      "the student may be too far from it, or its logits over-confident; try `teacher_update=true` "
                      "or a smaller `dgl_weight`")
            _log.warning("a teacher's discriminator calls %.0f %% of the student's images %s: %s",
                         50 * (1 + abs(mean)), verdict, advice)
