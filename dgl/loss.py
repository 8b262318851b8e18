"""The teacher's discriminator in the student's loss (DGL-GAN, arXiv:2112.06502, section 4).

The student's generator minimises  E f(-D(G(z))) + λ · E f(-D_T(G(z))),  f = softplus, D its own discriminator and D_T
its teacher's; nothing is added to the loss of D. In the variant with an updated teacher, D_T goes on training on reals
and on the student's images, with the same loss as D.
"""
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from training.loss import GenBatch, Phase, StyleGAN2Loss, report_logits
from training.optimization import make_phases

from .teacher import frozen_discriminator


class TeacherDiscriminatorTerm:
    """λ · f(-D_T(img)), averaged over the teachers.

    Args:
        discriminators: D_T of each teacher; frozen by whoever passes them.
        weight: λ; 0 adds nothing.
        augmented: show the teachers the augmented images that D sees, instead of the plain ones.
        start_nimg: before that many images there is no teacher (stage one).
    """

    name = "dgl"

    def __init__(
        self,
        discriminators: Sequence[torch.nn.Module],
        weight: float = 0.1,
        augmented: bool = False,
        start_nimg: int = 0,
    ) -> None:
        self.discriminators = list(discriminators)
        self.weight = weight
        self.augmented = augmented
        self.start_nimg = start_nimg

    def __call__(self, batch: GenBatch) -> torch.Tensor | None:
        if self.weight == 0 or batch.cur_nimg < self.start_nimg:
            return None
        img = batch.img_aug if self.augmented else batch.img
        logits = torch.cat([D(img, batch.c) for D in self.discriminators], dim=1)  # [N, teachers]
        report_logits("fake", logits, prefix="teacher/")
        return F.softplus(-logits).mean(dim=1) * self.weight


class DGLLoss(StyleGAN2Loss):
    """The StyleGAN2 losses with teachers.

    Args:
        teachers: for each, url and sha256 of its pickle, optionally trust_pickle.
        dgl_weight: λ.
        stage1_kimg: thousands of images before the teachers join; at the switch the optimizers and the mean path length
            start afresh.
        teacher_aug: show the teachers augmented images.
        teacher_update: go on training the teachers' discriminators.
        teacher_opt_kwargs: their optimizer's class_name and arguments; the learning rate is used as it is.
        teacher_reg_interval: iterations between their R1 steps.
        kwargs: as for StyleGAN2Loss.
    """

    def __init__(
        self,
        device: torch.device,
        G: torch.nn.Module,
        D: torch.nn.Module,
        teachers: Sequence[Mapping[str, Any]],
        dgl_weight: float = 0.1,
        stage1_kimg: float = 0,
        teacher_aug: bool = False,
        teacher_update: bool = False,
        teacher_opt_kwargs: Mapping[str, Any] | None = None,
        teacher_reg_interval: int = 16,
        **kwargs: Any,
    ) -> None:
        super().__init__(device, G, D, **kwargs)
        self.start_nimg = round(stage1_kimg * 1000)
        self.teacher_update = teacher_update
        self.teachers = [
            frozen_discriminator(t["url"], device, t.get("trust_pickle", False), t.get("sha256")) for t in teachers
        ]
        self.g_terms.append(TeacherDiscriminatorTerm(self.teachers, dgl_weight, teacher_aug, self.start_nimg))
        self._teacher_phases: dict[str, tuple[torch.nn.Module, str]] = {}
        self._extra_phases: list[Phase] = []
        if teacher_update:
            assert teacher_opt_kwargs is not None
            for number, teacher in enumerate(self.teachers):
                self._add_phases(f"T{number}", teacher, teacher_opt_kwargs, teacher_reg_interval)

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
        elif cur_nimg >= self.start_nimg:
            D, part = self._teacher_phases[phase]
            if part == "main":
                self.d_fake(D, gen_z, gen_c, gain, prefix="teacher/")
            if part == "main" or self.r1_gamma != 0:
                self.d_real(D, real_img, real_c, gain, main=part == "main", penalise=part == "reg", prefix="teacher/")

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        if self.teacher_update:
            state["teachers"] = [teacher.state_dict() for teacher in self.teachers]
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        for teacher, saved in zip(self.teachers, state.get("teachers", [])):
            teacher.load_state_dict(saved)
