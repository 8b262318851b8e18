"""training_stats: moments against numpy, several collectors, exact continuation."""
import io
import math

import numpy as np
import pytest
import torch

import dnnlib
from torch_utils import training_stats
from torch_utils.training_stats import Collector, report, report0


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Each test has counters of its own."""
    monkeypatch.setattr(training_stats, "_counters", training_stats._Counters())


def test_moments_against_numpy():
    collector = Collector()
    values = np.random.RandomState(0).randn(1000)
    for part in np.split(values, 10):
        report("a", part)
    collector.update()
    assert collector.num("a") == 1000
    assert collector.mean("a") == collector["a"] == pytest.approx(values.mean(), abs=1e-7)
    assert collector.std("a") == pytest.approx(values.std(), rel=1e-6)


@pytest.mark.parametrize(
    "value", [3, 3.0, [3, 3], np.float64(3), np.int32(3), torch.tensor([[3, 3]]), torch.tensor(3, dtype=torch.float16)]
)
def test_report_takes_anything_and_returns_it(value):
    collector = Collector()
    assert report("a", value) is value
    collector.update()
    assert collector["a"] == 3
    assert collector.std("a") == 0


def test_gradients_are_left_alone():
    x = torch.ones(2, requires_grad=True)
    loss = (x * 3).sum()
    assert report("loss", loss).requires_grad
    loss.backward()
    assert x.grad.tolist() == [3, 3]


def test_accumulates_in_float64():
    collector = Collector()
    for _ in range(100):
        report("a", 1e8)
        report("a", 1.0)
    collector.update()
    assert collector["a"] == (1e8 + 1) / 2


def test_empty_value_only_makes_the_name_known():
    collector = Collector()
    report("a", [])
    collector.update()
    assert collector.names() == ["a"]
    assert collector.num("a") == 0
    assert math.isnan(collector.mean("a"))
    assert math.isnan(collector.std("a"))


def test_names_in_order_and_regex():
    report("b/x", 1)
    report("a", 2)
    report("b/y", 3)
    assert Collector().names() == ["b/x", "a", "b/y"]
    collector = Collector("b/.*")
    assert collector.names() == ["b/x", "b/y"]
    assert Collector("b").names() == []  # the whole name must match
    with pytest.raises(AssertionError, match="'a' is not among the names of this collector"):
        collector.mean("a")


def test_making_a_collector_discards_what_was_before():
    report("a", 100)
    collector = Collector()
    report("a", 1)
    collector.update()
    assert (collector.num("a"), collector["a"]) == (1, 1)


def test_nothing_counts_before_the_update():
    collector = Collector()
    report("a", 1)
    assert collector.num("a") == 0
    collector.update()
    assert collector.num("a") == 1


@pytest.mark.parametrize(("keep_previous", "expected"), [(True, 1), (False, 0)])
def test_keep_previous(keep_previous, expected):
    collector = Collector(keep_previous=keep_previous)
    report("a", 5)
    collector.update()
    collector.update()
    assert collector.num("a") == expected
    report("a", 7)
    collector.update()
    assert collector["a"] == 7


def test_collectors_do_not_disturb_each_other():
    often, seldom, other = Collector(), Collector("a"), Collector("b")
    for i in range(6):
        report("a", i)
        report("b", 10 * i)
        often.update()
        assert (often["a"], often["b"]) == (i, 10 * i)
        assert often.num("a") == 1
    seldom.update()
    assert (seldom.num("a"), seldom["a"]) == (6, 2.5)
    other.update()
    assert (other.num("b"), other["b"]) == (6, 25)


def test_one_bad_value_does_not_spoil_later_updates():
    collector = Collector()
    report("a", [1, float("nan")])
    report("b", [1, float("inf")])
    collector.update()
    assert math.isnan(collector["a"])
    assert math.isnan(collector.std("a"))
    assert collector["b"] == math.inf
    assert math.isnan(collector.std("b"))
    report("a", 2)
    report("b", 3)
    collector.update()
    assert (collector["a"], collector["b"]) == (2, 3)


def test_as_dict():
    collector = Collector()
    report("x", [1, 2, 3])
    report("y", [])
    collector.update()
    result = collector.as_dict()
    assert type(result) is type(result.x) is dnnlib.EasyDict
    assert result.x.num == 3
    assert type(result.x.num) is int
    assert (result.x.mean, result.x.std) == (2, pytest.approx(math.sqrt(2 / 3)))
    assert math.isnan(result.y.mean)


def test_report0_counts_on_rank_0_only():
    training_stats.init_multiprocessing(rank=1, sync_device=None)
    collector = Collector()
    assert report0("a", 5) == 5
    report("b", 6)
    collector.update()
    assert (collector.num("a"), collector.num("b")) == (0, 1)
    with pytest.raises(AssertionError, match="init_multiprocessing comes before the first Collector"):
        training_stats.init_multiprocessing(rank=0, sync_device=None)


def test_state_continues_exactly(monkeypatch):
    values = torch.rand(50, generator=torch.Generator().manual_seed(0))

    def make():
        monkeypatch.setattr(training_stats, "_counters", training_stats._Counters())
        return Collector(), Collector("a", keep_previous=False)

    def play(collectors, steps):
        for i in steps:
            report("a" if i % 3 else "b", values[i])
            if i % 4 == 0:
                collectors[0].update()
            if i % 7 == 0:
                collectors[1].update()

    def results(collectors):
        play(collectors, range(20, 50))
        return [collector.as_dict() for collector in collectors]

    collectors = make()
    play(collectors, range(50))
    unbroken = [collector.as_dict() for collector in collectors]

    collectors = make()
    play(collectors, range(20))
    file = io.BytesIO()
    torch.save([training_stats.get_state(), *(c.state_dict() for c in collectors)], file)
    assert results(collectors) == unbroken  # taking the state changes nothing

    collectors = make()
    report("z", 3)
    file.seek(0)
    state, *states = torch.load(file, weights_only=True)
    training_stats.set_state(state)
    for collector, saved in zip(collectors, states, strict=True):
        collector.load_state_dict(saved)
    assert results(collectors) == unbroken
