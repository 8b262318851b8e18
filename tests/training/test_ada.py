"""The augmentation controller: the formula, its bounds, its warnings, and exact continuation."""
import logging
import math

import pytest
import torch

from torch_utils import training_stats
from training.ada import COLLAPSE_UPDATES, KIMG_TRANSFER, SIGNS, AdaController
from training.augment import AugmentPipe

UNIT = 64 * 4 / 500_000  # p per update with the defaults and a batch of 64


def controller(p: float = 0, **kwargs) -> AdaController:
    pipe = AugmentPipe(xflip=1)
    pipe.p.fill_(p)
    return AdaController(pipe, **{"target": 0.6, "batch_size": 64, **kwargs})


def feed(ada: AdaController, mean_sign: float, updates: int = 1) -> None:
    """Reports signs with this mean (a multiple of 0.02), then lets the controller act."""
    positive = round(50 * (1 + mean_sign))
    for _ in range(updates):
        training_stats.report(SIGNS, torch.tensor([1.0] * positive + [-1.0] * (100 - positive)))
        assert ada.step(batch_idx=ada.interval)


@pytest.mark.parametrize(("mean_sign", "direction"), [(0.9, 1), (0.6, 0), (0.2, -1), (-0.4, -1)])
def test_p_moves_by_a_fixed_step_towards_the_target(mean_sign, direction):
    ada = controller(p=0.5)
    feed(ada, mean_sign)
    assert ada.r_t == pytest.approx(mean_sign, abs=1e-6)
    if direction == 0:  # the mean of 0.6 in floating point may lie on either side
        assert abs(ada.p - 0.5) < 1.01 * UNIT
    else:
        assert ada.p == pytest.approx(0.5 + direction * UNIT, abs=1e-7)
    assert ada.augment_pipe.p.item() == ada.p


def test_the_pace_is_one_per_ada_kimg():
    slow, fast = controller(), controller(ada_kimg=KIMG_TRANSFER)
    assert slow.step_p == pytest.approx(UNIT)
    assert fast.step_p == pytest.approx(5 * UNIT)
    updates_per_500_kimg = 500_000 / (64 * slow.interval)
    assert slow.step_p * updates_per_500_kimg == pytest.approx(1)


def test_only_every_fourth_iteration():
    ada = controller()
    training_stats.report(SIGNS, torch.ones([8]))
    assert [ada.step(batch_idx) for batch_idx in range(1, 9)] == [False, False, False, True] * 2
    assert controller(interval=1).step(1)


def test_signs_since_the_last_update_count():
    ada = controller()
    feed(ada, 1.0)
    feed(ada, -1.0)
    assert ada.r_t == pytest.approx(-1)
    other = controller()  # what was reported before a controller existed is not its business
    feed(other, 0.5)
    assert other.r_t == pytest.approx(0.5, abs=0.011)


def test_p_stays_between_zero_and_the_maximum():
    ada = controller(p=0, ada_kimg=0.5)  # half a unit of p per update
    feed(ada, -1.0)
    assert ada.p == 0
    feed(ada, 1.0, updates=5)
    assert ada.p == 1
    ada = controller(p=0.3, ada_kimg=0.5, max_p=0.4)
    feed(ada, 1.0)
    assert ada.p == pytest.approx(0.4)


def test_without_a_report_nothing_moves():
    ada = controller(p=0.25)
    assert ada.step(4)
    assert math.isnan(ada.r_t)
    assert ada.p == 0.25


def test_high_p_is_warned_of_once(caplog):
    ada = controller(p=0.79, ada_kimg=10)
    feed(ada, 1.0, updates=4)
    (record,) = [r for r in caplog.records if "leak" in r.message]
    assert record.levelno == logging.WARNING
    assert "ada_max" in record.message
    assert record.message.startswith("augmentation p has reached 0.8")


def test_low_p_is_not_warned_of(caplog):
    feed(controller(p=0.7), 1.0, updates=2)
    assert not caplog.records


def test_collapse_is_a_saturated_sign_for_a_while_at_the_maximum(caplog):
    ada = controller(p=1)
    feed(ada, 1.0, updates=COLLAPSE_UPDATES - 1)
    assert not ada.collapsed
    feed(ada, 0.9)  # one good update starts the count again
    feed(ada, 1.0, updates=COLLAPSE_UPDATES - 1)
    assert not ada.collapsed
    feed(ada, 1.0)
    assert ada.collapsed
    feed(ada, 1.0)
    (record,) = [r for r in caplog.records if "collapsing" in r.message]
    assert "mean sign" in record.message
    assert "maximum of 1" in record.message
    feed(ada, 0.0)
    assert not ada.collapsed


def test_collapse_is_seen_at_a_maximum_that_is_not_a_binary_fraction():
    ada = controller(p=0.3, max_p=0.3)
    feed(ada, 1.0, updates=COLLAPSE_UPDATES)
    assert ada.collapsed


def test_saturation_below_the_maximum_is_no_collapse(caplog):
    ada = controller(p=0.1)
    feed(ada, 1.0, updates=COLLAPSE_UPDATES + 1)
    assert not ada.collapsed
    assert not caplog.records


def test_continuing_from_a_state_changes_nothing(caplog):
    ada = controller(p=0.799, ada_kimg=100)
    feed(ada, 1.0, updates=3)
    training_stats.report(SIGNS, torch.ones([10]))  # reported, not yet seen by the controller
    state, stats = ada.state_dict(), training_stats.get_state()
    feed(ada, -0.2)
    caplog.clear()

    resumed = controller(ada_kimg=100)
    training_stats.set_state(stats)
    resumed.load_state_dict(state)
    assert resumed.p == state["p"]
    feed(resumed, -0.2)
    assert resumed.p == ada.p
    assert resumed.r_t == ada.r_t
    assert resumed.state_dict()["saturated_updates"] == ada.state_dict()["saturated_updates"]
    assert not caplog.records  # already warned before


def test_the_state_is_plain(tmp_path):
    ada = controller(p=0.5)
    feed(ada, 1.0)
    torch.save(ada.state_dict(), tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    assert loaded["p"] == ada.p


@pytest.mark.parametrize("kwargs", [{"max_p": 0}, {"ada_kimg": 0}, {"interval": 0}, {"batch_size": 0}])
def test_values_that_make_no_sense(kwargs):
    with pytest.raises(ValueError, match="must be positive, found"):
        controller(**kwargs)


def test_a_target_outside_its_range():
    with pytest.raises(ValueError, match=r"expected a target in \[0, 1\], found 1.5"):
        controller(target=1.5)
