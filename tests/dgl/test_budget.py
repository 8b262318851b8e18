"""Widths from a budget, channels that compete across layers, and SVS."""
import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import prune_init
from dgl import budget, prune, refine
from dgl import cost as dgl_cost
from dgl.architectures import plan_of
from dgl.scores.registry import ScoreOptions, compute
from dgl.student import Cut, keep_lists, macs_in, resized
from dgl.widths import scaled
from dnnlib.errors import UserError
from tests import tiny


def count(network: Any) -> int:
    return sum(p.numel() for p in network.parameters())


def test_candidates_are_all_widths_at_which_something_changes() -> None:
    sets = {"a": 4, "b": 6}
    widths = budget.candidate_widths(sets)
    assert widths == [Fraction(n, 12) for n in (2, 4, 6, 8, 9, 10, 12)]
    noted = [tuple(scaled(sets, w).values()) for w in widths]
    assert len(set(noted)) == len(noted)
    assert tuple(scaled(sets, widths[3] - Fraction(1, 1000)).values()) == noted[2]


@pytest.mark.parametrize("architecture", ["skip", "resnet"])
@pytest.mark.parametrize("cost", [macs_in, count])
def test_the_largest_width_within_a_budget(cost: Any, architecture: str) -> None:
    G = tiny.tiny_generator(architecture)
    plan = plan_of(G)
    target = 0.4 * cost(G)
    width = budget.largest_width(plan, cost, target, "--target")
    wider = next(w for w in budget.candidate_widths(plan.sets) if w > width)
    assert cost(resized(G, width)) <= target < cost(resized(G, wider))
    assert budget.largest_width(plan, cost, cost(G), "--target") == 1
    assert budget.largest_width(plan, cost, 10 * cost(G), "--target") == 1


def test_an_impossible_budget_is_refused() -> None:
    G = tiny.tiny_generator()
    with pytest.raises(UserError, match=r"--target-params: even the narrowest network costs .*, more than 10 "):
        budget.largest_width(plan_of(G), count, 10, "--target-params")


def test_thinned_keeps_the_last() -> None:
    widths = [Fraction(k, 100) for k in range(1, 101)]
    few = budget.thinned(widths, 10)
    assert len(few) == 10
    assert few[-1] == 1
    assert set(few) <= set(widths)
    assert budget.thinned(widths, 1000) == widths


def test_channels_compete_across_layers() -> None:
    """A set with two strong channels keeps those and its floor, one of equal channels keeps more."""
    G = tiny.tiny_generator()
    plan = plan_of(G)
    scores = {name: torch.ones([size], dtype=torch.float64) for name, size in plan.sets.items()}
    scores["b8.conv0"] = torch.tensor([100.0, 100.0] + [1e-6] * 14, dtype=torch.float64)
    half = Fraction(1, 2)
    target = macs_in(resized(G, half))
    widths = budget.global_widths(plan, scores, macs_in, target, half)
    floors = scaled(plan.sets, half / 4)
    assert all(floors[name] <= widths[name] <= plan.sets[name] for name in plan.sets)
    assert widths["b8.conv0"] == 2
    assert macs_in(plan.build(list(widths.values()))) <= target


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_a_cut_across_layers_costs_no_more_and_works(architecture: str) -> None:
    G = tiny.tiny_generator(architecture, c_dim=3)
    keep = keep_lists(G, Cut(Fraction(1, 2), "l1", num_samples=8, across_layers=True))
    student = prune.slice_network(G, keep)
    assert macs_in(student) <= macs_in(resized(G, Fraction(1, 2)))
    assert len({len(kept) for kept in keep.values()}) > 2  # not uniform
    z, c = tiny.latents(c_dim=3)
    assert student(z, c).shape == (4, 3, 16, 16)
    scores = compute("l1", G, plan_of(G), ScoreOptions(num_samples=8))
    for name, kept in keep.items():
        dropped = [i for i in range(len(scores[name])) if i not in kept.tolist()]
        if dropped:
            assert scores[name][kept].min() >= scores[name][dropped].max()


def test_svs_takes_square_roots_of_singular_values() -> None:
    G = tiny.tiny_generator("resnet")
    before = {name: p.clone() for name, p in G.named_parameters()}
    refine.svs(G)
    for name, p in G.named_parameters():
        convolution = name.endswith(("conv0.weight", "conv1.weight"))
        if not convolution:
            assert torch.equal(p, before[name]), name
            continue
        old = torch.linalg.svdvals(before[name].flatten(1).double())
        new = torch.linalg.svdvals(p.flatten(1).double())
        torch.testing.assert_close(new / new[0], (old / old[0]).sqrt(), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(p.norm(), before[name].norm())


def test_a_budget_of_milliseconds_uses_measured_times(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a clock that takes a millisecond for every 100,000 multiply-accumulates."""
    monkeypatch.setattr(dgl_cost, "milliseconds_per_image", lambda network, device, batch: macs_in(network) / 1e5)
    teacher, dest = tiny.write_teacher(tmp_path / "t.pkl"), tmp_path / "s.pkl"
    args = [f"--teacher={teacher}", "--target-ms=2", "--score=first", "--no-latency", f"--dest={dest}"]
    result = CliRunner().invoke(prune_init.main, args)
    assert result.exit_code == 0, result.output
    record = json.loads(dest.with_suffix(".cost.json").read_text())
    assert 1.5 < record["costs"][1]["macs_in"] / 1e5 <= 2 < record["costs"][0]["macs_in"] / 1e5


@pytest.mark.unrecorded
def test_a_student_that_turns_out_slower_than_its_budget_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On a machine that is slower from the first pass with eight images on: once the width has been chosen."""
    batches = []

    def measured(network: Any, device: str, batch: int) -> float:
        batches.append(batch)
        return macs_in(network) / 1e5 + (3 if 8 in batches else 0)

    monkeypatch.setattr(dgl_cost, "milliseconds_per_image", measured)
    teacher, dest = tiny.write_teacher(tmp_path / "t.pkl"), tmp_path / "s.pkl"
    args = [f"--teacher={teacher}", "--target-ms=2", "--score=first", f"--dest={dest}"]
    result = CliRunner().invoke(prune_init.main, args)
    assert result.exit_code == 0, result.output
    assert re.search(r"Warning: the student now takes \d\.\d+ ms, more than --target-ms=2: times vary", result.stderr)
