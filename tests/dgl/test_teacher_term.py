"""The teacher's term: ramps, weights of several teachers, and what it reports of itself."""
import logging
import math
from typing import Any

import pytest
import torch

from dgl.teacher_term import SURE_CALLS, TeacherDiscriminatorTerm
from tests import tiny
from torch_utils import training_stats
from training.loss import GenBatch


class Linear(torch.nn.Module):
    """A discriminator a·mean(image) + b."""

    def __init__(self, slope: float = 0.0, offset: float = 0.0) -> None:
        super().__init__()
        self.slope, self.offset = slope, offset

    def forward(self, img: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return self.slope * img.mean(dim=[1, 2, 3])[:, None] + self.offset


def batch(cur_nimg: int = 0, img: torch.Tensor | None = None) -> GenBatch:
    z, c = tiny.latents()
    img = tiny.images() if img is None else img
    return GenBatch(z, c, z[:, None], img, img, cur_nimg)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


@pytest.mark.parametrize(
    ("cur_nimg", "share"), [(999, None), (1000, None), (1500, 0.25), (2999, 0.9995), (3000, 1), (9000, 1)]
)
def test_the_weight_ramps_up_once_the_teacher_has_joined(cur_nimg: int, share: float | None) -> None:
    term = TeacherDiscriminatorTerm([Linear()], weight=0.2, start_nimg=1000, ramp_nimg=2000)
    result = term(batch(cur_nimg))
    if share is None:
        assert result is None
        assert term.current_weight(cur_nimg) == 0
    else:
        assert result is not None
        torch.testing.assert_close(result, torch.full([4], 0.2 * share * math.log(2)))


def test_fixed_weights_are_scaled_to_sum_to_one() -> None:
    term = TeacherDiscriminatorTerm([Linear(offset=1), Linear(offset=-2)], weight=1, teacher_weights=[3, 1])
    expected = 0.75 * softplus(-1) + 0.25 * softplus(2)
    torch.testing.assert_close(term(batch()), torch.full([4], expected))


def test_dynamic_weights_follow_the_losses_and_carry_no_gradient() -> None:
    term = TeacherDiscriminatorTerm([Linear(offset=1), Linear(offset=-2)], weight=1, teacher_weights="dynamic")
    a, b = softplus(-1), softplus(2)
    torch.testing.assert_close(term(batch()), torch.full([4], (a * a + b * b) / (a + b)))
    img = torch.zeros([4, 3, 16, 16], requires_grad=True)
    slopes = TeacherDiscriminatorTerm([Linear(slope=768), Linear(slope=2 * 768)], weight=1, teacher_weights="dynamic")
    result = slopes(batch(img=img))
    assert result is not None
    (gradient,) = torch.autograd.grad(result.sum(), img)
    torch.testing.assert_close(gradient, torch.full_like(img, -0.5 * (0.5 * 1 + 0.5 * 2)))  # both at logit 0: halves


@pytest.mark.parametrize("weights", [[1.0], [1, -1], [0, 0]])
def test_impossible_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="expected one weight for each of 2 teachers, not negative and not all 0"):
        TeacherDiscriminatorTerm([Linear(), Linear()], teacher_weights=weights)


def test_the_share_of_the_gradient_is_reported() -> None:
    """Three parts from the teacher against one from elsewhere, in the same direction or not."""
    img = torch.zeros([4, 3, 16, 16], requires_grad=True)
    shown = img * 1
    term = TeacherDiscriminatorTerm([Linear(slope=768 * 2)], weight=1)
    collector = training_stats.Collector("Loss/teacher/gradient_share")
    result = term(batch(img=shown))
    assert result is not None
    (result.sum() - shown.sum() / 3).backward()  # the teacher's gradient is -1 per pixel, the rest's is -1/3
    collector.update()
    assert collector["Loss/teacher/gradient_share"] == pytest.approx(0.75)
    torch.testing.assert_close(img.grad, torch.full_like(img, -4 / 3))


def test_reporting_does_not_change_the_gradient() -> None:
    D = tiny.tiny_discriminator()
    img = tiny.images().requires_grad_()
    term = TeacherDiscriminatorTerm([D], weight=0.3)
    result = term(batch(img=img))
    assert result is not None
    (a,) = torch.autograd.grad(result.sum(), img)
    c = torch.zeros([4, 0])
    (b,) = torch.autograd.grad(torch.nn.functional.softplus(-D(img, c)).sum() * 0.3, img)
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("offset", "verdict"), [(5.0, "100 % of the student's images real"), (-5.0, "images fake")])
def test_over_confidence_is_mentioned_once(offset: float, verdict: str, caplog: pytest.LogCaptureFixture) -> None:
    term = TeacherDiscriminatorTerm([Linear(offset=offset).eval(), Linear(slope=0.0, offset=-offset / 100).eval()])
    with caplog.at_level(logging.WARNING):
        for _ in range(SURE_CALLS - 1):
            term(batch())
        assert not caplog.records
        for _ in range(2 * SURE_CALLS):
            term(batch())
    assert len(caplog.records) == 1
    assert verdict in caplog.text


def test_teachers_that_go_on_training_are_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    term = TeacherDiscriminatorTerm([Linear(offset=5.0).train()])
    for _ in range(SURE_CALLS):
        term(batch())
    assert not caplog.records


def test_dynamic_weights_of_teachers_that_are_all_convinced() -> None:
    term = TeacherDiscriminatorTerm([Linear(offset=200), Linear(offset=200)], weight=1, teacher_weights="dynamic")
    assert torch.equal(term(batch()), torch.zeros([4]))


def test_a_teacher_in_doubt_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    term = TeacherDiscriminatorTerm([Linear(slope=100.0).eval()])
    signs: Any = [term(batch(img=tiny.images(seed=seed))) for seed in range(SURE_CALLS)]
    assert len(signs) == SURE_CALLS
    assert not caplog.records
