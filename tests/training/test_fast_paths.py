"""The fast CPU paths are the ones in use, and what they compute can be captured as a program."""
from collections import Counter
from typing import Any

import pytest
import torch

from tests.tiny import double_precision, gradients, images, latents, tiny_discriminator, tiny_generator
from torch_utils import training_stats
from torch_utils.ops import cpu_kernels
from training import loss as losses

ARCHITECTURES = ["skip", "resnet", "orig"]
SLOW = {f"aten::{name}" for name in ("leaky_relu", "leaky_relu_", "hardtanh", "clamp", "constant_pad_nd", "addcmul")}


@pytest.fixture
def kernel_calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each native kernel is called."""
    if cpu_kernels.library()[0] is None:
        pytest.skip(f"no native CPU kernels here: {cpu_kernels.library()[1]}")
    calls: Counter[str] = Counter()
    for name in ("epilogue", "fir_epilogue", "gradients", "upfirdn2d"):
        original = getattr(cpu_kernels, name)

        def counted(*args: Any, _name: str = name, _original: Any = original, **kwargs: Any) -> Any:
            calls[_name] += 1
            return _original(*args, **kwargs)

        monkeypatch.setattr(cpu_kernels, name, counted)
    return calls


def operations(run: Any) -> set[str]:
    """The names of torch's operations that a call uses."""
    with torch.profiler.profile() as profile:
        run()
    return {event.key for event in profile.key_averages() if event.key.startswith("aten::")}


def layouts(network: torch.nn.Module, run: Any) -> set[bool]:
    """Whether the inputs of the layers with more than three channels are channels_last, where that is known."""
    collected = set()

    def look(module: torch.nn.Module, args: Any) -> None:
        x = args[0]
        if x.ndim == 4 and min(x.shape[1:]) > 3:
            collected.add(x.is_contiguous(memory_format=torch.channels_last))

    names = ("SynthesisLayer", "Conv2dLayer")
    handles = [m.register_forward_pre_hook(look) for name, m in network.named_modules()
               if type(m).__name__ in names and "b4" not in name]  # fmt: skip
    run()
    for handle in handles:
        handle.remove()
    return collected


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_generating_uses_native_kernels(kernel_calls: Counter[str], architecture: str) -> None:
    G = tiny_generator(architecture, conv_clamp=2.0)
    ws = G.mapping(*latents())
    assert operations(lambda: G.synthesis(ws, noise_mode="const")) & SLOW == set()
    ups, others = 2, 3  # convolutions of a 16 px generator, which are small; each scales its inputs
    assert kernel_calls["fir_epilogue"] == ups
    assert kernel_calls["epilogue"] >= ups + 2 * others
    assert kernel_calls["gradients"] == 0
    assert layouts(G, lambda: G.synthesis(ws)) == {True}


@pytest.mark.parametrize("phase", ["Gmain", "Greg", "Dmain", "Dreg"])
def test_training_uses_native_kernels(kernel_calls: Counter[str], phase: str) -> None:
    G, D = tiny_generator(conv_clamp=2.0).train(), tiny_discriminator(conv_clamp=2.0).train()
    loss = losses.StyleGAN2Loss(torch.device("cpu"), G, D, r1_gamma=1)
    training_stats.Collector()
    used = operations(lambda: gradients(loss, phase, G if phase[0] == "G" else D))
    assert used & SLOW == set()
    assert kernel_calls["epilogue"] > 0
    assert kernel_calls["gradients"] > 0
    assert kernel_calls["upfirdn2d"] > 0
    assert layouts(D, lambda: D(images(), None)) == {True}


@torch.no_grad()
def test_the_torch_path_has_no_needless_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Activation and clamp in place, no zero insertion and no padding on its own."""
    monkeypatch.setattr(cpu_kernels, "enabled", False)
    G = tiny_generator(conv_clamp=2.0)
    ws = G.mapping(*latents())
    used = operations(lambda: G.synthesis(ws, noise_mode="const"))
    assert "aten::leaky_relu_" in used
    assert "aten::hardtanh_" in used
    assert used & {"aten::leaky_relu", "aten::constant_pad_nd"} == set()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_a_large_single_image_has_its_weights_scaled(kernel_calls: Counter[str], architecture: str) -> None:
    """Fewer passes over activations for one image than for each of two, with the same result."""
    G = tiny_generator(architecture, resolution=32)
    ws = G.mapping(*latents(num=2))
    both = G.synthesis(ws, noise_mode="const")
    for_two = kernel_calls["epilogue"]
    alone = torch.cat([G.synthesis(w[None], noise_mode="const") for w in ws])
    assert kernel_calls["epilogue"] - for_two < 2 * for_two
    torch.testing.assert_close(alone, both, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_paths_agree_in_double_precision(monkeypatch: pytest.MonkeyPatch, native: bool, architecture: str) -> None:
    """With per-sample weights in one grouped convolution, contiguous, the code that all descendants share."""
    G, D = tiny_generator(architecture, conv_clamp=1.0).double(), tiny_discriminator("resnet").double()
    with double_precision():
        ws = G.mapping(*(t.double() for t in latents()))
        monkeypatch.setattr(cpu_kernels, "enabled", False)
        shared = G.synthesis(ws, noise_mode="const", fused_modconv=True)
        logits = D(shared, None)
        monkeypatch.setattr(cpu_kernels, "enabled", native)
        torch.testing.assert_close(G.synthesis(ws, noise_mode="const", fused_modconv=False), shared)
        torch.testing.assert_close(D(shared, None), logits)


def captured(name: str) -> tuple[Any, tuple[torch.Tensor, torch.Tensor]]:
    z, c = latents(num=2)
    if name == "G":
        return tiny_generator(resolution=8), (z, c)
    return tiny_discriminator(resolution=8), (images(num=2, resolution=8), c)


@pytest.mark.parametrize("name", ["G", "D"])
@torch.no_grad()
def test_networks_compile_as_one_graph(name: str) -> None:
    network, args = captured(name)
    kwargs = {"noise_mode": "const"} if name == "G" else {}
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*args, **kwargs), network(*args, **kwargs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["G", "D"])
@torch.no_grad()
def test_networks_export_strictly(name: str) -> None:
    network, args = captured(name)
    kwargs = {"noise_mode": "const"} if name == "G" else {}
    program = torch.export.export(network, args, kwargs, strict=True)
    torch.testing.assert_close(program.module()(*args, **kwargs), network(*args, **kwargs), rtol=1e-4, atol=1e-5)
    assert not any("sg2" in str(node.target) for node in program.graph.nodes)
