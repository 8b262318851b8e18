"""Ops: gradients of first and second order, adjointness, an independent reference, layouts, and errors."""
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from torch_utils.ops import bias_act, conv2d_gradfix, conv2d_resample, fma, upfirdn2d


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive_upfirdn2d(x, f, up, down, padding, flip, gain):
    """Straight from the definition, one plane at a time, with scipy."""
    (ux, uy), (dx, dy), (px0, px1, py0, py1) = up, down, padding
    from scipy import signal  # takes seconds to import

    n, c, h, w = x.shape
    stuffed = np.zeros([n, c, h * uy, w * ux])
    stuffed[:, :, ::uy, ::ux] = x
    padded = np.pad(stuffed, [(0, 0), (0, 0), (max(py0, 0), max(py1, 0)), (max(px0, 0), max(px1, 0))])
    end_y, end_x = padded.shape[2] - max(-py1, 0), padded.shape[3] - max(-px1, 0)
    padded = padded[:, :, max(-py0, 0) : end_y, max(-px0, 0) : end_x]
    apply = signal.correlate2d if flip else signal.convolve2d
    rows = [[apply(plane, f, mode="valid")[::dy, ::dx] * gain for plane in image] for image in padded]
    return np.array(rows)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    taps=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    up=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    down=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    padding=st.tuples(*[st.integers(-3, 6)] * 4),
    flip=st.booleans(),
    channels_last=st.booleans(),
)
def test_upfirdn2d_equals_definition(shape, taps, up, down, padding, flip, channels_last) -> None:
    x, f = randn(*shape), randn(*taps, seed=1).float()
    width = shape[3] * up[0] + padding[0] + padding[1]
    height = shape[2] * up[1] + padding[2] + padding[3]
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    args = dict(up=up, down=down, padding=padding, flip_filter=flip, gain=1.7)
    if width < taps[1] or height < taps[0]:
        with pytest.raises(ValueError, match="does not fit"):
            upfirdn2d.upfirdn2d(x, f, **args)
        return
    expected = naive_upfirdn2d(x.numpy(), f.double().numpy(), up, down, padding, flip, 1.7)
    result = upfirdn2d.upfirdn2d(x, f, **args)
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-10)
    with_graph = upfirdn2d.upfirdn2d(x.requires_grad_(), f, **args)
    np.testing.assert_allclose(with_graph.detach().numpy(), expected, atol=1e-10)


GEOMETRIES = [
    dict(),
    dict(up=2, padding=[2, 1, 2, 1], gain=4),
    dict(down=2, padding=1, flip_filter=True),
    dict(up=3, down=2, padding=[4, -1, 0, 3]),
    dict(up=(1, 2), down=(3, 1), padding=[-1, 3, 2, 2], gain=0.5),
]


@pytest.mark.parametrize("options", GEOMETRIES)
@pytest.mark.parametrize("taps", [(4, 4), (3, 2), (8,)])
def test_upfirdn2d_gradients(options: dict, taps: tuple[int, ...]) -> None:
    f = randn(*taps, seed=1).float()
    if len(taps) == 1:
        options = {**options, "padding": [7, 7, 7, 7]}
    x = randn(2, 2, 5, 6).requires_grad_()
    assert gradcheck(lambda x: upfirdn2d.upfirdn2d(x, f, **options), x)
    assert gradgradcheck(lambda x: upfirdn2d.upfirdn2d(x, f, **options), x)


@pytest.mark.parametrize("options", GEOMETRIES)
def test_upfirdn2d_is_adjoint_to_its_gradient(options: dict) -> None:
    f = randn(4, 3, seed=1).float()
    x = randn(1, 2, 6, 7).requires_grad_()
    ax = upfirdn2d.upfirdn2d(x, f, **options)
    y = randn(*ax.shape, seed=2)
    (aty,) = torch.autograd.grad(ax, x, y)
    torch.testing.assert_close((ax * y).sum(), (x * aty).sum())


@pytest.mark.parametrize("clamp", [None, 0.9])
@pytest.mark.parametrize("act", bias_act.activation_funcs)
def test_bias_act_gradients(act: str, clamp: float | None) -> None:
    x, b = randn(3, 4, 2).requires_grad_(), randn(4, seed=1).requires_grad_()

    def op(x: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return bias_act.bias_act(x, b, act=act, gain=1.3, clamp=clamp)

    assert gradcheck(op, (x, b))
    assert gradgradcheck(op, (x, b))


@pytest.mark.parametrize("flip_weight", [True, False])
@pytest.mark.parametrize(
    "options", [dict(), dict(up=2), dict(down=2), dict(up=2, down=2), dict(padding=[-1, 2, 0, 1]), dict(up=3, groups=2)]
)
def test_conv2d_resample_gradients(options: dict, flip_weight: bool) -> None:
    options = {"padding": 1, "flip_weight": flip_weight, **options}
    x, w = randn(1, 2, 5, 5).requires_grad_(), randn(4, 2 // options.get("groups", 1), 3, 3, seed=1).requires_grad_()
    f = upfirdn2d.setup_filter([1, 3, 3, 1])
    assert gradcheck(lambda x, w: conv2d_resample.conv2d_resample(x, w, f, **options), (x, w))
    assert gradgradcheck(lambda x, w: conv2d_resample.conv2d_resample(x, w, f, **options), (x, w))


@pytest.mark.parametrize("options", [dict(up=2), dict(down=2), dict(up=2, down=3), dict(padding=[-1, 2, 0, -1])])
@pytest.mark.parametrize("k", [1, 3])
def test_conv2d_resample_equals_its_meaning(options: dict, k: int) -> None:
    """Upsample with zeros and filter, convolve, filter and decimate, as three separate steps."""
    x, w, f = randn(2, 3, 8, 7), randn(4, 3, k, k, seed=1), upfirdn2d.setup_filter([1, 3, 3, 1])
    up, down = options.get("up", 1), options.get("down", 1)
    pads = conv2d_resample._resampled_padding(f, up, down, options.get("padding", 0))
    y = upfirdn2d.upfirdn2d(x, None, up=up, padding=pads)
    if up > 1:
        y = upfirdn2d.upfirdn2d(y, f, gain=up**2)
    y = torch.nn.functional.conv2d(y, w)
    if down > 1:
        y = upfirdn2d.upfirdn2d(y, f, down=down)
    torch.testing.assert_close(conv2d_resample.conv2d_resample(x, w, f, **options), y)


def test_fma_gradients_with_broadcasting() -> None:
    args = (randn(2, 3, 1, 1).requires_grad_(), randn(2, 3, 4, 4, seed=1).requires_grad_(),
            randn(4, 1, seed=2).requires_grad_())
    torch.testing.assert_close(fma.fma(*args), args[0] * args[1] + args[2])
    assert gradcheck(fma.fma, args)
    assert gradgradcheck(fma.fma, args)


def test_no_weight_gradients_restores_its_flag() -> None:
    def fail() -> None:
        with conv2d_gradfix.no_weight_gradients():
            raise KeyError(conv2d_gradfix.weight_gradients_disabled)

    with pytest.raises(KeyError, match="True"):
        fail()
    assert not conv2d_gradfix.weight_gradients_disabled


def test_setup_filter() -> None:
    f = upfirdn2d.setup_filter([1, 3, 3, 1])
    assert torch.equal(f * 64, torch.outer(torch.tensor([1.0, 3, 3, 1]), torch.tensor([1.0, 3, 3, 1])))
    assert upfirdn2d.setup_filter(None).tolist() == [[1]]
    assert upfirdn2d.setup_filter(3.0).tolist() == [[1]]
    assert upfirdn2d.setup_filter(range(8), gain=4).sum() == pytest.approx(2)
    assert upfirdn2d.setup_filter([1, 2], separable=True, normalize=False, flip_filter=True).tolist() == [2, 1]
    assert upfirdn2d._get_filter_size(None) == (1, 1)
    assert upfirdn2d._get_filter_size(torch.ones(3, 5)) == (5, 3)
    assert upfirdn2d._get_filter_size(torch.ones(7)) == (7, 7)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: bias_act.bias_act(x, act="gelu"), "expected an activation of linear, .* found 'gelu'"),
        (lambda x: bias_act.bias_act(x, clamp=-1), "expected clamp ≥ 0, found -1"),
        (lambda x: bias_act.bias_act(x, torch.zeros(3)), r"bias \(3,\) does not fit axis 1"),
        (lambda x: bias_act.bias_act(x, impl="cpu"), "expected impl 'cuda' or 'ref', found"),
        (lambda x: upfirdn2d.upfirdn2d(x, None, impl="x"), "expected impl 'cuda' or 'ref', found"),
        (lambda x: upfirdn2d.upfirdn2d(x[0], None), r"expected images \[N, C, H, W\]"),
        (lambda x: upfirdn2d.upfirdn2d(x, None, up=0), "expected scaling factors ≥ 1, found"),
        (lambda x: upfirdn2d.upfirdn2d(x, None, padding=[1, 2, 3]), "expected padding of 1, 2 or 4 values, found"),
        (lambda x: upfirdn2d.setup_filter(torch.ones(2, 2, 2)), "taps of rank 0, 1 or 2"),
        (lambda x: upfirdn2d.setup_filter(torch.ones(2, 2), separable=True), "expected taps of rank 1"),
        (lambda x: conv2d_resample.conv2d_resample(x, torch.ones(1, 2, 1, 1)), "of one dtype"),
        (lambda x: conv2d_resample.conv2d_resample(x, torch.ones(1, 2, 1, 1).double(), up=0), "up and down ≥ 1"),
    ],
)
def test_errors(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(randn(1, 2, 4, 4))
