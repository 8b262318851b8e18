"""The CUDA kernels' own source, run on the host, against plain torch in double precision."""
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from torch_utils.ops import bias_act, upfirdn2d
from torch_utils.ops.backend import launch_config

# Largest error as a share of the largest value; for a sum, of what it would be if no terms cancelled. For the half
# types it is their rounding, for the others that of up to 1024 terms.
TOLERANCE = {torch.float16: 1e-3, torch.bfloat16: 8e-3, torch.float32: 1e-6, torch.float64: 1e-13}
DTYPES = list(TOLERANCE)
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def randn(shape, dtype=torch.float64, layout=torch.contiguous_format, seed: int = 0) -> torch.Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.to(dtype).to(memory_format=layout) if len(shape) == 4 else x.to(dtype)


def assert_near(result: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype, size: float | None = None) -> None:
    assert result.dtype == dtype
    assert result.shape == expected.shape
    error = (result.double() - expected).abs().max().item()
    size = max(expected.abs().max().item(), 1e-3) if size is None else size
    assert error <= TOLERANCE[dtype] * size, f"off by {error} of {size}"


def check_upfirdn2d(x, f, up=(1, 1), down=(1, 1), padding=(0, 0, 0, 0), flip=False, gain=1.0) -> torch.Tensor:
    """Compares the operation that is tested with the reference; returns its result."""
    result = torch.ops.sg2.upfirdn2d(x, f, up, down, padding, flip, gain)
    options = dict(up=up, down=down, padding=padding, flip_filter=flip, impl="ref")
    size = upfirdn2d.upfirdn2d(x.double().abs(), f.abs(), gain=abs(gain), **options).max().item()
    assert_near(result, upfirdn2d.upfirdn2d(x.double(), f, gain=gain, **options), x.dtype, size)
    return result


# 4x4 kernels --------------------------------------------------------------------------------------------------------

SIZES = [(1, 1), (3, 2), (5, 40), (17, 33), (40, 131), (70, 20)]  # h, w


@pytest.mark.parametrize("layout", LAYOUTS, ids=["planes", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("up", "down"), [(1, 1), (1, 2), (2, 1)])
def test_fir4_sizes(on_host, up, down, dtype, layout) -> None:
    f = randn([4, 4], torch.float32, seed=1)
    for (h, w), channels in zip(SIZES, (1, 3, 17, 5, 2, 20), strict=True):
        x = randn([1, channels, h, w], dtype, layout)
        check_upfirdn2d(x, f, (up, up), (down, down), (2, 1, 3, 2), gain=1.5)
    used = {launch.kernel for launch in on_host.launches}
    assert all(kernel.startswith("fir4_") for kernel in used)
    if layout == torch.channels_last:  # an image of one channel counts as planes
        assert len(used) == 2
    else:  # every width of tile has been used
        planes = f"fir4_{launch_config.TAGS[dtype]}_u{up}d{down}_c1w"
        assert used == {kernel for kernel in on_host.kernels if kernel.startswith(planes)}


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 40), st.integers(1, 40)),
    factors=st.sampled_from([(1, 1), (1, 2), (2, 1)]),
    padding=st.tuples(*[st.integers(-3, 6)] * 4),
    flip=st.booleans(),
    gain=st.sampled_from([1.0, 4.0, -0.3]),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(LAYOUTS),
    seed=st.integers(0, 9),
)
def test_fir4_property(on_host, shape, factors, padding, flip, gain, dtype, layout, seed) -> None:
    up, down = factors
    width, height = shape[3] * up + padding[0] + padding[1], shape[2] * up + padding[2] + padding[3]
    padding = (*padding[:1], padding[1] + max(4 - width, 0), padding[2], padding[3] + max(4 - height, 0))
    on_host.seed(seed)
    x, f = randn(shape, dtype, layout), randn([4, 4], torch.float32, seed=1)
    check_upfirdn2d(x, f, (up, up), (down, down), padding, flip, gain)


@pytest.mark.parametrize(("up", "down"), [(1, 1), (1, 2), (2, 1)])
def test_fir4_cuts_tall_images_into_blocks(on_host, up, down) -> None:
    x, f = randn([2, 2, 190, 9], torch.float32), randn([4, 4], torch.float32, seed=1)
    check_upfirdn2d(x, f, (up, up), (down, down), (2, 1, 2, 1))
    assert on_host.launches[0].grid[1] > 1


def test_fir4_more_images_than_a_grid_is_deep(on_host, monkeypatch) -> None:
    monkeypatch.setattr(launch_config, "_MAX_GRID_YZ", 2)
    launch_config._configure_upfirdn2d.cache_clear()
    check_upfirdn2d(randn([5, 2, 6, 7], torch.float32), randn([4, 4], torch.float32, seed=1), padding=(2, 1, 2, 1))
    assert on_host.launches[0].grid[2] == 2
    launch_config._configure_upfirdn2d.cache_clear()


def test_weights_of_zero_do_not_spread_infinities(on_host) -> None:
    """The reference computes 0 * inf = nan at such places, too: only those where the filter reaches."""
    x = torch.zeros(1, 1, 12, 12)
    x[0, 0, 5, 5] = math.inf
    y = torch.ops.sg2.upfirdn2d(x, torch.ones(4, 4), (2, 2), (1, 1), (2, 1, 2, 1), False, 1.0)
    finite = torch.ops.sg2.upfirdn2d(x.isinf().float(), torch.ones(4, 4), (2, 2), (1, 1), (2, 1, 2, 1), False, 1.0)
    assert torch.equal(y.isfinite(), finite == 0)


# General kernel -----------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)),
    taps=st.tuples(st.sampled_from([1, 2, 3, 5, 7, 12, 32]), st.sampled_from([1, 2, 4, 6, 11, 32])),
    up=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    down=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    padding=st.tuples(*[st.integers(-3, 8)] * 4),
    flip=st.booleans(),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(LAYOUTS),
)
def test_general_property(on_host, shape, taps, up, down, padding, flip, dtype, layout) -> None:
    width = shape[3] * up[0] + padding[0] + padding[1]
    height = shape[2] * up[1] + padding[2] + padding[3]
    padding = (padding[0], padding[1] + max(taps[1] - width, 0), padding[2], padding[3] + max(taps[0] - height, 0))
    x, f = randn(shape, dtype, layout), randn(taps, torch.float32, seed=1)
    check_upfirdn2d(x, f, up, down, padding, flip, 1.7)


@pytest.mark.parametrize("layout", LAYOUTS, ids=["planes", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_general_with_64_bit_counters(on_host, dtype, layout) -> None:
    x, f = randn([2, 3, 5, 7], dtype, layout), randn([4, 4], torch.float32, seed=1)
    expected = upfirdn2d.upfirdn2d(x.double(), f, up=2, down=3, padding=[2, 1, 3, 4], gain=1.7)
    y = torch.empty(expected.shape, dtype=dtype, memory_format=layout)
    launch = launch_config.upfirdn2d(x, f, y, (2, 2), (3, 3), (2, 3), False, 1.7, wide_index=True)
    assert launch.kernel.endswith("_i64")
    on_host.launch(launch, 0, 0)
    assert_near(y, expected, dtype)


def test_data_beyond_two_to_the_31(on_host) -> None:
    """Images that lie 2^31 elements apart: 4 GiB of addresses, of which only the few pages in use take memory."""
    apart = 2**31 + 32
    memory = np.lib.stride_tricks.as_strided(
        np.zeros(apart + 400, np.float16)[:1], [2, 1, 20, 20], [2 * s for s in (apart, 400, 20, 1)]
    )
    x = torch.from_numpy(memory)
    x.copy_(randn([2, 1, 20, 20], torch.float16))
    for f in (randn([4, 4], torch.float32, seed=1), randn([3, 5], torch.float32, seed=1)):
        check_upfirdn2d(x, f, padding=(2, 1, 2, 1))
    assert [launch.kernel[:4] for launch in on_host.launches] == ["fir4", "upfi"]


def test_numbers_that_the_kernels_cannot_count_are_declined() -> None:
    meta = {"device": "meta", "dtype": torch.float32}
    x, f, y = torch.empty([1, 1, 4, 2**30], **meta), torch.empty([4, 4], **meta), torch.empty([1, 1, 8, 2**31], **meta)
    assert launch_config.upfirdn2d(x, f, y, (2, 2), (1, 1), (2, 2), False, 1.0) is None
    y = torch.empty([1, 1, 4, 2**30], **meta)
    launch = launch_config.upfirdn2d(x, f, y, (1, 1), (1, 1), (2, 2), False, 1.0)
    assert launch.kernel.startswith("fir4")
    assert launch.grid[0] == 2**30 // 256


def test_over_two_to_the_31_outputs_take_64_bit_counters() -> None:
    x, f = torch.empty([4, 2**10, 2**10, 2**10], device="meta"), torch.empty([3, 3], device="meta")
    assert launch_config.upfirdn2d(x, f, x, (1, 1), (1, 1), (1, 1), False, 1.0).kernel == "upfirdn2d_f32_i64"
    assert launch_config.bias_act(0, x, None, None, None, x, 1, 3, (0.2, 1.0, -1.0)).kernel == "bias_act0_f32_i64"
    scalars = (0.2, 1.0, -1.0)
    assert launch_config.bias_act(0, x[:1], None, None, None, x[:1], 1, 3, scalars).kernel == "bias_act0_f32_i32"


@pytest.mark.parametrize("taps", [(4, 4), (3, 3)])
def test_sliced_inputs_are_read_where_they_are(on_host, taps) -> None:
    big, f = randn([3, 6, 30, 40], torch.float32), randn([8, 8], torch.float32, seed=1)
    for x in (
        big[1:, 1:4, 3:20, 5:30],
        big.to(memory_format=torch.channels_last)[1:, 1:4, 3:20, 5:30],
        big[:, ::2, ::3, ::2],
        big.flip(0).transpose(2, 3)[:, :3],
        big[:1, :1].expand(2, 3, 30, 40),
    ):
        check_upfirdn2d(x, f[: taps[0], 1 : 1 + taps[1]], padding=(1, 2, 2, 1))
        assert on_host.launches[-1].params.x == x.data_ptr()


def test_layout_of_the_result(on_host) -> None:
    f = torch.ones(4, 4)
    for layout in LAYOUTS:
        y = check_upfirdn2d(randn([2, 3, 6, 7], torch.float32, layout), f, padding=(2, 1, 2, 1))
        assert y.is_contiguous(memory_format=layout)


# bias_act -----------------------------------------------------------------------------------------------------------

BIAS_ACT_SHAPES = [  # and the axis of the bias
    ([2, 3, 4, 8], 1),
    ([2, 16, 3, 3], 1),
    ([1, 1, 1, 1], 1),
    ([7, 40], 1),
    ([5], 0),
    ([3, 2, 11], 2),
    ([2, 1, 5, 1], 0),
]


def check_bias_act(on_host, x, b, dim, act, alpha, gain, clamp) -> None:
    """Compares order 0 with the reference's value, and orders 1 and 2 with what autograd makes of the reference."""
    dtype = x.dtype
    y = torch.ops.sg2.bias_act(x, b, dim, act, alpha, gain, clamp)
    x64, b64 = x.double().requires_grad_(), None if b is None else b.double()
    y64 = bias_act.bias_act(x64, b64, dim, act, alpha, gain, clamp, impl="ref")
    assert_near(y, y64.detach(), dtype)
    assert y.is_contiguous(memory_format=torch.channels_last) == x.is_contiguous(memory_format=torch.channels_last) \
        if x.ndim == 4 else y.is_contiguous()  # fmt: skip

    dy, ddx = torch.randn_like(x), torch.randn_like(x)
    swish = act == "swish"
    ref, ref_b = (x, b) if swish else (y, None)
    dx = torch.ops.sg2.bias_act_grad(dy, ref, ref_b, dim, act, alpha, gain, clamp)
    (dx64,) = torch.autograd.grad(y64, x64, dy.double(), create_graph=True)
    second = torch.ops.sg2.bias_act_grad2(ddx, dy, ref, ref_b, dim, act, alpha, gain, clamp)
    if not swish:  # the operation stops at y; its own slope leads on to x
        second = torch.ops.sg2.bias_act_grad(second, ref, ref_b, dim, act, alpha, gain, clamp)
    second64 = torch.zeros_like(x64)
    if dx64.requires_grad:
        (second64,) = torch.autograd.grad(dx64, x64, ddx.double(), allow_unused=True, materialize_grads=True)
    # A derivative feels the rounding of the stored y: where y saturates, a few units of its last place; and whether an
    # output within that of the clamp was cut, nobody can tell.
    slack = 1 if dtype in (torch.float32, torch.float64) and act != "softplus" else 4
    free = bias_act.bias_act(x64.detach(), b64, dim, act, alpha, gain, impl="ref").abs()
    is_clear = torch.ones_like(free, dtype=torch.bool)  # on which side of the clamp the output is
    if clamp is not None:
        is_clear = (free / clamp - 1).abs() > 2 * TOLERANCE[dtype]
    for result, expected in ((dx, dx64.detach()), (second, second64)):
        error = ((result.double() - expected) * is_clear).abs().max()
        assert error <= slack * TOLERANCE[dtype] * max(expected.abs().max(), gain), f"{act}: off by {error}"
    orders = {launch.kernel[8] for launch in on_host.launches}
    assert orders == {"0", "1", "2"}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("act", bias_act.activation_funcs)
def test_bias_act(on_host, act, dtype) -> None:
    default = bias_act.activation_funcs[act]
    scalars = [(float(default.def_alpha), float(default.def_gain), None), (0.3, 2.0, 0.7), (0.1, 0.5, None)]
    for (shape, dim), (alpha, gain, clamp) in itertools.product(BIAS_ACT_SHAPES, scalars):
        x, b = randn(shape, dtype), randn([shape[dim]], dtype, seed=1)
        check_bias_act(on_host, x, b if gain != 0.5 else None, dim, act, alpha, gain, clamp)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 17), st.integers(1, 9), st.integers(1, 9)),
    act=st.sampled_from(list(bias_act.activation_funcs)),
    dim=st.integers(0, 3),
    has_b=st.booleans(),
    gain=st.sampled_from([1.0, 1.4, -0.7]),
    clamp=st.sampled_from([None, 0.0, 0.4]),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(LAYOUTS),
)
def test_bias_act_property(on_host, shape, act, dim, has_b, gain, clamp, dtype, layout) -> None:
    x, b = randn(shape, dtype, layout), randn([shape[dim]], dtype, seed=1) if has_b else None
    y = torch.ops.sg2.bias_act(x, b, dim, act, 0.2, gain, clamp)
    options = dict(dim=dim, act=act, alpha=0.2, gain=gain, clamp=clamp, impl="ref")
    assert_near(y, bias_act.bias_act(x.double(), None if b is None else b.double(), **options), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", [0, 1, 2])
def test_bias_act_with_64_bit_counters(on_host, order, dtype) -> None:
    x, dy, ddx = (randn([2, 16, 3, 8], dtype, seed=i) for i in range(3))
    b, results = randn([16], dtype, seed=3), []
    for wide in (False, True):
        y = torch.empty_like(x)
        launch = launch_config.bias_act(order, x, b, dy, ddx, y, 1, 9, (0.0, 1.4, 0.8), wide)
        assert launch.kernel.endswith("i64" if wide else "i32")
        on_host.launch(launch, 0, 0)
        results.append(y)
    assert torch.equal(*results)


def test_bias_act_packs_where_it_can(on_host) -> None:
    """16 bytes at a time if no pack holds two biases or lies askew; the rest of the elements one by one."""
    whole = randn([8 * 40 + 1], torch.float16)
    for x, b, packed in (
        (whole[:320].view(2, 4, 40), randn([4], torch.float16), True),
        (whole[1:].view(2, 4, 40), randn([4], torch.float16), False),  # not aligned
        (whole[:300].view(3, 20, 5), randn([20], torch.float16), False),  # five elements per bias
        (whole[:300].view(3, 100), None, True),  # 37 packs and four elements
        (whole[:320].view(10, 32), randn([32], torch.float16), True),  # the biases go with the elements
        (whole[:300].view(10, 30), randn([30], torch.float16), False),
    ):
        y = torch.ops.sg2.bias_act(x, b, 1, "lrelu", 0.2, 1.4, None)
        assert bool(on_host.launches[-1].params.packed) == packed
        b64 = None if b is None else b.double()
        assert_near(y, bias_act.bias_act(x.double(), b64, 1, "lrelu", 0.2, 1.4, impl="ref"), torch.float16)


@pytest.mark.parametrize("act", bias_act.activation_funcs)
def test_bias_act_at_extreme_inputs(on_host, act) -> None:
    """Saturation, kinks and what is not a number come out as torch has them."""
    x = torch.tensor([-math.inf, -1e30, -200.0, -90.0, -20.0, -1e-30, -0.0, 0.0, 1e-30, 20.0, 20.5, 90.0, 200.0, 1e30,
                      math.inf, math.nan])  # fmt: skip
    for clamp in (None, 100.0):
        result = torch.ops.sg2.bias_act(x, None, 0, act, 0.2, 1.0, clamp)
        expected = bias_act.bias_act(x, None, 0, act, 0.2, 1.0, clamp, impl="ref")
        torch.testing.assert_close(result, expected, rtol=1e-6, atol=2e-30, equal_nan=True)  # torch 2.4: exp(x) - 1
    some = x[1:-2].requires_grad_()
    expected = torch.autograd.grad(bias_act.bias_act(some, None, 0, act, 0.2, 1.0, impl="ref").sum(), some)[0]
    result = torch.autograd.grad(torch.ops.sg2.bias_act(some, None, 0, act, 0.2, 1.0, None).sum(), some)[0]
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-7)


# The shim itself ----------------------------------------------------------------------------------------------------


def test_conversions_of_the_shim_round_as_torch_does(on_host) -> None:
    """Every number of the half types is read exactly; numbers between two of them go to the nearer, or even, one."""
    for dtype in (torch.float16, torch.bfloat16):
        all_bits = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)
        same = torch.ops.sg2.bias_act(all_bits, None, 0, "linear", 0.0, 1.0, None)
        torch.testing.assert_close(same, all_bits, rtol=0, atol=0, equal_nan=True)
        for gain in (1 + 2**-9, 1 / 3, 1.7, 2**-12, 3e4):
            result = torch.ops.sg2.bias_act(all_bits, None, 0, "linear", 0.0, gain, None)
            expected = (all_bits.float() * torch.tensor(gain, dtype=torch.float32)).to(dtype)
            torch.testing.assert_close(result, expected, rtol=0, atol=0, equal_nan=True)


def test_all_kernels_agree_on_the_size_of_their_arguments(host_library) -> None:
    assert len(host_library.kernels) == 72
    for kernel in host_library.kernels:
        assert host_library.params_size(kernel) == (96 if kernel.startswith("bias_act") else 200)
