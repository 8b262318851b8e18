"""Upsample, FIR-filter and downsample batches of images in one operation.

The resampling of StyleGAN2 (Karras et al. 2020, arXiv:1912.04958; filters as in Zhang 2019, arXiv:1904.11486).
"""
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from . import backend, cpu_kernels
from .backend import plan

Scaling = int | Sequence[int]
Padding = int | Sequence[int]


def setup_filter(
    f: torch.Tensor | np.ndarray | Sequence[float] | float | None,
    device: torch.device | str = "cpu",
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1,
    separable: bool | None = None,
) -> torch.Tensor:
    """Prepares a filter for the functions of this module.

    Args:
        f: taps, [fh, fw] or [taps]; a scalar is one tap, None is the identity.
        device: where the result lives.
        normalize: divide by the sum of the taps.
        flip_filter: reverse every axis.
        gain: overall factor of the signal; a separable filter carries its square root per axis.
        separable: keep 1-D taps 1-D (two passes). None: only from 8 taps on, shorter ones become their outer product.

    Returns:
        float32 tensor, [fh, fw] or, separable, [taps].
    """
    taps = torch.as_tensor(1 if f is None else f, dtype=torch.float32, device=device)
    if taps.ndim > 2 or taps.numel() == 0:
        raise ValueError(f"setup_filter: expected taps of rank 0, 1 or 2, got shape {tuple(taps.shape)}")
    if taps.ndim == 0:
        taps = taps.reshape(1)
    if taps.ndim == 1 and not (taps.numel() >= 8 if separable is None else separable):
        taps = torch.outer(taps, taps)
    elif separable and taps.ndim == 2:
        raise ValueError("setup_filter: a two-dimensional filter cannot be kept separable")
    whole = taps.sum() if normalize else 1.0
    taps = taps / whole * gain ** (taps.ndim / 2)
    return taps.flip(tuple(range(taps.ndim))) if flip_filter else taps


def _parse_scaling(scaling: Scaling) -> tuple[int, int]:
    """int or (x, y) → (x, y), each at least 1."""
    sx, sy = (scaling, scaling) if isinstance(scaling, int) else scaling
    if sx < 1 or sy < 1:
        raise ValueError(f"upfirdn2d: scaling factors are integers ≥ 1, got {scaling}")
    return int(sx), int(sy)


def _parse_padding(padding: Padding) -> tuple[int, int, int, int]:
    """int, (x, y) or (x_before, x_after, y_before, y_after) → the latter; negative values crop."""
    values = [padding] if isinstance(padding, int) else [int(p) for p in padding]
    if len(values) == 1:
        values = values * 4
    elif len(values) == 2:
        values = [values[0], values[0], values[1], values[1]]
    if len(values) != 4:
        raise ValueError(f"upfirdn2d: padding has 1, 2 or 4 values, got {padding}")
    return values[0], values[1], values[2], values[3]


def _get_filter_size(f: torch.Tensor | None) -> tuple[int, int]:
    """(width, height) of a prepared filter; a separable one counts for both axes, None is a single tap."""
    return (1, 1) if f is None else (int(f.shape[-1]), int(f.shape[0]))


def _identity(device: torch.device) -> torch.Tensor:
    return torch.ones([1, 1], dtype=torch.float32, device=device)


def upfirdn2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    up: Scaling = 1,
    down: Scaling = 1,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> torch.Tensor:
    """Zero-stuffs, pads or crops, filters and decimates every channel on its own.

    Along one axis, y[i] = gain * sum over k of f[k] * z[i * down + taps - 1 - k] (of z[i * down + k] if `flip_filter`),
    where z[before + j * up] = x[j], and all else of z is 0; its length is len(x) * up + before + after.

    Args:
        x: images [N, C, H, W], any float type.
        f: filter of `setup_filter`, without gradient; None is the identity.
        up, down: factors, int or (x, y).
        padding: int, (x, y) or (x_before, x_after, y_before, y_after), in pixels after zero-stuffing.
        flip_filter: correlate instead of convolve.
        gain: overall factor.
        impl: 'cuda' uses the fastest implementation that is available, 'ref' the plain torch one.

    Returns:
        [N, C, (H*up + py0 + py1 - fh) // down + 1, (W*up + px0 + px1 - fw) // down + 1], x's dtype.
        Differentiable in x to any order.

    Raises:
        ValueError: the filter does not fit into the padded image, or an argument is out of its range.
    """
    if impl not in ("cuda", "ref"):
        raise ValueError(f"upfirdn2d: impl is 'cuda' or 'ref', got {impl!r}")
    if x.ndim != 4:
        raise ValueError(f"upfirdn2d: expected images [N, C, H, W], got shape {tuple(x.shape)}")
    upx, upy = _parse_scaling(up)
    downx, downy = _parse_scaling(down)
    px0, px1, py0, py1 = _parse_padding(padding)
    f = _identity(x.device) if f is None else f
    if f.device != x.device:
        raise ValueError(f"upfirdn2d: the filter is on {f.device}, the images are on {x.device}")
    resample = _resample_ref if impl == "ref" else _resample if backend.serves(x) else _resample_torch
    if f.ndim == 1:  # one pass per axis, each with its share of the gain
        x = resample(x, f[None, :], (upx, 1), (downx, 1), (px0, px1, 0, 0), flip_filter, gain**0.5)
        return resample(x, f[:, None], (1, upy), (1, downy), (0, 0, py0, py1), flip_filter, gain**0.5)
    return resample(x, f, (upx, upy), (downx, downy), (px0, px1, py0, py1), flip_filter, gain)


Pair = tuple[int, int]
Sides = tuple[int, int, int, int]


def _output_size(x: torch.Tensor, f: torch.Tensor, up: Pair, down: Pair, padding: Sides) -> tuple[int, int]:
    """Height and width of the result of one pass."""
    (fh, fw), (px0, px1, py0, py1) = f.shape, padding
    span_x, span_y = x.shape[3] * up[0] + px0 + px1, x.shape[2] * up[1] + py0 + py1
    if span_x < fw or span_y < fh:
        raise ValueError(f"upfirdn2d: a {fw}x{fh} filter does not fit into an image of {span_x}x{span_y} after padding")
    return (span_y - fh) // down[1] + 1, (span_x - fw) // down[0] + 1


def _adjoint(x: torch.Size, y: torch.Size, f: torch.Size, up: Pair, down: Pair, padding: Sides) -> Sides:
    """The padding of the pass that leads from gradients of y back to those of x, with up and down swapped."""
    sides: list[int] = []
    for axis, taps in ((0, f[1]), (1, f[0])):
        size, reached = x[3 - axis], y[3 - axis]
        before = taps - 1 - padding[2 * axis]
        after = (size - 1) * up[axis] + taps - reached * down[axis] - before  # as much as makes `size` samples
        sides += [before, after]
    return sides[0], sides[1], sides[2], sides[3]


def trimmed(taps: int, up: int, before: int, after: int) -> tuple[int, Pair]:
    """How one axis is padded after a transposed convolution with stride `up`.

    It yields every partial overlap of kernel and image, so its rim holds taps - 1 samples before and taps - up after
    those that zero-stuffing gives without padding.

    Returns:
        What the transposed convolution itself is to leave out on both sides, and the padding that remains before and
        after; negative values crop.
    """
    rim = taps - 1 - before, taps - up - after
    cut = max(min(rim), 0)
    return cut, (cut - rim[0], cut - rim[1])


# ----------------------------------------------------------------------------------------------------------------------
# In plain torch


def _resample_torch(
    x: torch.Tensor, f: torch.Tensor, up: Pair, down: Pair, padding: Sides, flip: bool, gain: float
) -> torch.Tensor:
    """One pass with a 2-D filter."""
    _output_size(x, f, up, down, padding)
    if torch.is_grad_enabled() and x.requires_grad:
        return _Resample.apply(x, f, up, down, padding, flip, gain)
    return _resample_plain(x, f, up, down, padding, flip, gain)


def _resample_plain(
    x: torch.Tensor, f: torch.Tensor, up: Pair, down: Pair, padding: Sides, flip: bool, gain: float
) -> torch.Tensor:
    """One pass without a graph, by the CPU kernels where they can."""
    if x.device.type == "cpu" and not cpu_kernels.is_dense(x):
        x = x.contiguous()
    if cpu_kernels.serve(x) and cpu_kernels.takes_filter(f):
        size = _output_size(x, f, up, down, padding)
        return cpu_kernels.upfirdn2d(x, f, size, up, down, (padding[0], padding[2]), flip, gain)
    return _resample_ref(x, f, up, down, padding, flip, gain)


class _Resample(torch.autograd.Function):
    """A linear map whose adjoint is of the same family, so gradients of every order are this very function."""

    @staticmethod
    def forward(ctx, x, f, up, down, padding, flip, gain):
        y = _resample_plain(x, f, up, down, padding, flip, gain)
        ctx.save_for_backward(f)
        ctx.args = (x.shape, y.shape, up, down, padding, flip, gain)
        return y

    @staticmethod
    def backward(ctx, dy):
        (f,) = ctx.saved_tensors
        x_shape, y_shape, up, down, padding, flip, gain = ctx.args
        back = _adjoint(x_shape, y_shape, f.shape, up, down, padding)
        return _resample_torch(dy, f, down, up, back, not flip, gain), None, None, None, None, None, None


def _resample_ref(
    x: torch.Tensor, f: torch.Tensor, up: Pair, down: Pair, padding: Sides, flip: bool, gain: float
) -> torch.Tensor:
    """A depthwise convolution, transposed where samples are inserted."""
    _output_size(x, f, up, down, padding)
    channels = x.shape[1]
    fh, fw = f.shape
    px0, px1, py0, py1 = padding
    if up == (1, 1):
        if fh == fw == 1 and down == (1, 1):
            return _pad(x, padding) * _kernel(f, gain, x)[0]
        kernel = _kernel(f if flip else f.flip([0, 1]), gain, x)
        if px0 == px1 >= 0 and py0 == py1 >= 0:
            return F.conv2d(x, kernel, stride=(down[1], down[0]), padding=(py0, px0), groups=channels)
        return F.conv2d(_pad(x, padding), kernel, stride=(down[1], down[0]), groups=channels)
    kernel = _kernel(f.flip([0, 1]) if flip else f, gain, x)
    (cut_x, rest_x), (cut_y, rest_y) = trimmed(fw, up[0], px0, px1), trimmed(fh, up[1], py0, py1)
    y = F.conv_transpose2d(x, kernel, stride=(up[1], up[0]), padding=(cut_y, cut_x), groups=channels)
    y = _pad(y, (*rest_x, *rest_y))
    return y if down == (1, 1) else y[:, :, :: down[1], :: down[0]].clone()


def _kernel(f: torch.Tensor, gain: float, x: torch.Tensor) -> torch.Tensor:
    """The taps times the gain as depthwise weights [C, 1, fh, fw] of x's dtype, multiplied at the higher precision."""
    taps = f.to(torch.promote_types(f.dtype, x.dtype)) * gain
    return taps.to(x.dtype).expand(x.shape[1], 1, *f.shape)


def _pad(x: torch.Tensor, padding: tuple[int, int, int, int]) -> torch.Tensor:
    """Zero padding first, cropping second: one side may crop into what the other has added."""
    grow = [max(p, 0) for p in padding]
    if any(grow):
        x = F.pad(x, grow)
    left, right, top, bottom = crop = [max(-p, 0) for p in padding]
    if any(crop):  # a copy, so that callers may add to the result in place
        x = x[:, :, top : x.shape[2] - bottom, left : x.shape[3] - right].clone()
    return x


# ----------------------------------------------------------------------------------------------------------------------
# As one registered operation: compiled kernels, and what graph capture needs to know


def _resample(
    x: torch.Tensor, f: torch.Tensor, up: Pair, down: Pair, padding: Sides, flip: bool, gain: float
) -> torch.Tensor:
    """One pass with a 2-D filter."""
    _output_size(x, f, up, down, padding)
    return torch.ops.sg2.upfirdn2d(x, f.float(), up, down, padding, flip, gain)


backend.LIBRARY.define(
    "upfirdn2d(Tensor x, Tensor f, int[] up, int[] down, SymInt[] padding, bool flip, float gain) -> Tensor"
)


def _resample_empty(x, f, up, down, padding, flip, gain):
    height, width = _output_size(x, f, up, down, padding)
    layout = torch.channels_last if plan.is_channels_last(x) else torch.contiguous_format
    shape = (x.shape[0], x.shape[1], height, width)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)


def _resample_now(x, f, up, down, padding, flip, gain):
    y = _resample_empty(x, f, up, down, padding, flip, gain)
    if y.numel() == 0:
        return y
    kernels = backend.kernels_for(x.device)
    args = (tuple(up), tuple(down), (padding[0], padding[2]), flip, gain)
    launch = None if kernels is None else plan.upfirdn2d(x, f, y, *args)
    if kernels is None or launch is None:
        return y.copy_(_resample_ref(x, f, tuple(up), tuple(down), tuple(padding), flip, gain))
    backend.run(kernels, launch, x.device)
    return y


def _remember(ctx, inputs, output):
    x, f, *args = inputs
    ctx.save_for_backward(f)
    ctx.args = (x.shape, output.shape, *args)


def _backward(ctx, dy):
    (f,) = ctx.saved_tensors
    x_shape, y_shape, up, down, padding, flip, gain = ctx.args
    back = _adjoint(x_shape, y_shape, f.shape, up, down, padding)
    return torch.ops.sg2.upfirdn2d(dy, f, down, up, back, not flip, gain), None, None, None, None, None, None


backend.LIBRARY.impl("upfirdn2d", _resample_now, "CompositeExplicitAutograd")
torch.library.register_fake("sg2::upfirdn2d", _resample_empty, lib=backend.LIBRARY)
torch.library.register_autograd("sg2::upfirdn2d", _backward, setup_context=_remember, lib=backend.LIBRARY)

# ----------------------------------------------------------------------------------------------------------------------
# The three uses


def _centred(f: torch.Tensor | None, padding: Padding, up: Scaling = 1, down: Scaling = 1) -> Sides:
    """The user's padding plus what lets the filter look at the middle of what it makes, for one factor above 1."""
    sides = list(_parse_padding(padding))
    for axis, taps in enumerate(_get_filter_size(f)):
        factor_up, factor_down = _parse_scaling(up)[axis], _parse_scaling(down)[axis]
        before = (taps + factor_up - factor_down) // 2
        sides[2 * axis] += before
        sides[2 * axis + 1] += taps - factor_down - before
    return sides[0], sides[1], sides[2], sides[3]


def filter2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> torch.Tensor:
    """Filters images [N, C, H, W] at the same size; `padding` enlarges the output."""
    return upfirdn2d(x, f, 1, 1, _centred(f, padding), flip_filter, gain, impl)


def upsample2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    up: Scaling = 2,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> torch.Tensor:
    """Enlarges images [N, C, H, W] to [N, C, H*up, W*up] at the same brightness; `padding` refers to the output."""
    gain = math.prod(_parse_scaling(up), start=gain)
    return upfirdn2d(x, f, up, 1, _centred(f, padding, up=up), flip_filter, gain, impl)


def downsample2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    down: Scaling = 2,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> torch.Tensor:
    """Shrinks images [N, C, H, W] to [N, C, H/down, W/down]; `padding` refers to the input."""
    return upfirdn2d(x, f, 1, down, _centred(f, padding, down=down), flip_filter, gain, impl)
