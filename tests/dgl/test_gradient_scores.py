"""The scores content and diversity against slow formulas, and what both must guarantee."""
import copy
from typing import Any

import pytest
import torch

from dgl import reach
from dgl.architectures import plan_of
from dgl.scores import diversity
from dgl.scores.registry import ScoreOptions, compute
from tests import tiny

GRADIENT_SCORES = ["content", "diversity"]


def score(name: str, G: Any, **options: Any) -> dict[str, torch.Tensor]:
    return compute(name, G, plan_of(G), ScoreOptions(**{"num_samples": 2, **options}))


@pytest.fixture(autouse=True)
def _small_pca(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diversity, "PCA_SAMPLES", 200)
    monkeypatch.setattr(diversity, "NUM_DIRECTIONS", 3)


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
@pytest.mark.parametrize("name", GRADIENT_SCORES)
def test_every_channel_has_a_score(name: str, architecture: str) -> None:
    G = tiny.tiny_generator(architecture, c_dim=3, channels=1)
    result = score(name, G)
    assert {key: len(value) for key, value in result.items()} == plan_of(G).sets
    assert all((value > 0).all() and value.isfinite().all() for value in result.values())


@pytest.mark.parametrize("name", GRADIENT_SCORES)
def test_seeds_reproduce_and_nothing_else_changes(name: str) -> None:
    G = tiny.tiny_generator()
    before, state = torch.random.get_rng_state(), copy.deepcopy(G.state_dict())
    a, b, other = score(name, G), score(name, G, batch=7), score(name, G, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(value, state[key]) for key, value in G.state_dict().items())
    assert not any(p.requires_grad for p in G.parameters())
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not any(torch.equal(a[key], other[key]) for key in a)


@pytest.mark.parametrize("name", ["l1", *GRADIENT_SCORES])
def test_channels_that_cannot_reach_the_output_score_zero(name: str) -> None:
    G = tiny.tiny_generator("orig")
    with torch.no_grad():
        G.synthesis.b8.conv1.weight[:, 3] = 0  # channel 3 of b8.conv0 is read by nobody
        G.synthesis.b16.conv0.weight[:, 5] = 0  # nor is channel 5 of b8.conv1, ...
        G.synthesis.b8.conv1.weight[:5, 7] = 0  # ... the only one that reads channel 7 of b8.conv0
        G.synthesis.b8.conv1.weight[6:, 7] = 0
    result = score(name, G)
    assert result["b8.conv0"].eq(0).nonzero().flatten().tolist() == [3, 7]
    assert result["b8.conv1"].eq(0).nonzero().flatten().tolist() == [5]
    assert (result["b4.const"] > 0).all()


@pytest.mark.parametrize("name", ["l1", *GRADIENT_SCORES])
def test_channels_whose_only_reader_is_multiplied_by_zero_score_zero(name: str) -> None:
    G = tiny.tiny_generator("orig")
    with torch.no_grad():
        reader = G.synthesis.b16.conv0  # its style of channel 5 of b8.conv1 is 0 whatever the latent
        reader.affine.weight[5] = 0
        reader.affine.bias[5] = 0
        G.synthesis.b8.conv1.weight[:5, 7] = 0  # and only channel 5 reads channel 7 of b8.conv0
        G.synthesis.b8.conv1.weight[6:, 7] = 0
    result = score(name, G)
    assert result["b8.conv0"].eq(0).nonzero().flatten().tolist() == [7]
    # the gradients of weights times a style of 0 are 0 by themselves
    assert result["b8.conv1"].eq(0).nonzero().flatten().tolist() == [5]


def test_reachable_follows_shortcuts() -> None:
    G = tiny.tiny_generator("resnet")
    with torch.no_grad():
        G.synthesis.b8.conv0.weight[:, 2] = 0
    assert reach.reachable(G, plan_of(G))["b4.conv1"].all()
    with torch.no_grad():
        G.synthesis.b8.skip.weight[:, 2] = 0
    assert reach.reachable(G, plan_of(G))["b4.conv1"].logical_not().nonzero().flatten().tolist() == [2]


def slow_magnitudes(G: Any, loss: torch.Tensor, set_name: str, layers: list[str]) -> torch.Tensor:
    """Mean |gradient| over the weights that read a channel set, layer by layer."""
    gradients = [torch.autograd.grad(loss, G.get_parameter(f"{name}.weight"), retain_graph=True)[0] for name in layers]
    sums = sum(g.double().abs().sum(dim=[0, 2, 3]) for g in gradients)
    return sums / sum(g.numel() // g.shape[1] for g in gradients)


def test_content_is_the_mean_gradient_magnitude_of_all_consumers() -> None:
    G = tiny.tiny_generator()
    actual = score("content", G, num_samples=1, seed=4)
    generator = torch.Generator().manual_seed(4)
    z = torch.randn([1, 16], generator=generator)
    wanted = copy.deepcopy(G).requires_grad_(True)
    img = wanted(z, torch.zeros([1, 0]), noise_mode="const")
    sign = torch.randint(2, [1, 1, 16, 16], generator=generator) * 2.0 - 1
    chosen = torch.rand([1, 1, 16, 16], generator=generator) < 0.05
    loss = (sign * chosen * -img).sum()  # the derivative of |noisy - image| where the noise is, and 0 elsewhere
    readers = ["synthesis.b8.torgb", "synthesis.b16.conv0"]
    expected = slow_magnitudes(wanted, loss, "b8.conv1", readers)
    torch.testing.assert_close(actual["b8.conv1"], expected, rtol=1e-4, atol=0)
    assert int(chosen.sum()) > 0


def test_diversity_is_the_variance_over_directions() -> None:
    G = tiny.tiny_generator()
    actual = score("diversity", G, num_samples=1, seed=2)
    generator = torch.Generator().manual_seed(2)
    directions = diversity.principal_directions(G, generator)
    z = torch.randn([1, 16], generator=generator)
    chosen = torch.randperm(len(directions), generator=generator)[:3]
    wanted = copy.deepcopy(G).requires_grad_(True)
    ws = wanted.mapping(z, torch.zeros([1, 0])).detach()
    magnitudes = []
    for direction in directions[chosen]:
        img, moved = (wanted.synthesis(w, noise_mode="const") for w in (ws, ws + 5 * direction))
        readers = ["synthesis.b4.torgb", "synthesis.b8.conv0"]
        magnitudes.append(slow_magnitudes(wanted, (moved - img).abs().sum(), "b4.conv1", readers))
    expected = torch.stack(magnitudes).var(dim=0, unbiased=False)
    torch.testing.assert_close(actual["b4.conv1"], expected, rtol=1e-3, atol=1e-12)


def test_principal_directions_are_those_of_w() -> None:
    G = tiny.tiny_generator()
    directions = diversity.principal_directions(G, torch.Generator().manual_seed(0))
    torch.testing.assert_close(directions @ directions.t(), torch.eye(len(directions)), atol=1e-5, rtol=0)
    w = G.mapping(torch.randn([500, 16], generator=torch.Generator().manual_seed(1)), None)[:, 0]
    spread = ((w - w.mean(dim=0)) @ directions.t()).var(dim=0)
    assert spread[0] == spread.max()
    assert spread[-1] == spread.min()
