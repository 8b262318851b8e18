"""Channel scores: what they favour, seeds that reproduce them, and l1 against the weights written out one by one."""
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from dgl import scores
from dgl.architectures import plan_of
from dgl.scores.registry import ScoreOptions, compute
from dnnlib.errors import UserError
from tests import tiny
from training.networks import Conv2dLayer, FullyConnectedLayer, SynthesisLayer

ARCHITECTURES = ["skip", "resnet", "orig"]
PLAIN = ["first", "random", "l1"]  # the others have their own tests


def score(name: str, network: Any, **options: Any) -> dict[str, torch.Tensor]:
    return compute(name, network, plan_of(network), ScoreOptions(**{"num_samples": 10, **options}))


@pytest.mark.parametrize(("kind", "name"), [*(("G", name) for name in PLAIN), *(("D", name) for name in PLAIN)])
def test_scores_cover_every_set(kind: str, name: str) -> None:
    network = tiny.tiny_generator(c_dim=3) if kind == "G" else tiny.tiny_discriminator(c_dim=3)
    result = score(name, network)
    sets = plan_of(network).sets
    assert {key: len(value) for key, value in result.items()} == sets
    assert list(result) == list(sets)
    assert all(value.dtype == torch.float64 and value.isfinite().all() for value in result.values())


def test_discriminator_scores_are_a_part_of_all() -> None:
    assert set(PLAIN) <= set(scores.DISCRIMINATOR_SCORES) <= set(scores.NAMES)


def test_unknown_scores_are_named() -> None:
    with pytest.raises(UserError, match="score: unknown score 'best'; known: first, random, l1"):
        score("best", tiny.tiny_generator())


@pytest.mark.parametrize(("name", "value"), [("l1", float("nan")), ("l1", float("inf")), ("content", float("nan"))])
def test_weights_that_are_not_finite_are_named(name: str, value: float) -> None:
    G = tiny.tiny_generator()
    with torch.no_grad():
        G.synthesis.b8.conv1.weight[0, 2] = value
    message = rf"^score: {name}: scores of b\S+( and \d+ more)? are NaN or infinite; so are values in synthesis.b8"
    with pytest.raises(UserError, match=message) as caught:
        score(name, G)
    assert len(str(caught.value)) < 200


def test_scores_that_overflow_are_not_blamed_on_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dgl.scores.l1.score", lambda _network, plan, _options: {
        name: torch.full([size], torch.inf) for name, size in plan.sets.items()})
    with pytest.raises(UserError, match="the weights of the network are finite; try another score than l1"):
        score("l1", tiny.tiny_generator())


def test_first_prefers_low_indices() -> None:
    for value in score("first", tiny.tiny_generator()).values():
        assert (value.diff() < 0).all()


def test_random_is_reproduced_by_the_seed_alone() -> None:
    G = tiny.tiny_generator()
    before = torch.random.get_rng_state()
    a, b, other = score("random", G), score("random", G), score("random", G, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    for name in a:
        assert torch.equal(a[name], b[name])
        assert not torch.equal(a[name], other[name])
        assert a[name].unique().numel() == len(a[name])
    assert not torch.equal(a["b8.conv0"], a["b8.conv1"])


def effective_weights(layer: Any, ws: torch.Tensor | None) -> torch.Tensor:
    """The weights as the network applies them, for every sample: [N, O, I, ...], float64. Slow and plain."""
    weight = layer.weight.double()
    if isinstance(layer, Conv2dLayer | FullyConnectedLayer):
        return weight[None] * layer.weight_gain
    assert ws is not None
    styles = layer.affine(ws).double()
    modulated = torch.stack([weight * s[None, :, None, None] for s in styles])
    if isinstance(layer, SynthesisLayer):
        norms = torch.stack([m.square().sum(dim=[1, 2, 3]).add(1e-8).sqrt() for m in modulated])
        return modulated / norms[:, :, None, None, None]
    return modulated * layer.weight_gain


def latents_of(G: Any, count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn([count, G.z_dim], generator=generator)
    c = torch.zeros([count, 0])
    if G.c_dim:
        c = F.one_hot(torch.randint(G.c_dim, [count], generator=generator), G.c_dim).float()
    return G.mapping(z, c)[:, 0]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("c_dim", [0, 3])
def test_l1_of_a_generator(architecture: str, c_dim: int) -> None:
    G = tiny.tiny_generator(architecture, c_dim)
    ws = latents_of(G, 10, seed=3)
    result = score("l1", G, seed=3, batch=4)
    plan = plan_of(G)
    for name, consumers in plan.consumers.items():
        total: Any = 0
        for consumer in consumers:
            weights = effective_weights(G.get_submodule(consumer.layer), ws).abs()
            total = total + weights.sum(dim=[1, 3, 4]).mean(dim=0)
        assert torch.allclose(result[name], total, rtol=1e-5), name


def test_l1_counts_every_torgb() -> None:
    G = tiny.tiny_generator()
    layers = {name: [c.layer.removeprefix("synthesis.") for c in cs] for name, cs in plan_of(G).consumers.items()}
    assert layers == {
        "b4.const": ["b4.conv1"],
        "b4.conv1": ["b4.torgb", "b8.conv0"],
        "b8.conv0": ["b8.conv1"],
        "b8.conv1": ["b8.torgb", "b16.conv0"],
        "b16.conv0": ["b16.conv1"],
        "b16.conv1": ["b16.torgb"],
    }


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_l1_of_a_discriminator(architecture: str) -> None:
    D = tiny.tiny_discriminator(architecture)
    result = score("l1", D)
    plan = plan_of(D)
    for name, consumers in plan.consumers.items():
        total: Any = 0
        for consumer in consumers:
            weights = effective_weights(D.get_submodule(consumer.layer), None)[0].abs()
            per_input = weights.sum(dim=[0, *range(2, weights.ndim)])
            if consumer.layer == "b4.conv":
                per_input = per_input[:-1]  # the statistics channel belongs to no set
            if consumer.layer == "b4.fc":
                per_input = per_input.reshape(-1, 16).sum(dim=1)
            total = total + per_input
        assert torch.allclose(result[name], total, rtol=1e-6), name


@pytest.mark.parametrize("batch", [1, 3, 10, 32])
def test_l1_does_not_depend_on_the_batch(batch: int) -> None:
    G = tiny.tiny_generator(c_dim=3)
    reference = score("l1", G, batch=5)
    for name, value in score("l1", G, batch=batch).items():
        assert torch.allclose(value, reference[name], rtol=1e-6)


def test_l1_leaves_the_network_and_the_random_state_alone() -> None:
    G = tiny.tiny_generator().train()
    state = {name: tensor.clone() for name, tensor in G.state_dict().items()}
    before = torch.random.get_rng_state()
    score("l1", G)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(tensor, state[name]) for name, tensor in G.state_dict().items())


def test_l1_averages_over_1024_latents_unless_told_otherwise() -> None:
    G = tiny.tiny_generator()
    for name, value in score("l1", G, num_samples=None).items():
        assert torch.equal(value, score("l1", G, num_samples=1024)[name])


def test_l1_of_channels_that_cannot_reach_the_image_is_zero() -> None:
    G = tiny.tiny_generator()
    # Channel 2 of b16.conv1 is read by torgb only; channel 5 of b16.conv0 only writes to channel 2.
    G.synthesis.b16.torgb.weight[:, 2] = 0
    G.synthesis.b16.conv1.weight[:, 5] = 0
    G.synthesis.b16.conv1.weight[2, 5] = 100
    result = score("l1", G)
    assert result["b16.conv1"][2] == 0
    assert result["b16.conv0"][5] == 0
    assert (result["b16.conv0"] > 0).sum() == 7
    D = tiny.tiny_discriminator()
    D.b4.out.weight[:, 3] = 0
    D.b4.fc.weight[:, 16:32] = 0
    D.b4.fc.weight[3, 16:32] = 100
    result = score("l1", D)
    assert result["b4.fc"][3] == 0
    assert result["b4.conv"][1] == 0

