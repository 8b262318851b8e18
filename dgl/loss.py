"""The student's losses: its base loss, plus its teachers' terms (DGL-GAN, arXiv:2112.06502, section 4).

The student's generator minimises  E f(-D(G(z))) + λ · E f(-D_T(G(z))),  D its own discriminator and D_T its teacher's;
f is softplus for StyleGAN2 and the identity with the hinge loss; nothing is added to the loss of D. In the variant with
an updated teacher, D_T is trained further on reals and on the student's images, with the same loss as D.
"""
import dataclasses
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import torch

from dnnlib.cli import VECTORS
from training.biggan.loss import HingeLoss
from training.loss import (
    AdversarialLoss,
    GenBatch,
    ImageTransform,
    Loss,
    LossTerm,
    Part,
    Phase,
    Step,
    StyleGAN2Loss,
    report_logits,
)
from training.optimization import make_phases
from training.stylegan3.loss import StyleGAN3Loss

from . import elastic, kd
from .comparison import Comparison, ComparisonOptions
from .distillation import NETWORK, Distillation
from .ratio import Ratio
from .teacher import TeacherSet
from .teacher_term import TeacherDiscriminatorTerm

__all__ = ["DGLHingeLoss", "DGLLoss", "DGLStyleGAN3Loss", "TeacherDiscriminatorTerm"]

REPORT_INTERVAL = 16  # passes of D between reports on real images by frozen teachers, where no phase is as rare


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guidance:
    """How teachers guide a student.

    Attributes:
        guidance: 'verdict' (the teachers' discriminators judge the student's images), 'relative' (compared with the
            teacher's image of the same latent), 'ratio' (see Ratio) or 'heads' (see HeadsDiscriminator).
        ratio_calibrate: calibrate the teacher's logits in 'ratio' on real images, which are not the teacher's.
        dgl_weight: λ.
        dgl_ramp_kimg: thousands of images over which λ grows from 0 once the teachers have joined.
        teacher_weights: of the teachers in their term; see TeacherDiscriminatorTerm.
        stage1_kimg: thousands of images before the teachers join; at the switch the optimizers and the mean path length
            are reset.
        teacher_aug: show the teachers augmented images.
        teacher_update: train the teachers' discriminators further; heads are always trained.
        teacher_opt_kwargs: their optimizer's class_name and arguments; the learning rate is used as it is.
        teacher_reg_interval: iterations between their R1 steps.
        keep_mapping: train the generator's synthesis network alone in adversarial training.
        kd: weights of distillation terms (`dgl.kd.TERMS`), with the first teacher.
        kd_mask, kd_blocks, kd_lpips: details of these terms; see ComparisonOptions.
        distil_kimg: thousands of images of distillation alone, before adversarial training; see Distillation.
        distil_lr: its learning rate.
        distil_warmup_kimg: thousands of images over which the learning rate rises to that.
        distil_seed: of its latents.
        distil_steps: of distillation per iteration, each on other latents.
        elastic: further widths of an elastic student, as text; see `dgl.elastic`.
        game_warmup_kimg: thousands of images after distillation in which only discriminators are trained.
        game_kd: factor of the distillation terms in the adversarial training that follows distillation.
    """

    guidance: str = "verdict"
    ratio_calibrate: bool = True
    dgl_weight: float = 0.1
    dgl_ramp_kimg: float = 0
    teacher_weights: Sequence[float] | str | None = None
    stage1_kimg: float = 0
    teacher_aug: bool = False
    teacher_update: bool = False
    teacher_opt_kwargs: Mapping[str, Any] | None = None
    teacher_reg_interval: int = 16
    keep_mapping: bool = False
    kd: Mapping[str, float] | None = None
    kd_mask: str | None = None
    kd_blocks: Sequence[float] | None = None
    kd_lpips: str | None = None
    distil_kimg: float = 0
    distil_lr: float = 0.008
    distil_warmup_kimg: float = 0
    distil_seed: int = 0
    distil_steps: int = 1
    elastic: Sequence[str] = ()
    game_warmup_kimg: float = 0
    game_kd: float = 1

    @property
    def start_nimg(self) -> int:
        """Images seen when the teachers join adversarial training: after stage one, or after distillation."""
        return round(max(self.stage1_kimg, self.distil_kimg) * 1000)

    @property
    def start_nimg_of_G(self) -> int:
        """Images seen when the student's generator joins adversarial training."""
        return self.start_nimg + round(self.game_warmup_kimg * 1000)

    @property
    def trains_teachers(self) -> bool:
        """Whether discriminators of teachers, or heads on them, are trained."""
        return self.teacher_update or self.guidance == "heads"

    @property
    def needs_generator(self) -> bool:
        """Whether the first teacher's generator takes part."""
        return bool(self.kd) or self.guidance in ("relative", "ratio")

    @property
    def needs_discriminator(self) -> bool:
        """Whether the first teacher's discriminator takes part, which distillation alone may do without."""
        return not self.distil_kimg or any(kd.TERMS[name].needs_discriminator for name in self.kd or {})

    @property
    def comparison_options(self) -> ComparisonOptions:
        """Details of the distillation terms."""
        blocks = None if self.kd_blocks is None else tuple(self.kd_blocks)
        return ComparisonOptions(self.kd_mask, blocks, self.kd_lpips)


class DelayedTerm:
    """A term with a factor that adds nothing before that many images."""

    def __init__(self, start_nimg: int, term: LossTerm, factor: float = 1) -> None:
        self.start_nimg, self.term, self.factor, self.name = start_nimg, term, factor, term.name

    def __call__(self, batch: GenBatch) -> torch.Tensor | None:
        """The term's loss per sample [N], or None."""
        if batch.cur_nimg < self.start_nimg or self.factor == 0:
            return None
        value = self.term(batch)
        return value if value is None or self.factor == 1 else value * self.factor


class GuidedLoss(Loss):
    """Adds teacher guidance to a base loss.

    Args:
        base: the loss that the student would have alone; the terms are added to its own.
        teachers: the teachers of this run.
        guidance: how they guide.

    Attributes:
        terms: the terms that the teachers add to the generator's loss.
    """

    def __init__(self, base: AdversarialLoss, teachers: TeacherSet, guidance: Guidance) -> None:
        self.base, self.teachers, self.guidance = base, teachers, guidance
        comparison = None
        if teachers.first is not None:
            comparison = Comparison(teachers.first, base.G, guidance.comparison_options)
        if guidance.guidance == "heads":
            teachers.use_heads()
        distillation_terms = _distillation_terms(guidance, comparison)
        self.terms: list[LossTerm] = [
            DelayedTerm(guidance.start_nimg, term, guidance.game_kd) for term in distillation_terms]
        self.ratio = None
        if teachers.discriminators:
            teacher_term = _teacher_term(base, teachers, guidance, comparison)
            if guidance.guidance == "ratio":
                assert teachers.first is not None
                self.ratio = Ratio(teachers.discriminators, teachers.first.G_ema, teacher_term.current_weight,
                                   guidance.ratio_calibrate)
                base.change_logits = self.ratio.add
            else:
                self.terms.insert(0, teacher_term)
        base.g_terms.extend(self.terms)
        self.distillation = None
        if guidance.distil_kimg:
            self.distillation = Distillation(
                base.G, distillation_terms, guidance.distil_lr, round(guidance.distil_kimg * 1000),
                round(guidance.distil_warmup_kimg * 1000), guidance.distil_seed, guidance.distil_steps,
                tuple(map(Fraction, guidance.elastic)),
                uses_given_labels=teachers.first is not None and teachers.first.label_kind == VECTORS)
        self._num_passes = 0
        self._trained: dict[str, torch.nn.Module] = {}  # network of a phase → discriminator
        self._extra_phases: list[Phase] = [] if self.distillation is None else [self.distillation.phase]
        if guidance.trains_teachers:
            for number, D in enumerate(teachers.discriminators):
                self._add_phases(f"T{number}", D)

    def _add_phases(self, network: str, D: torch.nn.Module) -> None:
        """A main and a regularisation phase with one optimizer at the plain learning rate."""
        assert self.guidance.teacher_opt_kwargs is not None
        (both,) = make_phases(network, D, self.guidance.teacher_opt_kwargs, reg_interval=None)
        self._trained[network] = D
        for part, interval in ((Part.MAIN, 1), (Part.REG, self.guidance.teacher_reg_interval)):
            self._extra_phases.append(Phase(network, part, D, both.opt, interval))

    def extra_phases(self) -> list[Phase]:
        """The phase of distillation, and those of the teachers that are trained further."""
        return self._extra_phases

    def needs_images(self, cur_nimg: int) -> bool:
        """Not as long as there is distillation."""
        return self.distillation is None or not self.distillation.is_under_way(cur_nimg)

    def references(self) -> Mapping[str, torch.nn.Module]:
        """The teacher's generator, if the student is distilled from it."""
        first = self.teachers.first
        return {} if self.distillation is None or first is None else {"teacher": first.G_ema}

    def notes(self) -> dict[str, Any]:
        """The widths of an elastic student."""
        return elastic.note(self.guidance.elastic) if self.guidance.elastic else {}

    def leaves_out(self) -> tuple[str, ...]:
        """A discriminator with random weights, of a student whose teacher has none."""
        first = self.teachers.first
        return ("D",) if first is not None and first.D is None else ()

    def stage(self, cur_nimg: int) -> int:
        """0 before the teachers join, then 1; 0 if they are there from the start."""
        return int(0 < self.guidance.start_nimg <= cur_nimg)

    def begin_stage(self) -> None:
        """As of the base loss."""
        self.base.begin_stage()

    def starts_from_average(self) -> bool:
        """After distillation, adversarial training starts from the averaged student, the result of distillation."""
        return self.distillation is not None

    def accumulate_gradients(self, network: str, part: Part, step: Step) -> None:
        """The base loss with the teachers' terms, the loss of a teacher that is trained further, or distillation.

        As long as there is distillation, there is nothing else; then discriminators may have a start.
        """
        if self.distillation is not None and (network == NETWORK or self.distillation.is_under_way(step.cur_nimg)):
            if network == NETWORK:
                self.distillation.accumulate_gradients(step)
            return
        if network == "G" and step.cur_nimg < self.guidance.start_nimg_of_G and self.guidance.game_warmup_kimg:
            return
        has_joined = step.cur_nimg >= self.guidance.start_nimg
        if network in self._trained:
            if has_joined:
                self.base.d_step(self._trained[network], part, step, self._augment, prefix="teacher/")
            return
        if network == "D" and self.ratio is not None and has_joined:
            step = self.ratio.with_teacher_images(step)
        if self.distillation is not None:
            self.distillation.keep_statistics()
        self.base.accumulate_gradients(network, part, step)
        if network == "G" and self.guidance.keep_mapping:
            self.base.G.mapping.zero_grad(set_to_none=True)
        if network == "D" and part.has_reg and has_joined and not self._trained:
            if part is Part.REG or self._num_passes % REPORT_INTERVAL == 0:
                self._report_reals(step.real_img, step.real_c)
            self._num_passes += part is Part.BOTH

    @property
    def _augment(self) -> ImageTransform:
        """What is applied to the images that teachers see."""
        return self.base.augment if self.guidance.teacher_aug else _unchanged

    @torch.no_grad()
    def _report_reals(self, img: torch.Tensor, c: torch.Tensor) -> None:
        """The logits of frozen teachers on real images [N, C, H, W], as statistics; keeps the random state."""
        if self.guidance.teacher_aug:
            with torch.random.fork_rng(devices=[img.device] if img.device.type == "cuda" else []):
                img = self.base.augment(img)
        report_logits("real", self.teachers.logits(img, c), prefix="teacher/")

    def state_dict(self) -> dict[str, Any]:
        """The state of the base loss and of teachers that are trained further, and the passes of D."""
        passes = {"num_passes": self._num_passes} if self._num_passes else {}
        ratio = {} if self.ratio is None else {"ratio": self.ratio.state_dict()}
        return {**self.base.state_dict(), **passes, **self.teachers.state_dict(), **ratio}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict()`."""
        self.base.load_state_dict(state)
        self._num_passes = state.get("num_passes", 0)
        self.teachers.load_state_dict(state)
        if self.ratio is not None:
            self.ratio.load_state_dict(state["ratio"])


def _unchanged(img: torch.Tensor) -> torch.Tensor:
    """The images [N, C, H, W] as they are."""
    return img


def _teacher_term(
    base: AdversarialLoss, teachers: TeacherSet, guidance: Guidance, comparison: Comparison | None
) -> TeacherDiscriminatorTerm:
    """The term of the teachers' discriminators."""
    return TeacherDiscriminatorTerm(
        teachers.discriminators,
        weight=guidance.dgl_weight,
        augmented=guidance.teacher_aug,
        start_nimg=guidance.start_nimg_of_G,
        ramp_nimg=round(guidance.dgl_ramp_kimg * 1000),
        teacher_weights=guidance.teacher_weights,
        g_loss=base.g_loss,
        reference=comparison.teacher_image if guidance.guidance == "relative" and comparison else None,
    )


def _distillation_terms(guidance: Guidance, comparison: Comparison | None) -> list[LossTerm]:
    """The terms that compare the student with its first teacher."""
    if not guidance.kd:
        return []
    assert comparison is not None, "distillation needs the teacher's generator"
    return [kd.TERMS[name].load()(weight, comparison) for name, weight in guidance.kd.items()]


def _guided_parts(
    base_class: type[AdversarialLoss],
    device: torch.device,
    G: torch.nn.Module,
    D: torch.nn.Module,
    augment_pipe: torch.nn.Module | None,
    teachers: Sequence[Mapping[str, Any]],
    options: Mapping[str, Any],
) -> tuple[AdversarialLoss, TeacherSet, Guidance]:
    """The arguments of GuidedLoss from those that `training_options.json` holds in one dictionary."""
    fields = {field.name for field in dataclasses.fields(Guidance)}
    guidance = Guidance(**{name: value for name, value in options.items() if name in fields})
    base_options = {name: value for name, value in options.items() if name not in fields}
    base = base_class(device, G, D, augment_pipe, **base_options)
    opened = TeacherSet.open(teachers, device, guidance.teacher_update, guidance.needs_generator,
                             guidance.needs_discriminator)
    return base, opened, guidance


class _FamilyLoss(GuidedLoss):
    """The losses of a family with teachers."""

    base_class: type[AdversarialLoss]  # the losses without teachers

    def __init__(
        self,
        device: torch.device,
        G: torch.nn.Module,
        D: torch.nn.Module,
        teachers: Sequence[Mapping[str, Any]],
        augment_pipe: torch.nn.Module | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*_guided_parts(self.base_class, device, G, D, augment_pipe, teachers, options))


class DGLLoss(_FamilyLoss):
    """The StyleGAN2 losses with teachers.

    Args:
        device, G, D, augment_pipe: as of StyleGAN2Loss.
        teachers: for each, url and sha256 of its pickle, optionally trust_pickle.
        options: further arguments of StyleGAN2Loss, and the fields of Guidance.
    """

    base_class = StyleGAN2Loss


class DGLStyleGAN3Loss(_FamilyLoss):
    """The losses of StyleGAN3 with teachers; arguments as of DGLLoss, with those of StyleGAN3Loss."""

    base_class = StyleGAN3Loss


class DGLHingeLoss(_FamilyLoss):
    """The hinge loss with teachers; arguments as of DGLLoss, with those of HingeLoss."""

    base_class = HingeLoss
