"""Upsample, FIR-filter and downsample batches of images in one operation.

The resampling of StyleGAN2 (Karras et al. 2020, arXiv:1912.04958; filters as in Zhang 2019, arXiv:1904.11486).
"""
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
    if normalize:
        taps = taps / taps.sum()
    if flip_filter:
        taps = taps.flip(list(range(taps.ndim)))
    return taps * gain ** (taps.ndim / 2)


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

    1. Every sample, the last one included, is followed by up-1 zeros.
    2. The result is padded with zeros, or cropped where the padding is negative.
    3. It is convolved with the filter (correlated if `flip_filter`); only full overlaps count.
    4. Every down-th sample is kept, starting with the first.

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
    if f is None:
        f = torch.ones([1, 1], dtype=torch.float32, device=x.device)
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
    (_, _, h, w), (_, _, oh, ow), (fh, fw), (px0, _, py0, _) = x, y, f, padding
    right, bottom = w * up[0] - ow * down[0] + px0 - up[0] + 1, h * up[1] - oh * down[1] + py0 - up[1] + 1
    return fw - px0 - 1, right, fh - py0 - 1, bottom


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
    # Scattering the taps at stride `up` gives every partial overlap; the padding says how much of that rim to keep.
    kernel = _kernel(f.flip([0, 1]) if flip else f, gain, x)
    rim = (fw - 1 - px0, fw - up[0] - px1, fh - 1 - py0, fh - up[1] - py1)
    cut_x, cut_y = max(min(rim[:2]), 0), max(min(rim[2:]), 0)
    y = F.conv_transpose2d(x, kernel, stride=(up[1], up[0]), padding=(cut_y, cut_x), groups=channels)
    y = _pad(y, (cut_x - rim[0], cut_x - rim[1], cut_y - rim[2], cut_y - rim[3]))
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


def _wrapped(padding: Padding, before: tuple[int, int], after: tuple[int, int]) -> list[int]:
    """The user's padding plus what keeps the size; `before`/`after` are the size-dependent parts for x and y."""
    px0, px1, py0, py1 = _parse_padding(padding)
    return [px0 + before[0], px1 + after[0], py0 + before[1], py1 + after[1]]


def filter2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> torch.Tensor:
    """Filters images [N, C, H, W] at the same size; `padding` enlarges the output."""
    fw, fh = _get_filter_size(f)
    p = _wrapped(padding, (fw // 2, fh // 2), ((fw - 1) // 2, (fh - 1) // 2))
    return upfirdn2d(x, f, padding=p, flip_filter=flip_filter, gain=gain, impl=impl)


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
    ux, uy = _parse_scaling(up)
    fw, fh = _get_filter_size(f)
    p = _wrapped(padding, ((fw + ux - 1) // 2, (fh + uy - 1) // 2), ((fw - ux) // 2, (fh - uy) // 2))
    return upfirdn2d(x, f, up=up, padding=p, flip_filter=flip_filter, gain=gain * ux * uy, impl=impl)


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
    dx, dy = _parse_scaling(down)
    fw, fh = _get_filter_size(f)
    p = _wrapped(padding, ((fw - dx + 1) // 2, (fh - dy + 1) // 2), ((fw - dx) // 2, (fh - dy) // 2))
    return upfirdn2d(x, f, down=down, padding=p, flip_filter=flip_filter, gain=gain, impl=impl)
