"""StyleGAN3 generators against reference numbers of the original implementation: T, R, and one of odd settings."""
import ast
import copy
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers import GOLDEN, golden
from torch_utils import checkpoint, misc
from training import networks_stylegan3
from training.checkpoints.rebuilding import rebuild
from training.stylegan3 import records

NAMES = ["sg3t64", "sg3r32", "sg3odd32"]
EXACT = 1e-6  # ws, filters, averages; of max |reference|
IMAGES = 2e-5  # of the standard deviation of img_const
ACTIVATIONS = 1e-5  # of max |reference|
GRADIENTS = 1e-9  # relative, in float64

cpu_paths = pytest.mark.usefixtures("cpu_path")


def load(name: str, role: str = "G_ema") -> Any:
    with open(GOLDEN / f"{name}.pkl", "rb") as f:
        record = checkpoint.read(f)[role]
    assert records.reads(record)
    return rebuild(networks_stylegan3.Generator, records.generator_arguments(record), record.tensors())


def tensor(name: str, key: str) -> torch.Tensor:
    return torch.from_numpy(golden(name)[key])


def relative(actual: torch.Tensor, reference: np.ndarray) -> float:
    assert actual.shape == reference.shape
    return float(np.abs(actual.numpy() - reference).max() / np.abs(reference).max())


def assert_image(actual: torch.Tensor, name: str, key: str) -> None:
    reference = golden(name)[key]
    assert actual.shape == reference.shape
    assert np.abs(actual.numpy() - reference).max() <= IMAGES * golden(name)["img_const"].std()


def layers_of(G: Any) -> dict[str, Any]:
    return {name: G.synthesis.get_submodule(name) for name in G.synthesis.layer_names}


@cpu_paths
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_latents_and_images(name: str) -> None:
    G, ref = load(name), golden(name)
    z, c = tensor(name, "z"), tensor(name, "c")
    ws = G.mapping(z, c)
    assert relative(ws, ref["ws"]) <= EXACT
    truncated = G.mapping(z.double(), c, truncation_psi=0.7, truncation_cutoff=4)
    assert relative(truncated, ref["ws_psi0.7_cutoff4"]) <= EXACT
    assert_image(G.synthesis(ws, noise_mode="const", force_fp32=True), name, "img_const")
    assert_image(G(z[:2], c[:2], truncation_psi=0.5), name, "img_psi0.5")
    assert_image(load(name, "G")(z, c), name, "G_img_const")


@cpu_paths
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_transforms_by_the_user(name: str) -> None:
    G, ref = load(name), golden(name)
    ws = tensor(name, "ws")[:2]
    for i in "01":
        G.synthesis.input.transform.copy_(tensor(name, f"transform{i}").double())
        assert relative(G.synthesis.input(ws[:1, 0])[0, :4], ref[f"input_transform{i}"]) <= ACTIVATIONS
        assert_image(G.synthesis(ws), name, f"img_transform{i}")
    G.synthesis.input.transform = torch.stack([tensor(name, f"transform{i}") for i in "01"])  # one per sample
    both = G.synthesis(ws)
    for i in (0, 1):
        reference = ref[f"img_transform{i}"][i]
        assert np.abs(both[i].numpy() - reference).max() <= IMAGES * ref["img_const"].std()


@cpu_paths
@pytest.mark.parametrize("name", ["sg3r32", "sg3odd32"])
@torch.no_grad()
def test_activations(name: str) -> None:
    G, ref = load(name), golden(f"{name}_layers")
    collected = {}
    for layer, module in G.synthesis.named_children():
        module.register_forward_hook(lambda module, x, y, layer=layer: collected.update({layer: y[0]}))
    G.synthesis(tensor(name, "ws")[:1])
    assert list(collected) == ["input", *golden(name)["layers"].tolist()]
    for layer, y in collected.items():
        assert relative(y[:2], ref[f"act/{layer}"]) <= ACTIVATIONS
        statistics = torch.stack([y.mean([1, 2]), y.square().mean([1, 2]).sqrt()], dim=1)
        assert relative(statistics, ref[f"actstat/{layer}"]) <= ACTIVATIONS


@pytest.mark.parametrize("name", NAMES)
def test_filters_and_geometry(name: str) -> None:
    G = networks_stylegan3.Generator(**ast.literal_eval(str(golden(name)["config"])))
    ref = golden(f"{name}_layers")
    assert G.synthesis.layer_names == golden(name)["layers"].tolist()
    for layer, module in layers_of(G).items():
        for side in ("up", "down"):
            designed = getattr(module, f"{side}_filter")
            if f"filter/{layer}/{side}" not in ref:
                assert designed is None
            else:
                assert relative(designed, ref[f"filter/{layer}/{side}"]) <= EXACT
        m = module
        geometry = [
            m.in_channels, m.out_channels, *m.in_size, *m.out_size, m.in_sampling_rate, m.out_sampling_rate,
            m.tmp_sampling_rate, m.up_factor, m.down_factor, m.up_taps, m.down_taps, *m.padding,
            m.is_critically_sampled, m.is_torgb, m.use_fp16, m.down_radial, m.conv_kernel, m.in_cutoff, m.out_cutoff,
            m.in_half_width, m.out_half_width,
        ]
        np.testing.assert_allclose(np.array(geometry, dtype=float), ref[f"geom/{layer}"], rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_initial_weights(name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(21)
        G = networks_stylegan3.Generator(**ast.literal_eval(str(golden(name)["config"])))
    expected = {key.removeprefix("init/"): value for key, value in golden(name).items() if key.startswith("init/")}
    tensors = misc.named_params_and_buffers(G)
    assert [key for key, _ in tensors] == list(expected)
    for key, t in tensors:
        t = t.detach().double()
        np.testing.assert_allclose([t.sum(), t.abs().sum(), t.norm()], expected[key], rtol=1e-6,
                                   atol=1e-6 * expected[key][1])


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_moving_averages(name: str) -> None:
    G, ref = load(name), golden(name)
    before = copy.deepcopy(G.state_dict())
    z, c = tensor(name, "z")[:2], tensor(name, "c")[:2]
    G(z, c)
    assert all(torch.equal(value, before[key]) for key, value in G.state_dict().items())
    assert_image(G(z, c, update_emas=True), name, "emas/img")
    assert relative(G.mapping.w_avg, ref["emas/w_avg"]) <= EXACT
    magnitudes = torch.stack([layer.magnitude_ema for layer in layers_of(G).values()])
    assert relative(magnitudes, ref["emas/magnitude_ema"]) <= EXACT


def assert_gradients(name: str, group: str, G: Any, ws: torch.Tensor, loss: torch.Tensor) -> None:
    """Gradients in float64: that of ws, and sum, sum of absolute values and norm of every parameter's."""
    ref = golden(name)
    result = torch.autograd.grad(loss, [ws, *G.parameters()], allow_unused=True)
    assert relative(result[0], ref[f"{group}/ws"]) <= GRADIENTS
    largest = max(value[2] for key, value in ref.items() if key.startswith(f"{group}/") and value.shape == (3,))
    for (parameter, p), gradient in zip(G.named_parameters(), result[1:], strict=True):
        key = f"{group}/{parameter}"
        if key in ref:
            gradient = torch.zeros_like(p) if gradient is None else gradient
            triple = np.array([gradient.sum(), gradient.abs().sum(), gradient.norm()])
            scale = np.maximum(ref[key][[1, 1, 2]], 1e-3 * largest)
            assert np.all(np.abs(triple - ref[key]) <= GRADIENTS * scale), key


@pytest.mark.parametrize("name", ["sg3t64", pytest.param("sg3r32", marks=pytest.mark.slow), "sg3odd32"])
def test_gradients_of_both_orders(name: str) -> None:
    G = load(name).double().requires_grad_(True)
    ws = tensor(name, "ws")[:2].double().requires_grad_()
    direction = tensor(name, "gy").double()
    img = G.synthesis(ws)
    assert img.dtype == torch.float64
    assert_gradients(name, "g1", G, ws, (img * direction).mean())
    total = (G.synthesis(ws) * direction).sum() / img.shape[2:].numel() ** 0.5
    (by_w,) = torch.autograd.grad(total, ws, create_graph=True)
    lengths = by_w.square().sum(dim=2).mean(dim=1).sqrt()
    assert relative(lengths.detach(), golden(name)["g2/lengths"]) <= GRADIENTS
    assert_gradients(name, "g2", G, ws, (lengths - 0.1).square().mean())


@pytest.mark.parametrize("case", "abcde")
def test_modulated_convolution(case: str) -> None:
    ref, prefix = golden("sg3ops"), f"modconv/{case}"
    weight, demodulate, padding = {
        "a": ("w3", True, 2), "b": ("w1", True, 0), "c": ("w1", False, 0), "d": ("w3", False, 1), "e": ("w3", True, 2),
    }[case]
    x, w, s = (torch.from_numpy(ref[key]).requires_grad_() for key in ("x", weight, "s"))
    gain = torch.from_numpy(ref[f"{prefix}/input_gain"]) if f"{prefix}/input_gain" in ref else None
    y = networks_stylegan3.modulated_conv2d(x, w, s, demodulate=demodulate, padding=padding, input_gain=gain)
    gradients = torch.autograd.grad((y * torch.from_numpy(ref[f"{prefix}/v"])).sum(), [x, w, s])
    for key, result in zip(("y", "dx", "dw", "ds"), (y.detach(), *gradients), strict=True):
        assert relative(result, ref[f"{prefix}/{key}"]) <= ACTIVATIONS


@pytest.mark.parametrize("case", range(8))
def test_filter_design(case: int) -> None:
    ref = golden("sg3ops")
    arguments = ast.literal_eval(str(ref[f"design/{case}/args"]))
    design = networks_stylegan3.SynthesisLayer.design_lowpass_filter
    result = design(**arguments) if isinstance(arguments, dict) else design(*arguments)
    assert relative(result, ref[f"design/{case}"]) <= EXACT
