"""The score `slimming`: its gradients, what it prefers, and what it leaves alone. Labels reach every score."""
import copy
from fractions import Fraction

import pytest
import torch

from dgl import prune
from dgl.architectures import plan_of
from dgl.scores import diversity, slimming
from dgl.scores.registry import ScoreOptions, compute
from tests import tiny


@pytest.mark.parametrize("architecture", ["skip", "resnet"])
def test_gradients_are_those_of_the_relative_error(architecture: str) -> None:
    """Against differences; at scales of 1 the image is the network's own, so there they are 0."""
    G = tiny.tiny_generator(architecture).double()
    plan, (z, c) = plan_of(G), (tensor.double() for tensor in tiny.latents())
    random = torch.Generator().manual_seed(0)
    scales = {name: 0.5 + torch.rand([size], generator=random).double() for name, size in plan.sets.items()}
    with tiny.double_precision():
        gradients = slimming._gradients(G, plan, scales, z, c)
        target = G(z, c, noise_mode="const")

        def error(by: dict[str, torch.Tensor]) -> float:
            with slimming._scaled(G, plan, by):
                return float((G(z, c, noise_mode="const") - target).square().mean() / target.var(unbiased=False))

        for name, channel in (("b4.const", 3), ("b8.conv0", 5), ("b16.conv1", 1)):
            up, down = ({**scales, name: scales[name].clone()} for _ in range(2))
            up[name][channel] += 1e-6
            down[name][channel] -= 1e-6
            assert float(gradients[name][channel]) == pytest.approx((error(up) - error(down)) / 2e-6, rel=1e-4)
    ones = {name: torch.ones_like(scale) for name, scale in scales.items()}
    with tiny.double_precision():
        assert all(gradient.abs().max() < 1e-12 for gradient in slimming._gradients(G, plan, ones, z, c).values())
    assert not any(module._forward_pre_hooks for module in G.modules())


def test_it_keeps_what_the_image_needs() -> None:
    """Channels whose readers hardly use them go first, and the network is as it was."""
    G = tiny.tiny_generator()
    plan = plan_of(G)
    with torch.no_grad():
        for consumer in plan.consumers["b8.conv1"]:
            G.get_parameter(f"{consumer.layer}.weight")[:, ::2] *= 0.01
    state = copy.deepcopy(G.state_dict())
    before = torch.random.get_rng_state()
    scores = compute("slimming", G, plan, ScoreOptions(num_samples=400))
    kept = prune.choose(scores, plan.scaled(Fraction(1, 2)))
    assert kept["b8.conv1"].tolist() == list(range(1, 16, 2))
    assert all((score > 0).all() and (score <= 1).all() for score in scores.values())
    assert all(torch.equal(tensor, state[name]) for name, tensor in G.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), before)
    again, other = (compute("slimming", G, plan, ScoreOptions(seed=seed, num_samples=40)) for seed in (0, 1))
    assert not any(torch.equal(again[name], other[name]) for name in again)


@pytest.mark.parametrize("name", ["l1", "content", "diversity", "reconstruct", "slimming"])
def test_scores_of_a_conditional_generator_see_all_classes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diversity, "PCA_SAMPLES", 20)
    monkeypatch.setattr(diversity, "NUM_DIRECTIONS", 2)
    G = tiny.tiny_generator(c_dim=3)
    classes: set[int] = set()
    G.mapping.register_forward_pre_hook(lambda module, inputs: classes.update(inputs[1].argmax(dim=1).tolist()))
    compute(name, G, plan_of(G), ScoreOptions(num_samples=16))
    assert classes == {0, 1, 2}
