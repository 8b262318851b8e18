"""What follows a convolution, as one operation: demodulation, noise, bias, activation, gain and clamp."""
from typing import Any

import torch
import torch.nn.functional as F

from torch_utils.function_context import Context

from . import cpu_kernels, registry
from .activations import broadcast_bias, sum_to_bias

_Tensor = torch.Tensor
_Optional = torch.Tensor | None

def epilogue(
    x: torch.Tensor,
    scale: torch.Tensor | None,
    noise: torch.Tensor | None,
    b: torch.Tensor | None,
    slope: float,
    gain: float,
    clamp: float | None,
    dim: int = 1,
    overwrite: bool = False,
) -> torch.Tensor:
    """clip(gain * act(x * scale + noise + b), -clamp, clamp), where act(v) is v above zero and slope * v below.

    Args:
        x: any shape; [N, C, H, W] if there is scale or noise.
        scale: [N, C]; None is 1.
        noise: [H, W], [1, 1, H, W] or [N, 1, H, W]; None is 0.
        b: [x.shape[dim]]; None is 0.
        slope: ≥ 0.
        gain: > 0.
        clamp: limit of the absolute value; None is none.
        dim: the axis of b.
        overwrite: where no gradient is needed, the result may take x's place.

    Returns:
        A tensor of x's shape, differentiable to any order; where the limit is reached, the gradient is 0.
    """
    if scale is None and noise is None and b is None and slope == 1 and gain == 1 and clamp is None:
        return x
    graph = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, scale, noise, b))
    if not graph:
        return EPILOGUE(x, scale, noise, b, dim, slope, gain, clamp, overwrite)
    if EPILOGUE.compiled(x, scale, noise, b, dim) is not None:
        return _Epilogue.apply(x, scale, noise, b, dim, slope, gain, clamp)
    return _plain(x, scale, noise, b, dim, slope, gain, clamp, overwrite, graph)


# ----------------------------------------------------------------------------------------------------------------------
# The implementations


def _plain(
    x: _Tensor,
    scale: _Optional,
    noise: _Optional,
    b: _Optional,
    dim: int,
    slope: float,
    gain: float,
    clamp: float | None,
    overwrite: bool,
    graph: bool = False,
) -> _Tensor:
    """In torch's operations, few passes over x, each with a gradient of one pass."""
    scale = None if scale is None else scale[:, :, None, None]
    b = None if b is None else broadcast_bias(b, dim, x.ndim)
    # A compiler reuses memory by itself, and cannot follow `out` where the layout is channels_last.
    out = x if overwrite and not graph and not torch.compiler.is_compiling() else None
    first, second = [t if t is None or gain == 1 else t * gain for t in ((b, None) if noise is None else (noise, b))]
    if scale is not None:
        y = torch.mul(x, scale * gain, out=out) if first is None else torch.addcmul(first, x, scale * gain, out=out)
    elif first is not None:
        y = torch.add(first, x, alpha=gain, out=out)
    else:
        y = x if gain == 1 else torch.mul(x, gain, out=out)
    own = overwrite or y is not x
    y = y if second is None else y.add_(second)
    if slope != 1:
        y, own = F.leaky_relu(y, slope, inplace=own), True
    if clamp is not None:  # its gradient is one pass; that of torch.clamp is four
        y = F.hardtanh(y, -clamp, clamp, inplace=own and not graph)
    return y


def _by_cpu_kernels(
    x: _Tensor,
    scale: _Optional,
    noise: _Optional,
    b: _Optional,
    dim: int,
    slope: float,
    gain: float,
    clamp: float | None,
    overwrite: bool,
) -> _Tensor:
    scale, b = (None if t is None else t.contiguous() for t in (scale, b))
    noise = None if noise is None else noise.reshape(-1, x.shape[2] * x.shape[3]).contiguous()
    return cpu_kernels.epilogue(x, scale, noise, b, dim, slope, gain, clamp, x if overwrite else torch.empty_like(x))


def _cpu_kernels_take(x: _Tensor, scale: _Optional, noise: _Optional, b: _Optional, dim: int, *_: object) -> bool:
    return dim == 1 or x.is_contiguous()


EPILOGUE = registry.register(registry.Op("epilogue", 4, _plain, _by_cpu_kernels, cpu_takes=_cpu_kernels_take))

# ----------------------------------------------------------------------------------------------------------------------
# Its derivatives with the native kernels


def _like(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return t.contiguous(memory_format=registry.layout_of(x))


class _Epilogue(torch.autograd.Function):
    """Remembers the result, which shows where act and clamp were, and x if the scale needs a gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        x: _Tensor,
        scale: _Optional,
        noise: _Optional,
        b: _Optional,
        dim: int,
        slope: float,
        gain: float,
        clamp: float | None,
    ) -> _Tensor:
        y = _by_cpu_kernels(x, scale, noise, b, dim, slope, gain, clamp, overwrite=False)
        is_linear = slope == 1 and clamp is None
        ctx.save_for_backward(None if is_linear else y, x if ctx.needs_input_grad[1] else None, scale)
        ctx.noise_shape = None if noise is None else noise.shape
        ctx.args = dim, slope, gain, clamp
        return y

    @staticmethod
    def backward(ctx: Context, dy: _Tensor) -> tuple[_Optional, ...]:
        y, x, scale = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:4]
        make: Any = _gradients_with_graph if torch.is_grad_enabled() else _gradients
        dx, dscale, dnoise, db = make(dy, y, x, scale, *ctx.args, wanted)
        if dnoise is not None:  # [N, H*W]
            shared = dnoise.numel() != ctx.noise_shape.numel()
            dnoise = (dnoise.sum(dim=0) if shared else dnoise).reshape(ctx.noise_shape)
        return dx, dscale, dnoise, db, None, None, None, None


def _gradients(
    dy: _Tensor,
    y: _Optional,
    x: _Optional,
    scale: _Optional,
    dim: int,
    slope: float,
    gain: float,
    clamp: float | None,
    wanted: tuple[bool, bool, bool, bool],
) -> tuple[_Optional, _Optional, _Optional, _Optional]:
    dy = _like(dy, next(t for t in (y, x, dy) if t is not None))
    x = None if x is None else _like(x, dy)
    scale = None if scale is None else scale.contiguous()
    return cpu_kernels.gradients(dy, y, x, scale, dim, slope, gain, clamp, wanted)


def _gradients_with_graph(
    dy: _Tensor,
    y: _Optional,
    x: _Optional,
    scale: _Optional,
    dim: int,
    slope: float,
    gain: float,
    clamp: float | None,
    wanted: tuple[bool, bool, bool, bool],
) -> tuple[_Optional, _Optional, _Optional, _Optional]:
    """The same of operations that can be differentiated themselves."""
    if y is not None:
        d = _DActivation.apply(dy, y.detach(), dim, slope, gain, clamp)
    else:
        d = dy if gain == 1 else dy * gain
    dx = dscale = dnoise = db = None
    if wanted[0]:
        dx = d if scale is None else epilogue(d, scale, None, None, 1.0, 1.0, None)
    if wanted[1]:
        dscale = _Dot.apply(d, x)  # [N, C]
    if wanted[2]:
        dnoise = d.sum(dim=1).flatten(1)
    if wanted[3]:
        db = sum_to_bias(d, dim)
    return dx, dscale, dnoise, db


class _DActivation(torch.autograd.Function):
    """dy times the first derivative of act, gain and clamp; linear in dy, and locally constant in y."""

    @staticmethod
    def forward(
        ctx: Context, dy: _Tensor, y: _Tensor, dim: int, slope: float, gain: float, clamp: float | None
    ) -> _Optional:
        ctx.save_for_backward(y)
        ctx.args = dim, slope, gain, clamp
        only_x = (True, False, False, False)
        return cpu_kernels.gradients(_like(dy, y), y, None, None, dim, slope, gain, clamp, only_x)[0]

    @staticmethod
    def backward(ctx: Context, ddx: _Tensor) -> tuple[_Optional, ...]:
        (y,) = ctx.saved_tensors
        return _DActivation.apply(ddx, y, *ctx.args), None, None, None, None, None


class _Dot(torch.autograd.Function):
    """The sum over all pixels of a * b, [N, C]."""

    @staticmethod
    def forward(ctx: Context, a: _Tensor, b: _Tensor) -> _Optional:
        ctx.save_for_backward(a, b)
        b = _like(b, b)
        return cpu_kernels.gradients(_like(a, b), None, b, None, 1, 1.0, 1.0, None, (False, True, False, False))[1]

    @staticmethod
    def backward(ctx: Context, d: _Tensor) -> tuple[_Optional, ...]:
        a, b = ctx.saved_tensors
        return tuple(
            epilogue(other, d, None, None, 1.0, 1.0, None) if needed else None
            for other, needed in zip((b, a), ctx.needs_input_grad)
        )
