"""Every score on every architecture: channels that do nothing score 0, are cut, and the cut changes nothing."""
from fractions import Fraction
from typing import Any

import pytest
import torch

from dgl import prune, widths
from dgl.architectures import plan_of
from dgl.scores import DISCRIMINATOR_SCORES, NAMES, diversity
from dgl.scores.registry import ScoreOptions, compute
from dgl.student import Cut, slice_student
from dgl.teacher import Teacher
from tests import tiny
from tests.dgl.test_prune import INVARIANCE, difference, run, silence, sliced

BLIND = ("first", "random")  # scores that do not look at the weights
KINDS = [
    pytest.param({"architecture": architecture, "c_dim": c_dim, "channels": channels}, id=f"{architecture}-{c_dim}")
    for architecture in ("skip", "resnet", "orig") for c_dim, channels in ((0, 3), (3, 1))
] + [pytest.param({"resolution": 4}, id="4px"), pytest.param({"resolution": 32}, id="32px")]


@pytest.mark.parametrize("kwargs", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_cutting_channels_that_do_nothing_changes_nothing(
    name: str, kwargs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diversity, "PCA_SAMPLES", 100)
    monkeypatch.setattr(diversity, "NUM_DIRECTIONS", 2)
    G = tiny.tiny_generator(**kwargs)
    plan, options = plan_of(G), ScoreOptions(seed=1, num_samples=1)
    half = widths.scaled(plan.sets, Fraction(1, 2))
    keep = prune.choose(compute("random" if name not in BLIND else name, G, plan, options), half)
    silence(G, plan, keep)
    scores = compute(name, G, plan, options)
    assert all(torch.equal(kept, keep[key]) for key, kept in prune.choose(scores, half).items())
    if name not in BLIND:
        for key, score in scores.items():
            dropped = torch.ones(len(score), dtype=torch.bool)
            dropped[keep[key]] = False
            assert not score[dropped].any()
            assert (score[keep[key]] > 0).all()
    G = G.double()
    assert difference(run(sliced(G, keep)), run(G)) <= INVARIANCE


@pytest.mark.parametrize("name", NAMES)
def test_every_score_can_be_asked_for_together_with_a_narrow_discriminator(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diversity, "PCA_SAMPLES", 100)
    nets = tiny.tiny_networks()
    teacher = Teacher("t.pkl", "0", nets["G"], nets["G_ema"], nets["D"], None)
    half = Fraction(1, 2)
    result = slice_student(teacher, Cut(half, name, num_samples=1), half)
    assert result.D.b8.conv0.weight.shape[0] == 8
    assert torch.isfinite(result.D(tiny.images(), None)).all()


@pytest.mark.parametrize("name", DISCRIMINATOR_SCORES)
def test_scores_of_discriminators(name: str) -> None:
    D = tiny.tiny_discriminator()
    result = compute(name, D, plan_of(D), ScoreOptions())
    assert {key: len(score) for key, score in result.items()} == plan_of(D).sets
