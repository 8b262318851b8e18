"""Slices of StyleGAN3 generators: channels that do nothing, gains, widths, and arithmetic to the last digit."""
import copy
from fractions import Fraction
from typing import Any

import pytest
import torch

from dgl import prune, widths
from dgl.architectures import costs_of, plan_of
from dgl.architectures.stylegan3 import filter_macs
from dgl.scores import NAMES, diversity
from dgl.scores.registry import ScoreOptions, compute
from dnnlib.errors import UserError
from tests.training.test_networks_stylegan3 import R_OPTIONS, meta, tiny
from torch_utils import misc

# Multiply-accumulates of configurations T and R at 256, 512 and 1024 px, latents of 512 and two mapping layers:
# convolutions, input layer, dense layers, and filters.
TOTALS = {
    (256, "t"): (231_432_893_952, 341_065_728, 3_687_936, 6_831_161_856),
    (512, "t"): (272_193_431_160, 341_065_728, 3_334_656, 12_585_045_504),
    (1024, "t"): (285_223_303_824, 341_065_728, 3_058_688, 22_316_001_792),
    (256, "r"): (99_451_428_864, 1_361_608_704, 6_849_536, 29_844_524_016),
    (512, "r"): (117_784_807_024, 1_361_608_704, 6_142_976, 55_625_225_424),
    (1024, "r"): (123_791_968_064, 1_361_608_704, 5_590_016, 98_307_248_400),
}
KINDS = [{}, {"conv_kernel": 1, "use_radial_filters": True, "c_dim": 3}, {"img_channels": 1, "num_layers": 5}]


@pytest.mark.parametrize(("resolution", "kind"), TOTALS)
def test_multiply_accumulates(resolution: int, kind: str) -> None:
    G = meta(img_resolution=resolution, **(R_OPTIONS if kind == "r" else {}))
    conv, first, dense, filters = TOTALS[resolution, kind]
    costs = {cost.layer: cost for cost in costs_of(G)}
    assert all(cost.macs_in == cost.macs_out for cost in costs.values())
    layers = [costs[f"synthesis.{name}"].macs_in for name in G.synthesis.layer_names]
    assert sum(layers) == conv
    assert costs["synthesis.input"].macs_in == first
    assert sum(cost.macs_in for cost in costs.values()) == conv + first + dense
    assert filter_macs(G) == filters


def silence(G: Any, keep: dict[str, torch.Tensor]) -> None:
    """Sets the outgoing weights of all channels to zero that are not kept."""
    for name, consumers in plan_of(G).consumers.items():
        for consumer in consumers:
            weight = G.get_submodule(consumer.layer).weight
            dropped = torch.ones(weight.shape[1], dtype=torch.bool)
            dropped[keep[name]] = False
            weight.data[:, dropped] = 0


def images(G: Any, num: int = 3) -> torch.Tensor:
    z = torch.randn([num, 8], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    c = torch.eye(3, dtype=torch.float64)[:num] if G.c_dim else None
    return G(z, c, noise_mode="const")


def random_keep(G: Any, width: Fraction = Fraction(1, 2)) -> dict[str, torch.Tensor]:
    plan = plan_of(G)
    return prune.choose(compute("random", G, plan, ScoreOptions(seed=3)), plan.scaled(width))


@pytest.mark.parametrize("kwargs", KINDS)
@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float64, 2e-9), (torch.float32, 2e-5)])
def test_removing_channels_that_do_nothing(kwargs: dict[str, Any], dtype: torch.dtype, allowed: float) -> None:
    G = tiny(channel_base=1024, channel_max=16, **kwargs).to(dtype)
    keep = random_keep(G)
    assert not torch.equal(keep["features"], keep["input"])
    silence(G, keep)
    student: Any = prune.slice_network(G, keep).to(dtype)
    plan = plan_of(G)
    exact = {plan.stable_name(key): value for key, value in prune.slice_state(G.state_dict(), plan, keep).items()}
    for key, tensor in misc.named_params_and_buffers(student):
        tensor.copy_(exact[plan.stable_name(key)])  # with gains of double precision, where that is it
    expected, actual = images(G).double(), images(student).double()
    assert float((actual - expected).abs().max()) <= allowed * float(expected.std())
    last, original = (net.synthesis.get_submodule(net.synthesis.layer_names[-1]) for net in (student, G))
    assert torch.equal(last.magnitude_ema, original.magnitude_ema)


def test_keeping_everything_changes_no_bit() -> None:
    G = tiny()
    keep = {name: torch.arange(size) for name, size in plan_of(G).sets.items()}
    student = prune.slice_network(G, keep)
    assert list(student.state_dict()) == list(G.state_dict())
    assert torch.equal(images(student), images(G))
    assert {**student.init_kwargs} == {**G.init_kwargs}


def test_gain_of_the_input_layer_and_of_the_image() -> None:
    G = tiny(channel_base=1024, channel_max=16)
    student = prune.slice_network(G, random_keep(G, Fraction(1, 4)))
    keep = random_keep(G, Fraction(1, 4))
    expected = G.synthesis.input.weight[keep["input"]][:, keep["features"]] / 2  # sqrt(4 / 16)
    torch.testing.assert_close(student.synthesis.input.weight, expected)
    last, original = (net.synthesis.get_submodule(net.synthesis.layer_names[-1]) for net in (student, G))
    torch.testing.assert_close(last.weight, original.weight[:, keep["L13"]] / 2)
    assert last.in_channels == 4


def test_uniform_widths_are_stock_arguments() -> None:
    G = tiny(channel_base=1024, channel_max=16)
    half = plan_of(G).scaled(Fraction(1, 2))
    student: Any = plan_of(G).build(list(half.values()))
    assert "layer_channels" not in student.init_kwargs
    assert student.synthesis.layer_names[-2].endswith("_8")
    uneven: Any = plan_of(G).build([3, 3, *range(2, 16)])
    assert uneven.init_kwargs["layer_channels"] == [3, *range(2, 16)]
    with pytest.raises(ValueError, match="as many features as input channels, found 3 and 4"):
        plan_of(G).build([3, 4, *range(2, 16)])


def test_half_precision_in_nested_options_is_kept() -> None:
    G = tiny(synthesis_kwargs={"num_fp16_res": 2, "conv_clamp": 9})
    student: Any = plan_of(G).build([4] * 16)
    assert student.synthesis.num_fp16_res == 2
    assert student.synthesis.get_submodule(student.synthesis.layer_names[0]).conv_clamp == 9


@pytest.mark.parametrize("name", [name for name in NAMES if name != "slimming"])  # that one is for StyleGAN2
def test_every_score(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diversity, "PCA_SAMPLES", 50)
    monkeypatch.setattr(diversity, "NUM_DIRECTIONS", 2)
    G = tiny()
    before = copy.deepcopy(G.state_dict())
    scores = compute(name, G, plan_of(G), ScoreOptions(seed=1, num_samples=1))
    assert {key: len(score) for key, score in scores.items()} == plan_of(G).sets
    student = prune.slice_network(G, prune.choose(scores, plan_of(G).scaled(Fraction(1, 2))))
    assert images(student).isfinite().all()
    assert all(torch.equal(value, before[key]) for key, value in G.state_dict().items())


def test_slimming_is_for_stylegan2() -> None:
    with pytest.raises(UserError, match=r"^score: slimming is for StyleGAN2 generators, found a training\.networks_st"):
        compute("slimming", tiny(), plan_of(tiny()), ScoreOptions(num_samples=1))


def test_a_set_that_is_wanted_wider_follows_the_input() -> None:
    plan = plan_of(tiny())
    assert plan.fit({**plan.sets, "features": 1})["features"] == plan.sets["input"]
    assert widths.scaled(plan.sets, Fraction(1, 2))["L0"] == plan.sets["L0"] // 2
