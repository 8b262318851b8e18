"""Optimizers, phases, gradients that are not finite, the moving average."""
import math
from typing import Any

import pytest
import torch

from torch_utils import gradient_guard
from torch_utils.gradient_guard import GradientGuard
from training.ema import ema_beta, update_ema
from training.loss import Phase
from training.optimization import make_phases, optimizers, step
from training.run_config import OPTIMIZERS

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _sgd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain gradient descent is known here, because its steps can be worked out by hand."""
    known = {name: name for name in ("torch.optim.Adam", "torch.optim.SGD")}
    monkeypatch.setattr(OPTIMIZERS, "_entries", known)
ADAM = {"class_name": "torch.optim.Adam", "betas": [0.0, 0.99], "eps": 1e-8}


# The published table of lazily regularised training.
@pytest.mark.parametrize(
    ("interval", "lr", "expected_lr", "expected_beta"),
    [(4, 0.0025, 0.002, 0.9919919678), (4, 0.002, 0.0016, 0.9919919678), (16, 0.0025, 0.0023529412, 0.9905854573),
     (16, 0.002, 0.0018823529, 0.9905854573), (None, 0.002, 0.002, 0.99)],
)
def test_learning_rates_and_betas(interval: int | None, lr: float, expected_lr: float, expected_beta: float) -> None:
    phases = make_phases("G", torch.nn.Linear(2, 2), {**ADAM, "lr": lr}, interval)
    (opt,) = optimizers(phases)
    assert isinstance(opt, torch.optim.Adam)
    assert opt.defaults["lr"] == pytest.approx(expected_lr, rel=1e-7)
    assert opt.defaults["betas"] == (0.0, pytest.approx(expected_beta, rel=1e-9))
    assert [type(beta) for beta in opt.defaults["betas"]] == [float, float]
    assert opt.defaults["eps"] == 1e-8
    names = [("Gboth", 1)] if interval is None else [("Gmain", 1), ("Greg", interval)]
    assert [(phase.name, phase.interval) for phase in phases] == names


def test_arguments_of_the_optimizer_are_not_changed() -> None:
    options = {**ADAM, "lr": 1.0, "betas": [0, 0.5]}
    make_phases("D", torch.nn.Linear(2, 2), options, 16)
    assert options == {**ADAM, "lr": 1.0, "betas": [0, 0.5]}
    (phase,) = make_phases("D", torch.nn.Linear(2, 2), {"class_name": "torch.optim.SGD", "lr": 1.0}, None)
    assert isinstance(phase.opt, torch.optim.SGD)


def linear() -> tuple[torch.nn.Linear, Phase]:
    """A layer of weights 1 and bias 0, and plain gradient descent on it."""
    module = torch.nn.Linear(3, 1)
    module.weight.data.fill_(1)
    module.bias.data.fill_(0)
    return module, make_phases("D", module, {"class_name": "torch.optim.SGD", "lr": 1.0}, None)[0]


def test_gradients_that_are_not_finite() -> None:
    module, phase = linear()
    guard = GradientGuard(CPU)
    module.weight.grad = torch.tensor([[math.nan, math.inf, -math.inf]])
    module.bias.grad = torch.tensor([0.5])
    step(phase, guard)
    assert module.weight.tolist() == [[1, 1 - 1e5, 1 + 1e5]]
    assert module.bias.tolist() == [-0.5]
    assert int(guard.steps) == 1
    module.weight.grad = torch.ones(1, 3)
    step(phase, guard)
    assert int(guard.steps) == 1


def test_steps_in_a_row_are_counted_for_each_phase() -> None:
    guard = GradientGuard(CPU)
    good, bad = torch.ones(2), torch.tensor([1, math.nan])
    for _ in range(3):  # the generator is broken, the discriminator in between is not
        guard.clean_(bad.clone(), "Gmain")
        guard.clean_(good.clone(), "Dmain")
    assert int(guard.steps) == 3
    assert guard.take_longest() == 3
    assert guard.take_longest() == 0
    guard.clean_(bad.clone(), "Gmain")
    assert guard.take_longest() == 4
    guard.clean_(good.clone(), "Gmain")
    guard.clean_(bad.clone(), "Gmain")
    assert guard.take_longest() == 1
    assert int(guard.steps) == 5


def test_state_of_the_guard() -> None:
    guard = GradientGuard(CPU)
    for _ in range(2):
        guard.clean_(torch.tensor([math.nan]), "Gmain")
    state = guard.state_dict()
    again = GradientGuard(CPU)
    again.load_state_dict(state)
    for each in (again, guard):
        each.clean_(torch.tensor([math.nan]), "Gmain")
        assert int(each.steps) == 3
        assert each.take_longest() == 3
    assert int(state["steps"]) == 2


def test_parameters_outside_the_loss_have_gradient_zero() -> None:
    """As where the whole output takes part with weight 0: Adam counts the step and lets the moments decay."""
    module = torch.nn.Linear(3, 1)
    (phase,) = make_phases("D", module, {**ADAM, "lr": 0.1}, None)
    module(torch.ones(1, 3)).sum().backward()
    step(phase, GradientGuard(CPU))
    before, moment = module.bias.clone(), phase.opt.state[module.bias]["exp_avg_sq"].clone()
    phase.opt.zero_grad(set_to_none=True)
    module.weight.sum().backward()
    step(phase, GradientGuard(CPU))
    assert torch.equal(module.bias, before)
    assert torch.allclose(phase.opt.state[module.bias]["exp_avg_sq"], 0.99 * moment)
    assert int(phase.opt.state[module.bias]["step"]) == 2


def test_a_phase_without_loss_takes_no_step() -> None:
    module = torch.nn.Linear(3, 1)
    (phase,) = make_phases("D", module, {**ADAM, "lr": 0.1}, None)
    module(torch.ones(1, 3)).sum().backward()
    step(phase, GradientGuard(CPU))
    before = module.weight.clone()
    phase.opt.zero_grad(set_to_none=True)
    step(phase, GradientGuard(CPU))
    assert torch.equal(module.weight, before)
    assert int(phase.opt.state[module.weight]["step"]) == 1


@pytest.mark.parametrize(
    ("batch", "kimg", "rampup", "cur_nimg", "expected"),
    [(32, 10, None, 0, 0.5 ** (32 / 10000)), (64, 20, None, 10**6, 0.5 ** (64 / 20000)),
     (32, 10, 0.05, 0, 0.0), (32, 10, 0.05, 20000, 0.5 ** (32 / 1000)), (32, 10, 0.05, 10**6, 0.5 ** (32 / 10000)),
     (64, 500, 0.05, 64, 0.5 ** (64 / 3.2))],
)
def test_weight_of_the_moving_average(
    batch: int, kimg: float, rampup: float | None, cur_nimg: int, expected: float
) -> None:
    assert ema_beta(batch, kimg, rampup, cur_nimg) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("cur_nimg", "half_life"), [(0, None), (999, 500), (5000, 500), (9000, 700), (105000, 2000)])
def test_the_half_life_of_the_average_can_grow_later(cur_nimg: int, half_life: float | None) -> None:
    beta = ema_beta(16, 0.5, None, cur_nimg, start_kimg=0.1, later_start_kimg=5, later_kimg=2)
    assert beta == (0.0 if half_life is None else pytest.approx(0.5 ** (16 / half_life), rel=1e-12))


def test_a_growing_half_life_never_falls() -> None:
    assert ema_beta(16, 3, None, 10**6, later_start_kimg=5, later_kimg=2) == ema_beta(16, 3, None, 10**6)


class Net(torch.nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.p = torch.nn.Parameter(torch.full([3], value))
        self.register_buffer("b", torch.full([2], value))


def test_moving_average() -> None:
    average: Any = Net(3.0)
    update_ema(average, Net(1.0), 0.75)
    assert torch.allclose(average.p, torch.full([3], 1 + 0.75 * 2))
    assert torch.equal(average.b, torch.ones(2))
    update_ema(average, Net(1.0), 0.0)
    assert torch.equal(average.p, torch.ones(3))


def test_optimizers_appear_once() -> None:
    phases = [*make_phases("G", torch.nn.Linear(1, 1), {**ADAM, "lr": 1.0}, 4),
              *make_phases("D", torch.nn.Linear(1, 1), {**ADAM, "lr": 1.0}, None)]
    assert optimizers(phases) == [phases[0].opt, phases[2].opt]
    assert gradient_guard.GRADIENT_LIMIT == 1e5
