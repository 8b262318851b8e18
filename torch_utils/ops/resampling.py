"""One pass of upfirdn2d with a two-dimensional filter: its implementations, and its derivatives of every order."""
from typing import Any

import torch
import torch.nn.functional as F

from torch_utils.function_context import Context

from . import cpu_kernels, registry
from .backend import kernels as cuda_kernels
from .backend import launch_config
from .backend.kernels import Kernels

Pair = tuple[int, int]
Sides = tuple[int, int, int, int]


def output_size(x: torch.Tensor, f: torch.Tensor, up: Pair, down: Pair, padding: Sides) -> tuple[int, int]:
    """Height and width of the result of one pass over images x [N, C, H, W] with a filter f [fh, fw].

    Raises:
        ValueError: the filter does not fit into the padded image.
    """
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


def padding_of_transposed(taps: int, up: int, before: int, after: int) -> tuple[int, Pair]:
    """How one axis is padded in and after a transposed convolution with stride `up`.

    It yields every partial overlap of kernel and image: taps - 1 samples before and taps - up after those that
    zero-stuffing gives without padding.

    Returns:
        The `padding` of the transposed convolution (what it leaves out on both sides), and the padding that remains
        before and after; negative values crop.
    """
    surplus = taps - 1 - before, taps - up - after
    cut = max(min(surplus), 0)
    return cut, (cut - surplus[0], cut - surplus[1])


def resample(
    x: torch.Tensor, f: torch.Tensor, up: Pair, down: Pair, padding: Sides, flip: bool, gain: float
) -> torch.Tensor:
    """Zero-stuffs, pads or crops, filters and decimates images [N, C, H, W]; differentiable in x to any order.

    Args:
        x: images [N, C, H, W].
        f: filter [fh, fw], float32.
        up, down: factors, x and y.
        padding: x before and after, y before and after.
        flip: correlate instead of convolve.
        gain: overall factor.

    Raises:
        ValueError: the filter does not fit into the padded image.
    """
    output_size(x, f, up, down, padding)
    if registry.uses_dispatcher(x):
        return torch.ops.sg2.upfirdn2d(x, f.float(), up, down, padding, flip, gain)
    if torch.is_grad_enabled() and x.requires_grad:
        return _Resample.apply(x, f, up, down, padding, flip, gain)
    return UPFIRDN2D(_dense(x), f, up, down, padding, flip, gain)


# ----------------------------------------------------------------------------------------------------------------------
# The implementations, without a graph


def resample_ref(
    x: torch.Tensor, f: torch.Tensor, up: Pair, down: Pair, padding: Sides, flip: bool, gain: float
) -> torch.Tensor:
    """`resample` as a depthwise convolution, transposed where samples are inserted; [N, C, H, W] → [N, C, H', W'].

    Its derivatives are torch's own.

    Raises:
        ValueError: the filter does not fit into the padded image.
    """
    output_size(x, f, up, down, padding)
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
    cut_x, rest_x = padding_of_transposed(fw, up[0], px0, px1)
    cut_y, rest_y = padding_of_transposed(fh, up[1], py0, py1)
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


def _dense(x: torch.Tensor) -> torch.Tensor:
    """What the native kernels can read; other devices take x as it is."""
    return x.contiguous() if x.device.type == "cpu" and not cpu_kernels.is_dense(x) else x


def _by_cpu_kernels(
    x: torch.Tensor, f: torch.Tensor, up: Pair, down: Pair, padding: Sides, flip: bool, gain: float
) -> torch.Tensor:
    size = output_size(x, f, up, down, padding)
    return cpu_kernels.upfirdn2d(x, f.float(), size, up, down, (padding[0], padding[2]), flip, gain)


def _cpu_kernels_take(x: torch.Tensor, f: torch.Tensor, *_: object) -> bool:
    if x.dtype == f.dtype == torch.float64 and torch.equal(f.float().double(), f):  # as a network's filter
        f = f.float()
    return cpu_kernels.takes_filter(f)


def _empty(
    x: torch.Tensor, f: torch.Tensor, up: Pair, down: Pair, padding: Sides, flip: bool, gain: float
) -> torch.Tensor:
    shape = (x.shape[0], x.shape[1], *output_size(x, f, up, down, padding))
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=registry.layout_of(x))


def _by_cuda_kernels(
    kernels: Kernels, x: torch.Tensor, f: torch.Tensor, up: Pair, down: Pair, padding: Sides, flip: bool, gain: float
) -> torch.Tensor:
    y = _empty(x, f, up, down, padding, flip, gain)
    if y.numel() == 0:
        return y
    launch = launch_config.upfirdn2d(x, f, y, up, down, (padding[0], padding[2]), flip, gain)
    if launch is None:  # beyond what the kernels count with
        return y.copy_(resample_ref(x, f, up, down, padding, flip, gain))
    cuda_kernels.queue(kernels, launch, x.device)
    return y


UPFIRDN2D = registry.register(
    registry.Op("upfirdn2d", 1, resample_ref, _by_cpu_kernels, _by_cuda_kernels, cpu_takes=_cpu_kernels_take)
)

# ----------------------------------------------------------------------------------------------------------------------
# The derivative: a linear map whose adjoint is of the same family, so gradients of every order are the same operation


class _Resample(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Context, x: torch.Tensor, f: torch.Tensor, up: Pair, down: Pair, padding: Sides, flip: bool, gain: float
    ) -> torch.Tensor:
        y = UPFIRDN2D(_dense(x), f, up, down, padding, flip, gain)
        _remember(ctx, (x, f, up, down, padding, flip, gain), y)
        return y

    @staticmethod
    def backward(ctx: Context, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (f,) = ctx.saved_tensors
        return resample(dy, f, *_adjoint_arguments(ctx, f)), *[None] * 6


def _remember(ctx: Context, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    x, f, *arguments = inputs
    ctx.save_for_backward(f)
    ctx.shapes, ctx.arguments = (x.shape, output.shape), arguments


def _adjoint_arguments(ctx: Context, f: torch.Tensor) -> tuple[Pair, Pair, Sides, bool, float]:
    up, down, padding, flip, gain = ctx.arguments
    x_shape, y_shape = ctx.shapes
    return down, up, _adjoint(x_shape, y_shape, f.shape, up, down, padding), not flip, gain


def _registered_backward(ctx: Context, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    (f,) = ctx.saved_tensors
    return torch.ops.sg2.upfirdn2d(dy, f, *_adjoint_arguments(ctx, f)), *[None] * 6


registry.define(
    "(Tensor x, Tensor f, int[] up, int[] down, SymInt[] padding, bool flip, float gain) -> Tensor",
    UPFIRDN2D, _empty, _registered_backward, _remember,
)  # fmt: skip
