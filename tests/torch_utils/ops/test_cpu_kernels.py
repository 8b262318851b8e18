"""The native CPU kernels against the plain torch formulation: values, derivatives, layouts, and how they are built."""
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from tests import forks
from torch_utils.ops import bias_act, conv2d_gradfix, conv2d_resample, cpu_build, cpu_kernels, resampling, upfirdn2d

LAYOUTS = [torch.contiguous_format, torch.channels_last]
needs_compiler = pytest.mark.skipif(
    cpu_kernels.library()[0] is None, reason=f"no native CPU kernels here: {cpu_kernels.library()[1]}"
)


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def plain(x, scale, noise, b, act, gain, clamp):
    """The definition, in the operations that everything is compared with."""
    y = x if scale is None else x * scale[:, :, None, None]
    y = y if noise is None else y + noise
    y = y if b is None else y + b[:, None, None]
    y = {"linear": lambda v: v, "relu": torch.relu, "lrelu": lambda v: torch.where(v > 0, v, 0.2 * v)}[act](y) * gain
    return y if clamp is None else y.clamp(-clamp, clamp)


@needs_compiler
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 5, 7), (3, 16, 9, 8), (2, 33, 70, 70)])
def test_epilogue_equals_its_definition(shape, dtype, layout) -> None:
    n, c, h, w = shape
    x = randn(*shape, dtype=dtype).to(memory_format=layout)
    scales = [None, randn(n, c, seed=1, dtype=dtype)]
    noises = [None, randn(h, w, seed=2, dtype=dtype), randn(n, 1, h, w, seed=3, dtype=dtype)]
    biases = [None, randn(c, seed=4, dtype=dtype)]
    acts = ["linear", "lrelu", "relu"]
    for scale, noise, b, act, clamp in itertools.product(scales, noises, biases, acts, [None, 1]):
        if scale is None and noise is not None:
            continue
        expected = plain(x, scale, noise, b, act, 1.3, clamp)
        if scale is None:
            result = bias_act.bias_act(x, b, act=act, gain=1.3, clamp=clamp)
        else:
            result = bias_act.scale_bias_act(x, scale, noise, b, act, 1.3, clamp)
        torch.testing.assert_close(result, expected, rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=1e-6)
        assert result.is_contiguous(memory_format=layout)


def test_overwriting_saves_memory_but_never_a_graph(cpu_path: str) -> None:
    x, scale, b = randn(2, 3, 4, 4), randn(2, 3, seed=1), randn(3, seed=2)
    expected = plain(x, scale, None, b, "lrelu", 1.5, 1.0)
    kept = x.clone()
    torch.testing.assert_close(bias_act.scale_bias_act(x, scale, None, b, "lrelu", 1.5, 1.0), expected)
    assert torch.equal(x, kept)
    scale.requires_grad_()
    bias_act.scale_bias_act(x, scale, None, b, "lrelu", 1.5, 1.0, overwrite=True)
    assert torch.equal(x, kept)
    y = bias_act.scale_bias_act(x, scale.detach(), None, b, "lrelu", 1.5, 1.0, overwrite=True)
    torch.testing.assert_close(y, expected)
    assert y.data_ptr() == x.data_ptr()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("clamp", [None, 1.0])
@pytest.mark.parametrize("act", ["linear", "lrelu", "relu", "tanh"])
@pytest.mark.parametrize("shared_noise", [False, True])
def test_epilogue_gradients(cpu_path: str, act: str, clamp: float | None, layout, shared_noise: bool) -> None:
    x = randn(2, 3, 3, 2).to(memory_format=layout).requires_grad_()
    noise = randn(3, 2, seed=2) if shared_noise else randn(2, 1, 3, 2, seed=2)
    inputs = (x, randn(2, 3, seed=1), noise, randn(3, seed=3))
    for tensor in inputs[1:]:
        tensor.requires_grad_()

    def op(*tensors: torch.Tensor) -> torch.Tensor:
        return bias_act.scale_bias_act(*tensors, act=act, gain=1.3, clamp=clamp)

    assert gradcheck(op, inputs)
    assert gradgradcheck(op, inputs)


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_bias_along_any_axis(cpu_path: str, dim: int) -> None:
    x, b = randn(4, 3, 5).requires_grad_(), randn((4, 3, 5)[dim], seed=1).requires_grad_()
    assert gradcheck(lambda x, b: bias_act.bias_act(x, b, dim=dim, act="lrelu", clamp=1.0), (x, b))
    assert gradgradcheck(lambda x, b: bias_act.bias_act(x, b, dim=dim, act="lrelu", clamp=1.0), (x, b))


@pytest.mark.parametrize("clamp", [None, 1.0])
@pytest.mark.parametrize("act", ["linear", "lrelu", "tanh"])
@pytest.mark.parametrize("impl", ["cuda", "ref"])
def test_bias_of_a_vector(cpu_path: str, impl: str, act: str, clamp: float | None) -> None:
    """Its only axis is that of the bias: nothing is summed."""
    x, b = randn(5).requires_grad_(), randn(5, seed=1).requires_grad_()

    def activated(x: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return bias_act.bias_act(x, b, dim=0, act=act, gain=1.3, clamp=clamp, impl=impl)

    assert gradcheck(activated, (x, b))
    assert gradgradcheck(activated, (x, b))


@needs_compiler
def test_sums_over_many_pixels_are_accurate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bias and scale gradients of a large image: better than adding up in float32 one by one."""
    x, scale, b = randn(1, 4, 512, 512, dtype=torch.float32), torch.ones(1, 4), torch.zeros(4)
    for layout in LAYOUTS:
        tensors = [t.clone().requires_grad_() for t in (x.to(memory_format=layout), scale, b)]
        y = bias_act.scale_bias_act(tensors[0], tensors[1], None, tensors[2], "lrelu", 1.0)
        result = torch.autograd.grad(y.sum(), tensors[1:])
        slope = torch.where(x > 0, 1.0, 0.2).double()
        torch.testing.assert_close(result[0][0].double(), (slope * x)[0].sum([1, 2]), rtol=2e-7, atol=0)
        torch.testing.assert_close(result[1].double(), slope.sum([0, 2, 3]), rtol=3e-6, atol=0)  # of 0.2 itself


FIRS = [
    dict(),
    dict(padding=[2, 1, 2, 1], up=2, gain=4),
    dict(padding=[1, 1, 1, 1], down=2, flip_filter=True),
    dict(padding=[4, -1, 0, 3], up=3, down=2),
    dict(padding=[-1, 3, 2, 2], up=(1, 2), down=(3, 1), gain=0.5),
    dict(padding=[9, 11, 12, 8], up=2, down=3),
    dict(padding=[-3, 20, 20, -3]),
]


@needs_compiler
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("options", FIRS)
@pytest.mark.parametrize("shape", [(1, 1, 6, 7), (2, 3, 9, 8), (1, 33, 8, 200), (1, 2, 5, 5000)])
def test_fir_equals_the_torch_path(shape, options: dict, layout) -> None:
    taps = [upfirdn2d.setup_filter([1, 3, 3, 1]), randn(4, 4, seed=1).float(), randn(3, 5, seed=2).float(),
            upfirdn2d.setup_filter(list(range(1, 10))), randn(1, 1, seed=3).float(), torch.ones(2, 6)]  # fmt: skip
    for dtype, f in itertools.product([torch.float32, torch.float64], taps):
        x = randn(*shape, dtype=dtype).to(memory_format=layout)
        try:
            expected = upfirdn2d.upfirdn2d(x, f, impl="ref", **options)
        except ValueError:
            with pytest.raises(ValueError, match="does not fit"):
                upfirdn2d.upfirdn2d(x, f, **options)
            continue
        result = upfirdn2d.upfirdn2d(x, f, **options)
        tolerance = 1e-5 if dtype == torch.float32 else 1e-12
        torch.testing.assert_close(result, expected, rtol=tolerance, atol=tolerance)
        assert result.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("options", [dict(), dict(up=2), dict(down=2), dict(padding=[-1, 2, 0, 1], groups=2)])
def test_convolution_gradients_in_any_layout(cpu_path: str, options: dict) -> None:
    options = {"padding": 1, **options}
    f = upfirdn2d.setup_filter([1, 3, 3, 1])
    for layout in LAYOUTS:
        x = randn(1, 2, 3, 4).to(memory_format=layout).requires_grad_()
        w = randn(2, 2 // options.get("groups", 1), 3, 3, seed=1).requires_grad_()
        assert gradcheck(lambda x, w: conv2d_resample.conv2d_resample(x, w, f, **options), (x, w))
        assert gradgradcheck(lambda x, w: conv2d_resample.conv2d_resample(x, w, f, **options), (x, w))


def test_gradients_of_weights_can_be_left_out() -> None:
    x, w = randn(1, 2, 5, 5).requires_grad_(), randn(3, 2, 3, 3, seed=1).requires_grad_()
    y = conv2d_resample.conv2d_resample(x, w, padding=1)
    with conv2d_gradfix.no_weight_gradients():
        dx, dw = torch.autograd.grad(y.square().sum(), (x, w), create_graph=True, allow_unused=True)
    assert dw is None
    twice = torch.autograd.grad(dx.square().sum(), w)[0]
    x2, w2 = x.detach().requires_grad_(), w.detach().requires_grad_()
    y = torch.nn.functional.conv2d(x2, w2, padding=1)
    (dx,) = torch.autograd.grad(y.square().sum(), x2, create_graph=True)
    torch.testing.assert_close(twice, torch.autograd.grad(dx.square().sum(), w2)[0])


@needs_compiler
def test_the_number_of_threads_does_not_change_the_bits() -> None:
    x, b = randn(3, 8, 80, 90, dtype=torch.float32).to(memory_format=torch.channels_last), randn(8).float()
    f = upfirdn2d.setup_filter([1, 3, 3, 1])
    before, result = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            leaf = x.clone().requires_grad_()
            bias = b.clone().requires_grad_()
            y = upfirdn2d.upfirdn2d(bias_act.bias_act(leaf, bias, act="lrelu"), f, padding=1)
            result.append([y.detach(), *torch.autograd.grad(y.square().sum(), (leaf, bias))])
    finally:
        torch.set_num_threads(before)
    for other in result[1:]:
        for a, c in zip(result[0], other):
            torch.testing.assert_close(a, c, rtol=0, atol=0) if a.ndim == 4 else torch.testing.assert_close(a, c)


@needs_compiler
@pytest.mark.parametrize(("divisor", "is_native"), [(1, True), (3, False)])
def test_filters_of_networks_in_float64(divisor: int, is_native: bool) -> None:
    """The kernels take filters in float32; others must not be rounded to it."""
    x, f = randn(1, 2, 9, 8), upfirdn2d.setup_filter([1, 3, 3, 1]).double() / divisor
    arguments = ((2, 2), (1, 1), (2, 1, 2, 1), False, 4.0)
    assert (resampling.UPFIRDN2D.compiled(x, f, *arguments) is not None) == is_native
    expected = resampling.resample_ref(x, f, *arguments)
    torch.testing.assert_close(resampling.resample(x, f, *arguments), expected, rtol=1e-12, atol=1e-13)


def run(code: str, **environment: str) -> str:
    done = forks.run(code, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


PRINT = "import torch; from torch_utils.ops import bias_act, cpu_kernels; " \
        "print(bias_act.bias_act(torch.ones(1, 2, 3, 3), act='lrelu').sum().item(), cpu_kernels.describe())"


@needs_compiler
def test_the_build_is_cached_and_complete(tmp_path: Path) -> None:
    assert "native kernels" in run(PRINT, DNNLIB_CACHE_DIR=str(tmp_path))
    (library,) = tmp_path.rglob("*.so")
    made = library.stat().st_mtime_ns
    assert "native kernels" in run(PRINT, DNNLIB_CACHE_DIR=str(tmp_path))
    assert library.stat().st_mtime_ns == made
    suffixes = sorted(path.suffix for path in library.parent.iterdir() if path.suffix != ".lock")
    assert suffixes == [".sha256", ".so"]  # the library and its check sum


def test_without_a_compiler_torch_computes_without_a_message(tmp_path: Path) -> None:
    out = run(PRINT, CXX="/nowhere/c++", DNNLIB_CACHE_DIR=str(tmp_path))
    assert out.startswith("25.45")
    assert "plain torch (no host compiler: /nowhere/c++ not found on the PATH)" in out
    assert len(out.splitlines()) == 1


def test_a_compiler_that_fails_is_no_obstacle(tmp_path: Path) -> None:
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\necho internal error >&2\nexit 3\n")
    compiler.chmod(0o755)
    out = run(PRINT, CXX=str(compiler), DNNLIB_CACHE_DIR=str(tmp_path))
    assert "plain torch" in out
    assert "exit status 3: internal error" in out


def test_sg_ops_ref_switches_them_off() -> None:
    """The variable is read when the modules are imported."""
    env = {**os.environ, "SG_OPS": "ref"}
    printed = subprocess.check_output([sys.executable, "-c", PRINT], cwd=forks.ROOT, env=env, text=True)
    assert "plain torch, as SG_OPS=ref asks for" in printed


def test_flags_keep_the_process_arithmetic() -> None:
    assert not {"-ffast-math", "-Ofast", "-funsafe-math-optimizations"} & set(cpu_build.FLAGS)
