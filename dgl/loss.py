"""The student's losses: those it would have alone, plus its teachers' (DGL-GAN, arXiv:2112.06502, section 4).

The student's generator minimises  E f(-D(G(z))) + λ · E f(-D_T(G(z))),  D its own discriminator and D_T its teacher's;
f is softplus for StyleGAN2 and the identity with the hinge loss; nothing is added to the loss of D. In the variant with
an updated teacher, D_T goes on training on reals and on the student's images, with the same loss as D.
"""
import copy
import dataclasses
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from training.biggan.loss import HingeLoss
from training.loss import GenBatch, Loss, LossTerm, Phase, StyleGAN2Loss, report_logits
from training.optimization import make_phases

from . import teacher as teacher_files
from .guidance import TeacherDiscriminatorTerm

__all__ = ["DGLHingeLoss", "DGLLoss", "TeacherDiscriminatorTerm"]

REPORT_INTERVAL = 16  # passes of D between looks of frozen teachers at real images, where no phase is as rare

_KD_TERMS = {"rgb": "RGBTerm", "feature": "FeatureTerm", "latent": "LatentDirectionTerm"}


class _From:
    """A term that is nothing before that many images."""

    def __init__(self, start_nimg: int, term: LossTerm) -> None:
        self.start_nimg, self.term, self.name = start_nimg, term, term.name

    def __call__(self, batch: GenBatch) -> torch.Tensor | None:
        return self.term(batch) if batch.cur_nimg >= self.start_nimg else None


class _WithTeachers(Loss):
    """Adds teachers to the losses that it is derived together with.

    Args:
        teachers: for each, url and sha256 of its pickle, optionally trust_pickle.
        dgl_weight: λ.
        dgl_ramp_kimg: thousands of images over which λ grows from 0 once the teachers have joined.
        teacher_weights: of the teachers in their term; see TeacherDiscriminatorTerm.
        stage1_kimg: thousands of images before the teachers join; at the switch the optimizers and the mean path length
            start afresh.
        teacher_aug: show the teachers augmented images.
        teacher_update: go on training the teachers' discriminators.
        teacher_opt_kwargs: their optimizer's class_name and arguments; the learning rate is used as it is.
        teacher_reg_interval: iterations between their R1 steps.
        kd: weights of distillation terms (`dgl.kd.NAMES`), with the first teacher.
        kwargs: of these losses.
    """

    def __init__(
        self,
        device: torch.device,
        G: torch.nn.Module,
        D: torch.nn.Module,
        teachers: Sequence[Mapping[str, Any]],
        dgl_weight: float = 0.1,
        dgl_ramp_kimg: float = 0,
        teacher_weights: Sequence[float] | str | None = None,
        stage1_kimg: float = 0,
        teacher_aug: bool = False,
        teacher_update: bool = False,
        teacher_opt_kwargs: Mapping[str, Any] | None = None,
        teacher_reg_interval: int = 16,
        kd: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(device, G, D, **kwargs)  # type: ignore[call-arg]  # of the losses derived together with
        self.start_nimg = round(stage1_kimg * 1000)
        self.teacher_update = teacher_update
        self.teacher_aug = teacher_aug
        loaded = [teacher_files.load(**teacher) for teacher in teachers]
        self.teachers = [one.D.train(teacher_update).requires_grad_(False).to(device) for one in loaded]
        self.g_terms.append(
            TeacherDiscriminatorTerm(
                self.teachers, dgl_weight, teacher_aug, self.start_nimg, round(dgl_ramp_kimg * 1000), teacher_weights,
                self.g_loss,
            )
        )
        fixed = loaded[0]  # for distillation: a discriminator that goes on training is no measure
        if kd and teacher_update:
            fixed = dataclasses.replace(fixed, D=copy.deepcopy(fixed.D))
        for name, weight in (kd or {}).items():
            term = getattr(importlib.import_module(f"dgl.kd.{name}"), _KD_TERMS[name])
            self.g_terms.append(_From(self.start_nimg, term(weight=weight, teacher=fixed, G=G, device=device)))
        self._num_passes = 0
        self._teacher_phases: dict[str, tuple[torch.nn.Module, str]] = {}
        self._extra_phases: list[Phase] = []
        if teacher_update:
            assert teacher_opt_kwargs is not None
            for number, teacher in enumerate(self.teachers):
                self._add_phases(f"T{number}", teacher, teacher_opt_kwargs, teacher_reg_interval)

    # Of the losses that this is derived together with.
    augment: Callable[[torch.Tensor], torch.Tensor]
    augment_pipe: torch.nn.Module | None
    g_terms: list[LossTerm]
    g_loss: Callable[[torch.Tensor], torch.Tensor]
    d_step: Callable[..., None]

    def _add_phases(self, name: str, D: torch.nn.Module, opt_kwargs: Mapping[str, Any], reg_interval: int) -> None:
        """A main and a regularisation phase with one optimizer at the plain learning rate."""
        (both,) = make_phases(name, D, opt_kwargs, reg_interval=None)
        for part, interval in (("main", 1), ("reg", reg_interval)):
            self._teacher_phases[name + part] = (D, part)
            self._extra_phases.append(Phase(name + part, D, both.opt, interval))

    def extra_phases(self) -> list[Phase]:
        return self._extra_phases

    def stage(self, cur_nimg: int) -> int:
        return int(0 < self.start_nimg <= cur_nimg)

    def accumulate_gradients(
        self,
        phase: str,
        real_img: torch.Tensor,
        real_c: torch.Tensor,
        gen_z: torch.Tensor,
        gen_c: torch.Tensor,
        gain: float,
        cur_nimg: int,
    ) -> None:
        if phase not in self._teacher_phases:
            super().accumulate_gradients(phase, real_img, real_c, gen_z, gen_c, gain, cur_nimg)
            if phase in ("Dreg", "Dboth") and not self.teacher_update and cur_nimg >= self.start_nimg:
                if phase == "Dreg" or self._num_passes % REPORT_INTERVAL == 0:
                    self._report_reals(real_img, real_c)
                self._num_passes += phase == "Dboth"
        elif cur_nimg >= self.start_nimg:
            D, part = self._teacher_phases[phase]
            main, reg = part == "main", part == "reg"
            with self._as_teachers_see():
                self.d_step(D, real_img, real_c, gen_z, gen_c, gain, main, reg, prefix="teacher/")

    @contextmanager
    def _as_teachers_see(self) -> Iterator[None]:
        """Within this, images are augmented only if teachers are shown augmented ones."""
        pipe = self.augment_pipe
        self.augment_pipe = pipe if self.teacher_aug else None
        try:
            yield
        finally:
            self.augment_pipe = pipe

    @torch.no_grad()
    def _report_reals(self, img: torch.Tensor, c: torch.Tensor) -> None:
        """What frozen teachers think of real images, now and then; leaves the random state as it was."""
        if self.teacher_aug:
            with torch.random.fork_rng(devices=[img.device] if img.device.type == "cuda" else []):
                img = self.augment(img)
        report_logits("real", torch.cat([D(img, c) for D in self.teachers], dim=1), prefix="teacher/")

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        if self._num_passes:
            state["num_passes"] = self._num_passes
        if self.teacher_update:
            state["teachers"] = [teacher.state_dict() for teacher in self.teachers]
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._num_passes = state.get("num_passes", 0)
        for teacher, saved in zip(self.teachers, state.get("teachers", [])):
            teacher.load_state_dict(saved)


class DGLLoss(_WithTeachers, StyleGAN2Loss):
    """The StyleGAN2 losses with teachers."""


class DGLHingeLoss(_WithTeachers, HingeLoss):
    """The hinge loss with teachers."""
