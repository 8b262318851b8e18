"""Slicing: which tensors are cut and how, and that removing channels that do nothing changes nothing."""
import copy
import dataclasses
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dgl import prune, widths
from dgl.architectures import plan_of
from dgl.plan import Axis, Plan, Rule
from dnnlib.errors import UserError
from tests import tiny
from training import networks
from training.checkpoints import widths as stock

INVARIANCE = 1e-12  # relative, in float64
ARCHITECTURES = ["skip", "resnet", "orig"]


def random_keep(plan: Plan, whole: tuple[str, ...] = (), seed: int = 0) -> dict[str, torch.Tensor]:
    """About two thirds of every set, another number in each; sets named in `whole` are kept."""
    rng = np.random.RandomState(seed)
    keep = {}
    for name, size in plan.sets.items():
        count = size if name in whole else max(1, size * rng.randint(4, 9) // 12)
        keep[name] = torch.from_numpy(np.sort(rng.permutation(size)[:count]))
    return keep


def silence(network: Any, plan: Plan, keep: dict[str, torch.Tensor]) -> None:
    """Makes the outgoing weights of all channels that are not kept zero."""
    for name, size in plan.sets.items():
        dropped = torch.ones(size, dtype=torch.bool)
        dropped[keep[name]] = False
        for consumer in plan.consumers[name]:
            weight = network.get_submodule(consumer.layer).weight
            repeat = plan.rules[f"{consumer.layer}.weight"].axes[1].repeat
            entries = dropped.repeat_interleave(repeat).nonzero()[:, 0]
            weight.data[:, entries] = 0


def run(network: Any) -> torch.Tensor:
    """The network's output in float64."""
    with tiny.double_precision(), torch.no_grad():
        if hasattr(network, "z_dim"):
            z, c = tiny.latents(c_dim=network.c_dim)
            return network(z.double(), c.double(), noise_mode="const")
        _, c = tiny.latents(c_dim=network.c_dim)
        return network(tiny.images(4, network.img_resolution, network.img_channels).double(), c.double())


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    assert a.dtype == b.dtype == torch.float64
    return float((a - b).abs().max() / b.abs().max())


GENERATORS = [
    pytest.param({"architecture": architecture, "c_dim": c_dim}, id=f"{architecture}-{c_dim}")
    for architecture in ARCHITECTURES for c_dim in (0, 3)
] + [
    pytest.param({"resolution": 4}, id="4px"),
    pytest.param({"architecture": "resnet", "resolution": 4}, id="4px-resnet"),
    pytest.param({"channels": 1, "resolution": 8, "use_noise": False}, id="grey-without-noise"),
    pytest.param({"layer_channels": [5, 9, 7, 12, 3, 8]}, id="uneven"),
    pytest.param({"conv_clamp": 0.5}, id="clamp"),
]
DISCRIMINATORS = [
    pytest.param({"architecture": architecture, "c_dim": c_dim}, id=f"{architecture}-{c_dim}")
    for architecture in ARCHITECTURES for c_dim in (0, 3)
] + [
    pytest.param({"channels": 1, "resolution": 8}, id="grey"),
    pytest.param({"layer_channels": [5, 9, 7, 12, 6, 8, 11]}, id="uneven"),
    pytest.param({"block_kwargs": {"freeze_layers": 3}}, id="frozen"),
    pytest.param({"epilogue_kwargs": {"mbstd_num_channels": 0}}, id="without-mbstd"),
    pytest.param({"epilogue_kwargs": {"mbstd_num_channels": 4, "mbstd_group_size": 2}}, id="four-statistics"),
]


def feeds_minibatch_std(D: Any, plan: Plan) -> tuple[str, ...]:
    """The set over whose channels the minibatch standard deviation averages."""
    if D.b4.mbstd is None:
        return ()
    return tuple(name for name in plan.sets if any(c.layer == "b4.conv" for c in plan.consumers[name]))


def silenced(network: Any) -> tuple[Any, Plan, dict[str, torch.Tensor]]:
    network = network.double()
    plan = plan_of(network)
    whole = () if hasattr(network, "z_dim") else feeds_minibatch_std(network, plan)
    keep = random_keep(plan, whole)
    silence(network, plan, keep)
    return network, plan, keep


def make(kind: str, kwargs: dict[str, Any]) -> Any:
    return tiny.tiny_generator(**kwargs) if kind == "G" else tiny.tiny_discriminator(**kwargs)


def sliced(network: Any, keep: dict[str, torch.Tensor]) -> Any:
    """`slice_network` of a float64 network; the narrow one is float64 as well and exact."""
    plan = plan_of(network)
    state = prune.slice_state({**dict(network.named_parameters()), **dict(network.named_buffers())}, plan, keep)
    narrow = prune.slice_network(network, keep).double()
    for name, tensor in [*narrow.named_parameters(), *narrow.named_buffers()]:
        assert torch.equal(tensor, state[name].float().double()), name
        tensor.data.copy_(state[name])  # gains at full precision
    return narrow


@pytest.mark.parametrize("kwargs", GENERATORS)
def test_removing_silent_channels_of_a_generator_changes_nothing(kwargs: dict[str, Any]) -> None:
    G, plan, keep = silenced(make("G", kwargs))
    narrow = sliced(G, keep)
    assert all(len(keep[name]) < size for name, size in plan.sets.items())
    assert difference(run(narrow), run(G)) <= INVARIANCE


@pytest.mark.parametrize("kwargs", DISCRIMINATORS)
def test_removing_silent_channels_of_a_discriminator_changes_nothing(kwargs: dict[str, Any]) -> None:
    D, plan, keep = silenced(make("D", kwargs))
    narrow = sliced(D, keep)
    whole = feeds_minibatch_std(D, plan)
    assert len(whole) == int(D.b4.mbstd is not None)
    assert all(len(keep[name]) < size for name, size in plan.sets.items() if name not in whole)
    assert difference(run(narrow), run(D)) <= INVARIANCE


GAINS = [
    *[("G", "skip", f"synthesis.b{res}.torgb.weight") for res in (4, 8, 16)],
    ("G", "resnet", "synthesis.b16.torgb.weight"),
    ("G", "orig", "synthesis.b16.torgb.weight"),
    *[("G", "resnet", f"synthesis.b{res}.skip.weight") for res in (8, 16)],
    *[("D", "resnet", f"b{res}.{layer}.weight") for res in (16, 8) for layer in ("conv0", "conv1", "skip")],
    ("D", "orig", "b8.conv0.weight"),
    ("D", "skip", "b16.conv1.weight"),
    ("D", "resnet", "b4.fc.weight"),
    ("D", "resnet", "b4.out.weight"),
]


@pytest.mark.parametrize(("kind", "architecture", "tensor"), GAINS)
def test_every_gain_correction_is_needed(kind: str, architecture: str, tensor: str) -> None:
    network, plan, keep = silenced(make(kind, {"architecture": architecture}))
    reference = run(network)
    assert difference(run(sliced(network, keep)), reference) <= INVARIANCE
    assert plan.rules[tensor].fan_in_gain
    plan.rules[tensor] = dataclasses.replace(plan.rules[tensor], fan_in_gain=False)
    state = prune.slice_state({**dict(network.named_parameters()), **dict(network.named_buffers())}, plan, keep)
    narrow = sliced(network, keep)
    narrow.get_parameter(tensor).data.copy_(state[tensor])
    assert difference(run(narrow), reference) > 1e-3


def test_the_gain_of_b4_conv_counts_the_statistics_channel() -> None:
    D = tiny.tiny_discriminator()
    keep = {name: torch.arange(size) for name, size in plan_of(D).sets.items()}
    keep["b8.conv1"] = torch.tensor([0, 3, 5])
    narrow: Any = prune.slice_network(D, keep)
    assert D.b4.conv.weight.shape[1] == 17
    expected = D.b4.conv.weight[:, [0, 3, 5, 16]] * (4 / 17) ** 0.5
    assert torch.allclose(narrow.b4.conv.weight, expected, rtol=1e-6, atol=0)


def test_gains_are_exactly_the_ratio_of_the_fan_ins() -> None:
    G, D = tiny.tiny_generator(), tiny.tiny_discriminator()
    small_G: Any = prune.slice_network(G, prune.choose(ramp(G), widths.scaled(plan_of(G).sets, Fraction(1, 4))))
    small_D: Any = prune.slice_network(D, prune.choose(ramp(D), widths.scaled(plan_of(D).sets, Fraction(1, 4))))
    assert torch.equal(small_G.synthesis.b8.torgb.weight, G.synthesis.b8.torgb.weight[:, :4] * 0.5)
    assert torch.equal(small_G.synthesis.b8.torgb.affine.weight, G.synthesis.b8.torgb.affine.weight[:4])
    assert torch.equal(small_G.synthesis.b8.conv1.weight, G.synthesis.b8.conv1.weight[:4, :4])
    assert torch.equal(small_D.b8.conv0.weight, D.b8.conv0.weight[:4, :4] * 0.5)
    assert torch.equal(small_D.b16.fromrgb.weight, D.b16.fromrgb.weight[:2])
    assert torch.equal(small_D.b4.fc.weight, D.b4.fc.weight[:4, : 4 * 16] * 0.5)
    assert torch.equal(small_D.b4.out.weight, D.b4.out.weight[:, :4] * 0.5)
    assert torch.equal(small_D.b4.out.bias, D.b4.out.bias)


def ramp(network: Any) -> dict[str, torch.Tensor]:
    """Scores by which the first channels are kept."""
    return {name: -torch.arange(size, dtype=torch.float64) for name, size in plan_of(network).sets.items()}


@pytest.mark.parametrize(("kind", "kwargs"), [("G", {}), ("G", {"architecture": "resnet", "c_dim": 3}), ("D", {}),
                                              ("D", {"architecture": "skip", "c_dim": 3})])
def test_width_one_returns_the_tensors_themselves(kind: str, kwargs: dict[str, Any]) -> None:
    network = make(kind, kwargs)
    plan = plan_of(network)
    state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    keep = prune.choose(ramp(network), widths.scaled(plan.sets, Fraction(1)))
    kept = prune.slice_state(state, plan, keep)
    assert all(kept[name] is state[name] for name in state)
    copied = prune.slice_network(network, keep)
    assert copied is not network
    assert list(copied.state_dict()) == list(network.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(copied.state_dict().values(), network.state_dict().values()))
    label_map = {"cmap_dim": 16} if kind == "D" and network.c_dim else {}
    assert copied.init_kwargs == {**network.init_kwargs, **label_map}


@pytest.mark.parametrize("kind", ["G", "D"])
@pytest.mark.parametrize("width", ["1/1000", "1/16", "0.5", "0.57", "2/3", "999/1000"])
def test_any_width_gives_a_working_network(kind: str, width: str) -> None:
    network = make(kind, {"c_dim": 3})
    plan = plan_of(network)
    sizes = widths.scaled(plan.sets, Fraction(width))
    narrow: Any = prune.slice_network(network, prune.choose(ramp(network), sizes))
    assert plan_of(narrow).sets == sizes
    assert torch.isfinite(run(narrow.double())).all()


def test_widths_are_floored_exactly() -> None:
    sets = {"a": 512, "b": 100, "c": 3, "d": 1}
    assert widths.scaled(sets, Fraction("0.57")) == {"a": 291, "b": 57, "c": 1, "d": 1}  # 0.57 * 100 is 56.99… as float
    assert widths.scaled(sets, Fraction("2/3")) == {"a": 341, "b": 66, "c": 2, "d": 1}  # 3 * (2 / 3) likewise
    assert widths.scaled(sets, Fraction("0.29")) == {"a": 148, "b": 29, "c": 1, "d": 1}
    assert widths.scaled(sets, Fraction("1/1000")) == {"a": 1, "b": 1, "c": 1, "d": 1}
    for width in (Fraction(0), Fraction(3, 2), Fraction(-1, 2)):
        with pytest.raises(ValueError, match="expected a fraction above 0 and up to 1, found"):
            widths.scaled(sets, width)


def widths_given(network: Any) -> dict[str, Any]:
    kwargs = network.init_kwargs
    kwargs = kwargs.synthesis_kwargs if hasattr(network, "z_dim") else kwargs
    return {name: kwargs[name] for name in ("channel_base", "channel_max", "layer_channels") if name in kwargs}


@pytest.mark.parametrize("kind", ["G", "D"])
def test_a_uniform_cut_is_a_stock_network(kind: str) -> None:
    network = make(kind, {})
    keep = prune.choose(ramp(network), widths.scaled(plan_of(network).sets, Fraction(1, 2)))
    assert widths_given(prune.slice_network(network, keep)) == {"channel_base": 64, "channel_max": 8}
    first = next(iter(keep))
    keep[first] = keep[first][:-1]
    narrow = prune.slice_network(network, keep)
    assert list(widths_given(narrow)) == ["layer_channels"]
    assert widths_given(narrow)["layer_channels"] == [len(kept) for kept in keep.values()]
    assert all(type(number) is int for number in widths_given(narrow)["layer_channels"])


def test_a_conditional_discriminator_keeps_its_label_map() -> None:
    D = tiny.tiny_discriminator(c_dim=3)
    keep = prune.choose(ramp(D), widths.scaled(plan_of(D).sets, Fraction(1, 2)))
    narrow: Any = prune.slice_network(D, keep)
    assert narrow.init_kwargs.cmap_dim == narrow.b4.cmap_dim == D.b4.cmap_dim == 16
    assert torch.equal(narrow.mapping.fc7.weight, D.mapping.fc7.weight)
    assert narrow.b4.out.weight.shape == (16, 8)


def test_slicing_keeps_what_is_not_a_channel() -> None:
    G = tiny.tiny_generator(conv_clamp=256, num_fp16_res=2)
    keep = prune.choose(ramp(G), widths.scaled(plan_of(G).sets, Fraction(1, 2)))
    before = copy.deepcopy(G.state_dict())
    random_state = torch.random.get_rng_state()
    narrow: Any = prune.slice_network(G.train(), keep)
    assert torch.equal(torch.random.get_rng_state(), random_state)
    assert all(torch.equal(a, b) for a, b in zip(G.state_dict().values(), before.values()))
    assert narrow.training
    assert not any(p.requires_grad for p in narrow.parameters())
    for name in ("mapping.fc0.weight", "mapping.fc1.bias", "mapping.w_avg", "synthesis.b8.conv0.noise_const",
                 "synthesis.b8.conv0.noise_strength", "synthesis.b16.torgb.bias", "synthesis.b16.resample_filter"):
        assert torch.equal(narrow.state_dict()[name], G.state_dict()[name]), name
    kwargs = narrow.init_kwargs.synthesis_kwargs
    assert (kwargs.conv_clamp, kwargs.num_fp16_res) == (256, 2)
    assert narrow.synthesis.b16.use_fp16
    assert narrow.init_kwargs.mapping_kwargs == {"num_layers": 2}


def test_slicing_twice_is_slicing_once() -> None:
    G = tiny.tiny_generator()
    once = prune.slice_network(G, prune.choose(ramp(G), widths.scaled(plan_of(G).sets, Fraction(1, 4))))
    half = prune.slice_network(G, prune.choose(ramp(G), widths.scaled(plan_of(G).sets, Fraction(1, 2))))
    twice = prune.slice_network(half, prune.choose(ramp(half), widths.scaled(plan_of(half).sets, Fraction(1, 2))))
    for a, b in zip(once.state_dict().values(), twice.state_dict().values()):
        assert torch.allclose(a, b, rtol=1e-6, atol=0)


# Choosing.


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=30), st.data())
@settings(max_examples=100, deadline=None)
def test_choose_keeps_the_best(values: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(values)))
    score = torch.tensor(values, dtype=torch.float64)
    (kept,) = prune.choose({"a": score}, {"a": count}).values()
    assert kept.dtype == torch.int64
    assert len(kept) == count
    assert (kept.diff() > 0).all()
    dropped = sorted(set(range(len(values))) - set(kept.tolist()))
    for index in dropped:  # no dropped channel beats a kept one; of equals the lower index is kept
        assert all((score[k], -k) > (score[index], -index) for k in kept.tolist())


@pytest.mark.parametrize("count", [0, 4, -1])
def test_choose_names_the_set_whose_width_is_impossible(count: int) -> None:
    with pytest.raises(ValueError, match=f"^b8.conv0: cannot keep {count} of 3 channels$"):
        prune.choose({"b8.conv0": torch.zeros(3)}, {"b8.conv0": count})


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_choose_refuses_scores_that_are_not_finite(bad: float) -> None:
    with pytest.raises(UserError, match=r"^b8.conv0: the scores of 1 of 2 channels are NaN or infinite, [^0-9]*$"):
        prune.choose({"b8.conv0": torch.tensor([0, bad])}, {"b8.conv0": 1})


# Cutting tensors.


def test_slice_tensor_with_repeated_and_extra_entries() -> None:
    tensor = torch.arange(2 * 8.0).reshape(2, 8)
    keep = {"a": torch.tensor([0, 2])}
    result = prune.slice_tensor(tensor, Rule({1: Axis("a", repeat=2, extra=2)}), keep)
    assert result.tolist() == [[0, 1, 4, 5, 6, 7], [8, 9, 12, 13, 14, 15]]
    result = prune.slice_tensor(tensor, Rule({1: Axis("a", repeat=2, extra=2)}, fan_in_gain=True), keep)
    assert torch.allclose(result, tensor[:, [0, 1, 4, 5, 6, 7]] * (6 / 8) ** 0.5)


@pytest.mark.parametrize("kept", [[], [2, 1], [1, 1], [0, 16], [-1, 2]])
def test_slice_state_refuses_bad_keep_lists(kept: list[int]) -> None:
    G = tiny.tiny_generator()
    plan = plan_of(G)
    keep = {name: torch.arange(size) for name, size in plan.sets.items()}
    keep["b8.conv0"] = torch.tensor(kept, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"^b8.conv0: expected ascending channels from 0 to 15, found \["):
        prune.slice_state(G.state_dict(), plan, keep)
    del keep["b8.conv0"]
    with pytest.raises(ValueError, match=r"^no keep list for channel set b8.conv0$"):
        prune.slice_state(G.state_dict(), plan, keep)


def test_statistics_channels_must_divide_what_is_left_before_them() -> None:
    D = tiny.tiny_discriminator(epilogue_kwargs={"mbstd_num_channels": 4, "mbstd_group_size": 2})
    keep = {name: torch.arange(size) for name, size in plan_of(D).sets.items()}
    keep["b8.conv1"] = torch.arange(6)
    with pytest.raises(UserError, match=r"d_width: .* of 4 channels, which do not divide the 6 channels left before"):
        prune.slice_network(D, keep)


def test_only_known_networks_are_sliced() -> None:
    with pytest.raises(UserError, match="networks of class Linear cannot be sliced; known: Generator, "):
        prune.slice_network(torch.nn.Linear(2, 2), {})


def test_the_plan_covers_every_tensor_with_channels() -> None:
    """A plan's rules and its builder must agree: every tensor of the narrow network has the shape the rules give."""
    for network in (*(tiny.tiny_generator(a, c_dim=3) for a in ARCHITECTURES),
                    *(tiny.tiny_discriminator(a, c_dim=3) for a in ARCHITECTURES)):
        plan = plan_of(network)
        tensors = dict([*network.named_parameters(), *network.named_buffers()])
        assert set(plan.rules) <= set(tensors)
        assert set(plan.consumers) == set(plan.sets)
        read = {c.layer for consumers in plan.consumers.values() for c in consumers}
        written = {c.output for consumers in plan.consumers.values() for c in consumers} - {None}
        assert written <= set(plan.sets)
        with_input = {name.removesuffix(".weight") for name, rule in plan.rules.items()
                      if name.endswith(".weight") and 1 in rule.axes and ".affine." not in name}
        assert read == with_input


def test_slices_of_the_stylegan3_tree_keep_its_arguments() -> None:
    """Flat ones, and so the way in which that tree updates w_avg."""
    G = networks.Generator(z_dim=16, c_dim=0, w_dim=16, img_resolution=16, img_channels=3, **tiny.WIDTHS)
    plan = plan_of(G)
    narrow = prune.slice_network(G, prune.choose(ramp(G), widths.scaled(plan.sets, Fraction(1, 2))))
    assert narrow.init_kwargs == {**G.init_kwargs, "channel_base": 64, "channel_max": 8}
    assert not narrow.mapping.tracks_in_training


@pytest.mark.parametrize("width", [Fraction(1, 2), Fraction(3, 10), Fraction(2, 3), Fraction(57, 100)])
@pytest.mark.parametrize(("side", "base", "most"), [(256, 16384, 512), (512, 32768, 512), (1024, 32768, 512)])
def test_uniform_students_of_stock_networks_are_stock_networks(
    side: int, base: int, most: int, width: Fraction
) -> None:
    """So that programs with classes of their own, which know no widths layer by layer, can build them."""
    for widths_of, is_discriminator in ((stock.generator_widths, False), (stock.discriminator_widths, True)):
        whole = widths_of(side, base, most)
        narrow = list(widths.scaled({str(i): size for i, size in enumerate(whole)}, width).values())
        arguments = stock.stock_arguments(side, narrow, is_discriminator)
        assert arguments is not None
        assert widths_of(side, **arguments) == narrow
