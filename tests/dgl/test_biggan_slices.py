"""Slices of BigGANs: what belongs together, what a cut leaves unchanged, what is re-estimated; scores and costs."""
from fractions import Fraction
from typing import Any

import pytest
import torch

from dgl import prune
from dgl.architectures import costs_of, plan_of
from dgl.plan import Plan
from dgl.reach import by_channel, reachable
from dgl.scores.registry import ScoreOptions, compute
from dgl.student import Cut, slice_student
from dgl.teacher import Teacher
from dnnlib.errors import UserError
from tests import tiny_biggan as tiny
from training import networks_biggan
from training.biggan import checkpoints as biggan_checkpoints
from training.biggan.estimates import fold_spectral_norm
from training.networks_biggan import BigGANDiscriminator, BigGANGenerator

INVARIANCE = 1e-12  # relative, float64: nothing but rounding
NETWORKS = [*(("G", name) for name in tiny.GENERATORS), *(("D", name) for name in tiny.DISCRIMINATORS)]


def make(kind: str, name: str, **options: Any) -> Any:
    return tiny.tiny_generator(name, **options) if kind == "G" else tiny.tiny_discriminator(name, **options)


def keep_lists(plan: Plan, width: Fraction = Fraction(1, 2), seed: int = 0) -> dict[str, torch.Tensor]:
    """Random channels of every set, as many as the width gives."""
    generator = torch.Generator().manual_seed(seed)
    kept = plan.scaled(width)
    return {name: torch.randperm(size, generator=generator)[: kept[name]].sort().values
            for name, size in plan.sets.items()}


def silence(network: Any, plan: Plan, keep: dict[str, torch.Tensor]) -> None:
    """Sets to zero whatever reads the channels that are not kept."""
    for name, size in plan.sets.items():
        dropped = torch.ones([size], dtype=torch.bool)
        dropped[keep[name]] = False
        for consumer in plan.consumers[name]:
            by_channel(network.get_parameter(f"{consumer.layer}.weight"), plan, name, consumer)[:, dropped] = 0


def widths_of(sizes: dict[str, torch.Tensor]) -> list[int]:
    return [len(kept) for kept in sizes.values()]


def cut(network: Any, plan: Plan, keep: dict[str, torch.Tensor]) -> Any:
    """The narrow network as its tensors are cut, nothing re-estimated."""
    narrow = plan.build(widths_of(keep)).to(next(network.parameters())).eval()
    narrow.load_state_dict(prune.slice_state(network.state_dict(), plan, keep))
    return narrow.requires_grad_(False)


@pytest.mark.parametrize(("kind", "name"), NETWORKS)
def test_removing_silent_channels_changes_nothing(kind: str, name: str) -> None:
    network = fold_spectral_norm(make(kind, name).double())
    plan = plan_of(network)
    keep = keep_lists(plan)
    silence(network, plan, keep)
    narrow = cut(network, plan, keep)
    reference, actual = (net(*tiny.inputs(network)) for net in (network, narrow))
    assert (actual - reference).abs().max() <= INVARIANCE * reference.abs().max()
    assert sum(p.numel() for p in narrow.parameters()) < 0.6 * sum(p.numel() for p in network.parameters())
    assert reference.std() > 0


@pytest.mark.parametrize(("kind", "name"), NETWORKS)
def test_rows_that_are_not_silent_matter(kind: str, name: str) -> None:
    network = fold_spectral_norm(make(kind, name).double())
    plan = plan_of(network)
    keep = keep_lists(plan)
    reference, actual = (net(*tiny.inputs(network)) for net in (network, cut(network, plan, keep)))
    assert (actual - reference).abs().max() > 1e-3 * reference.abs().max()


@pytest.mark.parametrize(("kind", "name"), NETWORKS)
def test_the_rules_give_the_shapes_of_the_narrow_network(kind: str, name: str) -> None:
    network = make(kind, name)
    plan = plan_of(network)
    keep = keep_lists(plan)
    state = prune.slice_state(network.state_dict(), plan, keep)
    narrow = plan.build(widths_of(keep))
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in narrow.state_dict().items()}
    assert plan_of(narrow).sets == {name: len(kept) for name, kept in keep.items()}
    read = {c.layer for consumers in plan.consumers.values() for c in consumers}
    inputs = {name.removesuffix(".weight") for name, rule in plan.rules.items()
              if name.endswith(".weight") and 1 in rule.axes and ".gain." not in name and ".bias." not in name}
    assert read == inputs


@pytest.mark.parametrize(("kind", "name"), NETWORKS)
def test_width_one_is_the_same_to_the_bit(kind: str, name: str) -> None:
    network = make(kind, name)
    plan = plan_of(network)
    keep = {name: torch.arange(size) for name, size in plan.sets.items()}
    kept = prune.slice_state(network.state_dict(), plan, keep)
    assert all(kept[key] is not None and torch.equal(kept[key], tensor) for key, tensor in network.state_dict().items())
    same = prune.slice_network(network, keep)
    assert list(same.state_dict()) == list(network.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(same.state_dict().values(), network.state_dict().values()))
    assert torch.equal(same(*tiny.inputs(same)), network(*tiny.inputs(network)))


@pytest.mark.parametrize(("kind", "width", "expected"), [
    ("G", "1/2", {"G_ch": 2}), ("G", "3/4", {"G_ch": 3}), ("D", "1/2", {"D_ch": 2}), ("D", "3/4", {"D_ch": 3}),
])
def test_a_uniform_cut_is_a_public_network(kind: str, width: str, expected: dict[str, int]) -> None:
    network = make(kind, "hier64" if kind == "G" else "64", **{f"{kind}_attn": "0"})
    plan = plan_of(network)
    narrow: Any = prune.slice_network(network, keep_lists(plan, Fraction(width)))
    given = {key: value for key, value in narrow.options.items() if key in (f"{kind}_ch", f"{kind}_channels") and value}
    assert given == expected


@pytest.mark.parametrize("width", ["1/1000", "0.3", "0.57", "999/1000"])
@pytest.mark.parametrize(("kind", "name"), [("G", "uneven32"), ("D", "32")])
def test_any_width_gives_a_working_network(kind: str, name: str, width: str) -> None:
    network = make(kind, name)
    plan = plan_of(network)
    sizes = plan.scaled(Fraction(width))
    narrow: Any = prune.slice_network(network, keep_lists(plan, Fraction(width)))
    assert plan_of(narrow).sets == sizes
    assert torch.isfinite(narrow(*tiny.inputs(narrow))).all()
    for module in narrow.modules():
        if isinstance(module, networks_biggan.SelfAttention):
            channels = module.o.out_channels
            assert (module.theta.out_channels, module.g.out_channels) == (channels // 8, channels // 2)


def test_other_widths_cannot_be_built() -> None:
    plan = plan_of(make("G", "shared32"))
    sizes = {**plan.sets, "blocks.1.0.hidden": 5}
    with pytest.raises(ValueError, match="expected widths that a BigGAN can have"):
        plan.build(list(sizes.values()))


def test_the_first_layer_keeps_sixteen_rows_of_every_channel() -> None:
    G = make("G", "plain32")
    keep = {name: torch.arange(size) for name, size in plan_of(G).sets.items()}
    keep["stream0"] = torch.tensor([1, 5])
    state = prune.slice_state(G.state_dict(), plan_of(G), keep)
    rows = [*range(16, 32), *range(80, 96)]
    assert torch.equal(state["linear.weight"], G.linear.weight[rows])
    assert torch.equal(state["linear.bias"], G.linear.bias[rows])
    assert torch.equal(state["linear.u0"], G.linear.u0[:, rows])
    assert torch.equal(state["blocks.0.0.bn1.gain.weight"], G.blocks[0][0].bn1.gain.weight[:, [1, 5]])


def test_estimates_are_remade() -> None:
    """After a cut the singular value is that of the slice, and normalised activations have mean 0 and variance 1."""
    G = make("G", "plain32")
    narrow: Any = prune.slice_network(G.train(), keep_lists(plan_of(G)))
    assert narrow.training
    narrow.eval()
    for layer in narrow.modules():
        if getattr(layer, "num_svs", 0):
            exact = torch.linalg.svdvals(layer.weight.flatten(1))[0]
            assert layer.sv0.item() == pytest.approx(exact.item(), rel=0.02)
    noted: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    norms = {name: m for name, m in narrow.named_modules() if hasattr(m, "stored_mean")}
    names = {norm: name for name, norm in norms.items()}

    def note(norm: torch.nn.Module, args: tuple) -> None:
        noted[names[norm]] = (args[0].mean([0, 2, 3]), args[0].var([0, 2, 3]))

    for norm in norms.values():
        norm.register_forward_pre_hook(note)
    z = torch.randn([256, narrow.z_dim], generator=torch.Generator().manual_seed(1))
    narrow(z, torch.arange(256) % 3)
    for name, (mean, var) in noted.items():
        shift = (mean - norms[name].stored_mean) / norms[name].stored_var.sqrt()
        assert shift.abs().max() < 0.25, name
        assert (var / norms[name].stored_var).log().abs().max() < 0.4, name


def test_slicing_draws_no_global_random_numbers() -> None:
    G = make("G", "plain32")
    state = torch.random.get_rng_state()
    a, b = (prune.slice_network(G, keep_lists(plan_of(G))) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


# Scores.


@pytest.mark.parametrize(("kind", "name", "score"), [
    *(("G", name, score) for name in ("plain32", "hier64") for score in ("first", "random", "l1")),
    ("G", "plain32", "content"),
    *(("D", "32", score) for score in ("first", "random", "l1")),
])
def test_scores_rank_every_channel(kind: str, name: str, score: str) -> None:
    network = make(kind, name)
    plan = plan_of(network)
    scores = compute(score, network, plan, ScoreOptions(num_samples=4))
    assert {key: len(value) for key, value in scores.items()} == plan.sets
    assert all(torch.isfinite(value).all() for value in scores.values())
    if score != "first":
        assert all(value.unique().numel() > 1 for value in scores.values() if len(value) > 1)


def test_l1_counts_what_the_network_applies() -> None:
    """A channel of the last stream is read by the output convolution alone, behind the output norm."""
    G = make("G", "shared32").double()
    norm, conv = G.output_layer.children()
    gain = (norm.gain / (norm.stored_var + norm.eps).sqrt()).abs()
    expected = conv.normalized_weight().abs().sum(dim=[0, 2, 3]) * gain
    actual = compute("l1", G, plan_of(G), ScoreOptions(num_samples=5))["stream3"]
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=0)
    block = G.blocks[2][0]
    z, c = tiny.inputs(G, 5)
    (_, conditions), options = G.conditions(z, c), ScoreOptions(num_samples=5)
    assert len(conditions) == 3
    from dgl.scores.sampling import latents

    z, c = latents(G, 5, torch.Generator().manual_seed(0))
    gains = (1 + block.bn2.gain(G.conditions(z.double(), c.double())[1][2])).abs().mean(0)
    expected = block.conv2.normalized_weight().abs().sum(dim=[0, 2, 3]) * gains
    expected = expected / (block.bn2.stored_var + block.bn2.eps).sqrt()
    actual = compute("l1", G.double(), plan_of(G), options)["blocks.2.0.hidden"]
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=0)


def test_channels_that_reach_nothing_count_nothing() -> None:
    G = make("G", "plain32")
    G.output_layer.get_submodule("2").weight[:, 3] = 0
    plan = plan_of(G)
    assert reachable(G, plan)["stream3"].tolist() == [i != 3 for i in range(8)]
    assert compute("l1", G, plan, ScoreOptions(num_samples=2))["stream3"][3] == 0


def test_diversity_needs_styles() -> None:
    G = make("G", "plain32")
    with pytest.raises(UserError, match="score: diversity needs a generator with styles, a BigGANGenerator has none"):
        compute("diversity", G, plan_of(G), ScoreOptions(num_samples=2))


# Students and costs.


def teacher() -> Teacher:
    nets = tiny.tiny_networks()
    return Teacher("teacher.pkl", "0" * 64, nets["G"], nets["G_ema"], nets["D"], None)


def test_a_student() -> None:
    student = slice_student(teacher(), Cut(Fraction(1, 2), "l1", num_samples=8))
    assert student.G_ema.options["G_ch"] == 2
    assert student.G_ema.linear.weight.shape[0] == 8 * 16
    assert student.D is not None
    assert student.D.options == teacher().D.options
    half = slice_student(teacher(), Cut(Fraction(1, 2), "first"), d_width=Fraction(1, 2))
    assert half.D.options["D_ch"] == 2
    across = slice_student(teacher(), Cut(Fraction(1, 2), "l1", num_samples=8, across_layers=True))
    assert sum(c.macs_in for c in costs_of(across.G_ema)) <= sum(c.macs_in for c in costs_of(student.G_ema))


def test_a_student_in_the_public_layout(tmp_path: Any) -> None:
    student = slice_student(teacher(), Cut(Fraction(1, 2), "first"))
    biggan_checkpoints.save_checkpoint(tmp_path / "student", {"G_ema": student.G_ema})
    again = biggan_checkpoints.load_generator(tmp_path / "student")
    args = tiny.inputs(again)
    assert torch.equal(again(*args), student.G_ema(*args))


def test_refinement_of_styles_is_refused() -> None:
    with pytest.raises(UserError, match="refine: svs is for demodulated convolutions, a BigGANGenerator has none"):
        slice_student(teacher(), Cut(Fraction(1, 2), "first", refine="svs"))


def test_deep_networks_are_refused() -> None:
    with torch.device("meta"):
        G = BigGANGenerator(c_dim=3, img_resolution=32, model="BigGANdeep", hier=True, G_shared=True, G_attn="0")
    with pytest.raises(UserError, match="a BigGANdeep cannot be made narrower: its shortcuts tie the channels"):
        plan_of(G)


IMAGENET = {  # channel multiplier → parameters of G, multiply-accumulates of G and of D at 128 px
    96: (70_433_988, 21_121_524_480, 10_836_641_280),
    64: (31_978_628, 9_509_224_960, 4_881_908_736),
    48: (18_383_460, 5_417_496_960, 2_782_987_008),
    32: (8_543_300, 2_468_716_800, 1_269_694_976),
}


@pytest.mark.parametrize("ch", IMAGENET)
def test_costs_at_128(ch: int) -> None:
    latent = {"dim_z": 120, "hier": True, "G_shared": True, "shared_dim": 128}
    with torch.device("meta"):
        G = BigGANGenerator(c_dim=1000, img_resolution=128, G_ch=ch, **latent, skip_init=True)
        D = BigGANDiscriminator(c_dim=1000, img_resolution=128, D_ch=ch, skip_init=True)
    result = [sum(p.numel() for p in G.parameters()), *(sum(c.macs_in for c in costs_of(net)) for net in (G, D))]
    assert tuple(result) == IMAGENET[ch]
    assert [c.macs_out for c in costs_of(G)] == [c.macs_in for c in costs_of(G)]


def test_attention_is_counted() -> None:
    """θ and φ of C/8, g and o of C/2 channels; the map is (r²) x (r²/4): at C = 16, r = 32: 16·24·2·1024 + ..."""
    with torch.device("meta"):
        costs = {c.layer: c.macs_in for c in costs_of(make_meta("32"))}
    assert costs["blocks.2.1"] == 32**2 * 16**2 * (16 // 8 + 16 // 2)
    assert sum(costs[f"blocks.2.1.{name}"] for name in ("theta", "phi", "g", "o")) == 32**2 * 2 * (16 * 2 + 16 * 8)


def make_meta(attn: str) -> Any:
    return BigGANGenerator(c_dim=3, img_resolution=32, G_ch=4, dim_z=8, G_attn=attn, skip_init=True)
