"""The registered operations: what PyTorch's own checks say of them, and networks that run through them.

On the CPU they compute in plain torch, or, with `on_host`, by the CUDA kernels compiled for the host.
"""
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from tests import tiny
from torch_utils.ops import bias_act, registry

ops = torch.ops.sg2
ROOT = Path(__file__).parents[3]
ACTS = list(bias_act.activation_funcs)


def randn(*shape: int, seed: int = 0, grad: bool = False) -> torch.Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.requires_grad_(grad)


@pytest.fixture(params=["plain", "kernels"])
def computed_by(request: pytest.FixtureRequest) -> str:
    """Runs a test twice: in plain torch, and by the kernels on the host."""
    if request.param == "kernels":
        request.getfixturevalue("on_host")
    return request.param


RESAMPLING = [  # up, down, padding, flip, gain
    ([1, 1], [1, 1], [1, 2, 1, 2], False, 1.0),
    ([2, 2], [1, 1], [2, 1, 2, 1], False, 4.0),
    ([1, 1], [2, 2], [1, 1, 1, 1], True, 1.0),
    ([3, 2], [2, 1], [-1, 2, 3, -1], False, 0.5),
]


@pytest.mark.parametrize("args", RESAMPLING)
def test_upfirdn2d_has_two_derivatives(computed_by, args) -> None:
    x, f = randn(1, 2, 5, 6, grad=True), randn(4, 4, seed=1).float()

    def resampled(x: torch.Tensor) -> torch.Tensor:
        return ops.upfirdn2d(x, f, *args)

    assert gradcheck(resampled, x)
    assert gradgradcheck(resampled, x)


@pytest.mark.parametrize(("shape", "dim"), [((2, 3, 4), 1), ((3,), 0)])
@pytest.mark.parametrize("clamp", [None, 0.8])
@pytest.mark.parametrize("act", ACTS)
def test_bias_act_has_two_derivatives(computed_by, act: str, clamp: float | None, shape, dim: int) -> None:
    x, b = randn(*shape, grad=True), randn(3, seed=1, grad=True)

    def activated(x: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return ops.bias_act(x, b, dim, act, 0.2, 1.3, clamp)

    assert gradcheck(activated, (x, b))
    assert gradgradcheck(activated, (x, b))


def test_bias_act_has_no_third_derivative() -> None:
    x = randn(3, 4, grad=True)
    y = ops.bias_act(x, None, 1, "tanh", 0.0, 1.0, None)
    for _ in range(2):
        (y,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="no third derivative; pass impl='ref'"):
        y.sum().backward()


@pytest.mark.parametrize(
    ("computed_by", "layout"), [("plain", torch.contiguous_format), ("kernels", torch.channels_last)],
    indirect=["computed_by"],
)  # fmt: skip
def test_opcheck(computed_by, layout) -> None:
    x = randn(2, 3, 5, 6).to(memory_format=layout)
    f, b = randn(4, 4, seed=1).float(), randn(3, seed=1)
    for args in RESAMPLING:
        torch.library.opcheck(ops.upfirdn2d.default, (x.clone().requires_grad_(), f, *args))
    for act in ("linear", "lrelu", "swish"):  # their derivatives need nothing, the output, and the input
        scalars = (1, act, 0.2, 1.3, 0.8)
        ref_b = b if act == "swish" else None
        torch.library.opcheck(ops.bias_act.default, (x.clone().requires_grad_(), b.clone().requires_grad_(), *scalars))
        grad_args = (x.clone().requires_grad_(), x * 0.5, ref_b, *scalars)
        torch.library.opcheck(ops.bias_act_grad.default, grad_args)
        torch.library.opcheck(ops.bias_act_grad2.default, (x, x + 1, x * 0.5, ref_b, *scalars))


# Networks -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def registered(on_host, monkeypatch) -> None:
    """All calls go through the registered operations and the kernels, as they do on a GPU."""
    monkeypatch.setattr(registry, "uses_dispatcher", lambda *tensors: True)


def run_networks(architecture: str) -> list[torch.Tensor]:
    """An image, its logits, and the gradient of a gradient penalty by the image."""
    G, D = tiny.tiny_generator(architecture), tiny.tiny_discriminator("resnet")
    z = torch.randn([2, 16], generator=torch.Generator().manual_seed(0))
    images = G(z, None, noise_mode="const").detach().requires_grad_()
    logits = D(images, None)
    (slope,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.square().sum(), images)
    return [images.detach(), logits.detach(), slope.detach(), curvature]


@pytest.mark.parametrize("architecture", ["skip", "resnet"])
def test_networks_compute_the_same_by_kernels(architecture: str, request, monkeypatch) -> None:
    expected = run_networks(architecture)
    on_host = request.getfixturevalue("on_host")
    monkeypatch.setattr(registry, "uses_dispatcher", lambda *tensors: True)
    for by_kernels, by_torch in zip(run_networks(architecture), expected, strict=True):
        torch.testing.assert_close(by_kernels, by_torch, rtol=1e-4, atol=1e-5)
    used = {launch.kernel for launch in on_host.launches}
    assert {name.split("_")[2] for name in used if name.startswith("fir4")} == {"u1d1", "u1d2", "u2d1"}
    assert {name.split("_")[0] for name in used} >= {"bias", "fir4"}


@pytest.mark.parametrize("network", ["G", "D"])
@pytest.mark.filterwarnings("ignore:At pre-dispatch tracing:UserWarning")  # of torch 2.4, about every custom operation
def test_capture_in_one_graph(registered: None, network: str) -> None:
    """torch.compile(fullgraph=True) and torch.export(strict=True); in plain torch: test_fast_paths.py."""
    args: tuple[torch.Tensor, ...]
    if network == "G":
        module, args = tiny.tiny_generator(resolution=8), (torch.randn([2, 16]), torch.zeros([2, 0]))
    else:
        module, args = tiny.tiny_discriminator(resolution=8), (torch.randn([2, 3, 8, 8]), torch.zeros([2, 0]))
    module = module.eval().requires_grad_(False)
    if network == "G":
        for name, buffer in module.named_parameters():
            if name.endswith("noise_strength"):  # random noise would differ from call to call
                buffer.zero_()
    expected = module(*args)
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*args), expected, rtol=1e-4, atol=1e-5)
    program = torch.export.export(module, args, strict=True)
    torch.testing.assert_close(program.module()(*args), expected, rtol=1e-4, atol=1e-5)
    targets = {str(node.target) for node in program.graph.nodes}
    assert "sg2.upfirdn2d.default" in targets


# What happens when ---------------------------------------------------------------------------------------------------


def test_nothing_is_built_or_loaded_at_import(tmp_path) -> None:
    code = (
        "import sys, subprocess, ctypes\n"
        "def refuse(*args, **kwargs): raise AssertionError(f'{args}')\n"
        "import torch\n"
        "subprocess.Popen = refuse\n"
        "ctypes.CDLL = refuse\n"
        "from torch_utils.ops import bias_act, upfirdn2d, conv2d_resample\n"
        "from training import networks\n"
        "print('torch.utils.cpp_extension' in sys.modules)\n"
    )
    env = {"PATH": "", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("False\n", "")
    assert list(tmp_path.iterdir()) == []
