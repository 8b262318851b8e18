"""Convolutions whose gradients of every order are again plain convolutions.

PyTorch's second derivative of a convolution computes the gradient of the weights as a convolution with kernels as large
as the image, which is several times slower on a CPU than the routine that it has for first derivatives. The three maps
here (output, gradient of the input, gradient of the weights) are the three sides of one trilinear form, so each one's
derivatives are the two others.

The gradient of the input of a 3x3 convolution is one itself, and may be Winograd's; so may an output of which no
gradient is taken. Other outputs are direct: rounding moves some across the kink of an activation, and gradients with
them, by up to 1.03e-4 of the reference networks', whose tolerance is 1e-4.
"""
from typing import Any, NamedTuple

import torch

from torch_utils.function_context import Context

from . import conv2d_gradfix, registry
from .winograd import CONV3X3


class Geometry(NamedTuple):
    """Everything about a convolution but its tensors."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    transposed: bool
    groups: int

    def is_common(self, w: torch.Tensor) -> bool:
        """Whether this is a 3x3 convolution at the same size with weights w [O, C, kh, kw]."""
        return w.shape[2:] == (3, 3) and self == ((1, 1), (1, 1), False, 1)


def convolution(x: torch.Tensor, w: torch.Tensor, geometry: Geometry) -> torch.Tensor:
    """torch.convolution without bias, differentiable to any order.

    Args:
        x: [N, C, H, W]. w: [O, C // groups, kh, kw], transposed [C, O // groups, kh, kw].

    Returns:
        [N, O, H', W'].
    """
    if torch.is_grad_enabled() and (x.requires_grad or w.requires_grad):
        return _Output.apply(x, w, geometry)
    fast = CONV3X3.compiled(x, w) if geometry.is_common(w) else None
    return _output(x, w, geometry) if fast is None else fast(x, w)


def _output(x: torch.Tensor, w: torch.Tensor, g: Geometry) -> torch.Tensor:
    return torch.convolution(x, w, None, g.stride, g.padding, (1, 1), g.transposed, (0, 0), g.groups)


def _gradients(dy: torch.Tensor, x: torch.Tensor, w: torch.Tensor, g: Geometry, wanted: tuple[bool, bool]) -> Any:
    if wanted[0] and g.is_common(w):
        dy, turned = dy.contiguous(memory_format=registry.layout_of(x)), w.flip([2, 3]).transpose(0, 1)
        fast = CONV3X3.compiled(dy, turned)
        if fast is not None:
            dx = fast(dy, turned)
            return dx, _gradients(dy, x, w, g, (False, True))[1] if wanted[1] else None
    return torch.ops.aten.convolution_backward(
        dy, x, w, None, g.stride, g.padding, (1, 1), g.transposed, (0, 0), g.groups, (*wanted, False)
    )[:2]


class _Output(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, x: torch.Tensor, w: torch.Tensor, g: Geometry) -> torch.Tensor:
        ctx.save_for_backward(x, w)
        ctx.geometry = g
        return _output(x, w, g)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> Any:
        x, w = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:2]
        if not torch.is_grad_enabled():  # these will not be differentiated: both in one call
            return *_gradients(dy, x, w, ctx.geometry, wanted), None
        weights_too = wanted[1] and not conv2d_gradfix.weight_gradients_disabled
        dx = _InputGradient.apply(dy, w, x.detach(), ctx.geometry) if wanted[0] else None
        dw = _WeightGradient.apply(dy, x, w.detach(), ctx.geometry) if weights_too else None
        return dx, dw, None


class _InputGradient(torch.autograd.Function):
    """The gradient of the input; of `x` only shape and layout matter."""

    @staticmethod
    def forward(ctx: Context, dy: torch.Tensor, w: torch.Tensor, x: torch.Tensor, g: Geometry) -> torch.Tensor:
        ctx.save_for_backward(dy, w)
        ctx.geometry = g
        return _gradients(dy, x, w, g, (True, False))[0]

    @staticmethod
    def backward(ctx: Context, ddx: torch.Tensor) -> Any:
        dy, w = ctx.saved_tensors
        d_dy = convolution(ddx, w, ctx.geometry) if ctx.needs_input_grad[0] else None
        d_w = _WeightGradient.apply(dy, ddx, w.detach(), ctx.geometry) if ctx.needs_input_grad[1] else None
        return d_dy, d_w, None, None


class _WeightGradient(torch.autograd.Function):
    """The gradient of the weights; of `w` only shape and layout matter."""

    @staticmethod
    def forward(ctx: Context, dy: torch.Tensor, x: torch.Tensor, w: torch.Tensor, g: Geometry) -> torch.Tensor:
        ctx.save_for_backward(dy, x)
        ctx.geometry = g
        return _gradients(dy, x, w, g, (False, True))[1]

    @staticmethod
    def backward(ctx: Context, ddw: torch.Tensor) -> Any:
        dy, x = ctx.saved_tensors
        d_dy = convolution(x, ddw, ctx.geometry) if ctx.needs_input_grad[0] else None
        d_x = _InputGradient.apply(dy, ddw, x.detach(), ctx.geometry) if ctx.needs_input_grad[1] else None
        return d_dy, d_x, None, None
