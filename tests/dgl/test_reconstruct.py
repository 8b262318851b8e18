"""The score `reconstruct`: its closed form against direct least squares, and what it keeps."""
from fractions import Fraction
from typing import Any

import pytest
import torch

from dgl import prune
from dgl.architectures import plan_of
from dgl.refit import RefitOptions, refit_network, rows
from dgl.scores import readings, reconstruct
from dgl.scores.registry import ScoreOptions, compute
from dnnlib.errors import UserError
from tests import tiny, tiny_biggan
from tests.training.test_networks_stylegan3 import R_OPTIONS
from tests.training.test_networks_stylegan3 import tiny as tiny_stylegan3
from training import architectures

TAPS = 2


def system(channels: int, outputs: int, seed: int) -> tuple[reconstruct._System, torch.Tensor]:
    """A random system, and its Gram matrix [C·T, C·T]."""
    random = torch.Generator().manual_seed(seed)
    rows = torch.randn([50, channels * TAPS], generator=random, dtype=torch.float64)
    gram = rows.t() @ rows / 50
    weight = torch.randn([outputs, channels, TAPS], generator=random, dtype=torch.float64)
    shape = [channels, TAPS, channels, TAPS]
    return reconstruct._System(weight, gram.inverse().reshape(shape)), gram


def remaining_error(weight: torch.Tensor, gram: torch.Tensor, kept: list[int]) -> float:
    """Squared error of the outputs of a weight [O, K], fitted again by least squares on the kept channels' inputs."""
    columns = torch.tensor([c * TAPS + t for c in kept for t in range(TAPS)], dtype=torch.int64)
    best = torch.linalg.solve(gram[columns][:, columns], gram[columns] @ weight.t()).t()
    return float((weight @ gram @ weight.t()).trace() - (best @ gram[columns] @ weight.t()).trace())


def test_channels_go_by_the_error_that_direct_least_squares_gives() -> None:
    pairs = [system(6, 3, 0), system(6, 4, 1)]
    weights = [s.weight.flatten(1).clone() for s, _ in pairs]
    result = reconstruct._eliminate([s for s, _ in pairs], 6)
    kept = list(range(6))
    while kept:
        errors = {c: sum(remaining_error(w, gram, [k for k in kept if k != c]) for w, (_, gram) in zip(weights, pairs))
                  for c in kept}
        worst = min(errors, key=lambda c: errors[c])
        before = sum(remaining_error(w, gram, kept) for w, (_, gram) in zip(weights, pairs))
        assert int(result[kept].argmin()) == kept.index(worst)
        assert float(result[worst]) >= errors[worst] - before - 1e-9
        kept.remove(worst)


def test_many_channels_at_once_leave_what_the_others_make_up() -> None:
    layer, gram = system(8, 3, 2)
    weight = layer.weight.flatten(1).clone()
    goes, stays = torch.tensor([5, 1]), torch.tensor([0, 2, 3, 4, 6, 7])
    reconstruct._remove(layer, goes)
    columns = (stays[:, None] * TAPS + torch.arange(TAPS)).flatten()
    expected = torch.linalg.solve(gram[columns][:, columns], gram[columns] @ weight.t()).t()
    assert torch.allclose(layer.weight[:, stays].flatten(1), expected, atol=1e-10)
    assert torch.allclose(layer.weight[:, goes], torch.zeros(1, dtype=torch.float64), atol=1e-10)
    inverse = gram[columns][:, columns].inverse()
    assert torch.allclose(layer.inverse[stays][:, :, stays].flatten(2).flatten(0, 1), inverse, atol=1e-9)


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_a_channel_that_another_stands_in_for_goes_first(architecture: str) -> None:
    G = tiny.tiny_generator(architecture)
    for tensor in (G.synthesis.b8.conv0.weight, G.synthesis.b8.conv0.bias):
        tensor[7] = tensor[2]  # so channels 2 and 7 of the set are the same
    layer = G.synthesis.b8.conv1.affine  # and reach the next layer with the same style
    for tensor in (layer.weight, layer.bias):
        tensor[7] = tensor[2]
    scores = compute("reconstruct", G, plan_of(G), ScoreOptions(num_samples=16))
    assert int(scores["b8.conv0"].argmin()) in (2, 7)
    assert scores["b8.conv0"].min() < 1e-2 * scores["b8.conv0"].median()


@pytest.mark.parametrize("kind", ["t", "r"])
def test_stylegan3(kind: str) -> None:
    """A channel that another stands in for goes first, in a layer and among the Fourier features."""
    options = {key: R_OPTIONS[key] for key in ("conv_kernel", "use_radial_filters")} if kind == "r" else {}
    G = tiny_stylegan3(num_layers=4, margin_size=2, **options)
    first, second = (G.synthesis.get_submodule(name) for name in G.synthesis.layer_names[:2])
    for tensor in (first.weight, first.bias, second.affine.weight, second.affine.bias,
                   G.synthesis.input.freqs, G.synthesis.input.phases):
        tensor.data[3] = tensor.data[1]
    scores = compute("reconstruct", G, plan_of(G), ScoreOptions(num_samples=8))
    for name in ("L0", "features"):
        assert int(scores[name].argmin()) in (1, 3)
        assert scores[name].min() < 1e-2 * scores[name].median()
    assert all(score.isfinite().all() and (score > 0).all() for score in scores.values())


def test_what_stylegan3s_layers_read_gives_their_outputs() -> None:
    """Rows times weights are the pre-activations, and those of the input layer its outputs."""
    G = tiny_stylegan3(num_layers=4, margin_size=2)
    layers = [G.synthesis.input, *(G.synthesis.get_submodule(name) for name in G.synthesis.layer_names)]
    readers = {layer: readings.reader_of(layer) for layer in layers}
    expected: dict[int, torch.Tensor] = {}

    def everywhere(layer: Any, pixels: int, images: int) -> torch.Tensor:
        return torch.arange(pixels).repeat(images, 1)

    def check(layer: Any, inputs: Any, output: torch.Tensor) -> None:
        reading = readers[layer](inputs, output, everywhere)
        made = reading.rows @ rows.weight_matrix(layer).t()
        if layer is G.synthesis.input:
            wanted = output.permute(0, 2, 3, 1).flatten(0, 2) * len(layer.freqs) ** 0.5
        else:
            w = layer.weight
            styles = readings.styles_of(layer, inputs[1]) * layer.magnitude_ema.rsqrt()
            x = torch.nn.functional.conv2d(inputs[0] * styles[:, :, None, None], w, padding=layer.conv_kernel - 1)
            wanted = x.permute(0, 2, 3, 1).flatten(0, 2)
        torch.testing.assert_close(made, wanted, atol=1e-4, rtol=1e-4)
        expected[id(layer)] = wanted

    hooks = [layer.register_forward_hook(check) for layer in layers]
    with torch.no_grad():
        G(torch.randn([2, 8]), None)
    for hook in hooks:
        hook.remove()
    assert len(expected) == len(layers)


def test_the_seed_decides_and_the_size_of_passes_does_not() -> None:
    G = tiny.tiny_generator(c_dim=3)
    runs = [compute("reconstruct", G, plan_of(G), ScoreOptions(seed=seed, num_samples=8, batch=batch))
            for seed, batch in ((0, 32), (0, 32), (1, 32), (0, 3))]
    for name, score in runs[0].items():
        assert torch.equal(score, runs[1][name])
        assert not torch.equal(score, runs[2][name])
    assert all(score.isfinite().all() and (score > 0).all() for score in runs[0].values())
    assert all(p.grad is None and not p.requires_grad for p in G.parameters())


def test_after_a_refit_it_beats_the_worst_channels() -> None:
    """Keeping the channels with the lowest scores is worse."""
    G: Any = tiny.tiny_generator(resolution=8)
    plan = plan_of(G)
    scores = compute("reconstruct", G, plan, ScoreOptions(num_samples=32))
    half = plan.scaled(Fraction(1, 2))
    collected = []
    for sign in (1, -1):
        keep = prune.choose({name: sign * score for name, score in scores.items()}, half)
        report = refit_network("G", G, narrow := prune.slice_network(G, keep), keep, RefitOptions(num_latents=16))
        assert report is not None
        assert narrow.training is False
        collected.append(report.psnr_after)
    assert collected[0] > collected[1]


def test_higher_resolutions_are_measured_on_fewer_latents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconstruct, "_FULL_SIDE", 4)
    monkeypatch.setattr(reconstruct, "MIN_SAMPLES", 2)
    assert [reconstruct._num_samples(16, side) for side in (4, 8, 16, 32)] == [16, 4, 2, 2]
    G = tiny.tiny_generator()
    counted = {}
    original = reconstruct._Consumer.system

    def noted(self: reconstruct._Consumer) -> reconstruct._System:
        name = next(name for name, module in G.named_modules() if module is self.layer)
        counted[name] = self.num_images, self.num_derivatives
        return original(self)

    monkeypatch.setattr(reconstruct._Consumer, "system", noted)
    scores = compute("reconstruct", G, plan_of(G), ScoreOptions(num_samples=16, batch=1))
    layers = {"synthesis.b4.conv1": (16, 2), "synthesis.b8.conv0": (4, 2), "synthesis.b16.conv1": (2, 2)}
    assert {name: counted[name] for name in layers} == layers
    assert all(score.isfinite().all() and (score > 0).all() for score in scores.values())


def test_other_networks_have_no_such_score() -> None:
    for network in (tiny.tiny_discriminator(), tiny_biggan.tiny_generator()):
        path = architectures.class_path(network)
        message = rf"^score: reconstruct is for generators of StyleGAN2 and StyleGAN3, found a {path}; use another"
        with pytest.raises(UserError, match=message):
            compute("reconstruct", network, plan_of(network), ScoreOptions())
