"""The CUDA kernels on the host under AddressSanitizer and UndefinedBehaviorSanitizer: no access outside a buffer."""
import subprocess
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.torch_utils.ops import host_kernels
from torch_utils.ops import bias_act, bias_act_derivatives, upfirdn2d
from torch_utils.ops.backend import cache, launch_config
from torch_utils.ops.backend.launch_config import Launch

DTYPES = {torch.float16: 1e-3, torch.float32: 1e-6}  # and the largest error as a share of the largest value
LAYOUTS = [torch.contiguous_format, torch.channels_last]
FLAGS = ("-O0", "-g", "-DSHIM_MAIN", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")

Case = tuple[Launch, list[torch.Tensor], torch.Tensor, torch.Tensor]  # launch, buffers, expected result, its size


def sanitizers_work() -> bool:
    """Whether the compiler has them, and programs made with them run here."""
    if host_kernels.COMPILER is None:
        return False
    command = [host_kernels.COMPILER, "-fsanitize=address,undefined", "-x", "c++", "-", "-o", "/dev/null"]
    return subprocess.run(command, input="int main() {}", capture_output=True, text=True).returncode == 0


pytestmark = pytest.mark.skipif(not sanitizers_work(), reason="needs g++ with AddressSanitizer")


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sanitized")
    return host_kernels.build(folder / "kernels", kernels=host_kernels.of_types("f16", "f32"), flags=FLAGS)


def randn(shape, dtype, layout=torch.contiguous_format, seed: int = 0) -> torch.Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return x.contiguous(memory_format=layout) if len(shape) == 4 else x


@st.composite
def resampling(draw: st.DrawFn) -> Case:
    shape = draw(st.tuples(st.integers(1, 2), st.integers(1, 19), st.integers(1, 20), st.integers(1, 40)))
    special = draw(st.booleans())
    fh, fw = (4, 4) if special else draw(st.tuples(*[st.sampled_from([1, 2, 3, 5, 8, 32])] * 2))
    factor = st.integers(1, 4)
    (upx, upy), (downx, downy) = draw(st.tuples(*[st.tuples(factor, factor)] * 2))
    if special:
        (upx, upy), (downx, downy) = draw(st.sampled_from([((1, 1), (1, 1)), ((2, 2), (1, 1)), ((1, 1), (2, 2))]))
    px0, px1, py0, py1 = draw(st.tuples(*[st.integers(-3, 6)] * 4))
    px1 += max(fw - shape[3] * upx - px0 - px1, 0)
    py1 += max(fh - shape[2] * upy - py0 - py1, 0)
    dtype, layout = draw(st.sampled_from(list(DTYPES))), draw(st.sampled_from(LAYOUTS))
    flip, gain = draw(st.booleans()), draw(st.sampled_from([1.0, -2.5]))
    x, f = randn(shape, dtype, layout), randn([fh, fw], torch.float32, seed=1)
    options = dict(up=(upx, upy), down=(downx, downy), padding=[px0, px1, py0, py1], flip_filter=flip, impl="ref")
    expected = upfirdn2d.upfirdn2d(x.double(), f, gain=gain, **options)
    size = upfirdn2d.upfirdn2d(x.double().abs(), f.abs(), gain=abs(gain), **options)
    y = torch.empty(expected.shape, dtype=dtype, memory_format=layout)
    launch = launch_config.upfirdn2d(x, f, y, (upx, upy), (downx, downy), (px0, py0), flip, gain)
    assert launch is not None
    assert special == launch.kernel.startswith("fir4") or (fh, fw) == (4, 4)
    return launch, [x, f, y], expected, size


@st.composite
def activation(draw: st.DrawFn) -> Case:
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 17), st.integers(1, 9), st.integers(1, 9)))
    act, order = draw(st.sampled_from(list(bias_act.activation_funcs))), draw(st.integers(0, 2))
    dim, has_b = draw(st.integers(0, 3)), draw(st.booleans()) and (order == 0 or act == "swish")
    dtype, layout = draw(st.sampled_from(list(DTYPES))), draw(st.sampled_from(LAYOUTS))
    gain, clamp = draw(st.sampled_from([1.0, 1.5])), draw(st.sampled_from([None, 0.5]))
    ref, dy, ddx = (randn(shape, dtype, layout, seed) for seed in range(3))
    if order > 0 and act != "swish":  # what a forward pass would have saved
        ref = bias_act.bias_act(ref, act=act, gain=gain, clamp=clamp, alpha=0.2, impl="ref")
    b = randn([shape[dim]], dtype, seed=3) if has_b else None
    given_ = [ref.double(), None if b is None else b.double()]
    if order == 0:
        expected = bias_act.bias_act(*given_, dim, act, 0.2, gain, clamp, impl="ref")
    else:
        derivatives = dy.double(), ddx.double()
        expected = bias_act_derivatives._derivative_ref(order, *given_, *derivatives, dim, act, 0.2, gain, clamp)
    out = torch.empty_like(ref)
    tensors = [ref, b, dy if order else None, ddx if order == 2 else None, out]
    scalars = (0.2, gain, -1.0 if clamp is None else clamp)
    launch = launch_config.bias_act(order, *tensors, dim, bias_act.activation_funcs[act].cuda_idx, scalars)
    return launch, [t for t in tensors if t is not None], expected, expected.abs().max() + dy.double().abs()


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(cases=st.lists(st.one_of(resampling(), activation()), min_size=40, max_size=60))
def test_no_access_outside_of_buffers(sanitized, cases: list[Case]) -> None:
    results = host_kernels.replay(sanitized, [case[:2] for case in cases])
    for (launch, _, expected, size), result in zip(cases, results, strict=True):
        error = (result.double() - expected).abs().max()
        assert error <= DTYPES[result.dtype] * size.max(), f"{launch.kernel}: off by {error}"


MUTATIONS = {  # name → text in upfirdn2d.cuh, what stands there instead, what the sanitizer says
    "a row below the image": ("mine && oy < y_end", "mine && oy <= y_end", "heap-buffer-overflow"),
    "a pixel before the image": ("source = image + y *", "source = image - 9 + y *", "heap-buffer-overflow"),
    "beyond shared memory": ("using Ring = A[IN_H * PITCH]", "using Ring = A[IN_H * PITCH - 1]", "out of bounds"),
    "a filter of 15 taps": ("taps[k] = filter[k]", "taps[k] = filter[k + 1]", "index 16 out of bounds"),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_sanitizers_notice(name: str, tmp_path: Path) -> None:
    text, instead, message = MUTATIONS[name]
    source = cache.sources()["upfirdn2d.cuh"]
    assert source.count(text) == 1
    kernels = "SG_FIR4(K, f32, float, 1, 1, 1, 32, 32)"
    sources = {"upfirdn2d.cuh": source.replace(text, instead)}
    program = host_kernels.build(tmp_path / "kernels", kernels=kernels, flags=FLAGS, sources=sources)
    x, f = randn([1, 1, 31, 32], torch.float32), randn([4, 4], torch.float32)
    y = torch.empty([1, 1, 31, 32])
    launch = launch_config.upfirdn2d(x, f, y, (1, 1), (1, 1), (1, 1), False, 1.0)
    assert launch is not None
    with pytest.raises(AssertionError, match=message):
        host_kernels.replay(program, [(launch, [x, f, y])])
