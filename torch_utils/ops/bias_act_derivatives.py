"""bias_act and its first and second derivative, each an operation with a plain and a compiled implementation.

The derivative is an operation of its own, with a derivative. Order 1 depends on the output y that the forward pass has
saved (swish: on x and b), so the second derivative reaches x through y's own history.
"""
from typing import Any

import torch
import torch.nn.functional as F

from torch_utils.function_context import Context

from . import cpu_kernels, registry
from .activations import activation_funcs, bias_act_ref, broadcast_bias, d2_act, d_act, slope_of, sum_to_bias
from .backend import kernels as cuda_kernels
from .backend import launch_config
from .backend.kernels import Kernels

_Tensor = torch.Tensor
_Optional = torch.Tensor | None


def sign_is_kept(act: str, alpha: float, gain: float) -> bool:
    """Whether y has the sign of x + b, which the derivatives rely on."""
    return gain != 0 and (act != "lrelu" or alpha >= 0)


# ----------------------------------------------------------------------------------------------------------------------
# The implementations, without a graph


def _derivative_ref(
    order: int,
    ref: torch.Tensor,
    b: torch.Tensor | None,
    dy: torch.Tensor,
    ddx: torch.Tensor | None,
    dim: int,
    act: str,
    alpha: float,
    gain: float,
    clamp: float | None,
) -> torch.Tensor:
    """Order 1 or 2 as csrc/bias_act.cuh defines them."""
    swish = act == "swish"
    v = ref if b is None else ref + broadcast_bias(b, dim, ref.ndim)
    y = F.silu(v) * gain if swish else ref
    u = y / gain
    if order == 1:
        out = dy * gain * d_act(act, v, u, alpha)
    else:
        assert ddx is not None
        out = ddx * dy * (gain if swish else 1) * d2_act(act, v, u)
    if clamp is None:
        return out
    return torch.where(y.abs() > clamp if swish else y.abs() >= clamp, 0, out)


def _plain_grad(dy: _Tensor, ref: _Tensor, b: _Optional, *scalars: Any) -> _Tensor:
    return _derivative_ref(1, ref, b, dy, None, *scalars)


def _plain_grad2(ddx: _Tensor, dy: _Tensor, ref: _Tensor, b: _Optional, *scalars: Any) -> _Tensor:
    return _derivative_ref(2, ref, b, dy, ddx, *scalars)


def _by_cpu_kernels(
    x: _Tensor, b: _Optional, dim: int, act: str, alpha: float, gain: float, clamp: float | None
) -> _Tensor:
    slope = slope_of(act, alpha, gain)
    assert slope is not None
    b = None if b is None else b.contiguous()
    return cpu_kernels.epilogue(x, None, None, b, dim, slope, gain, clamp, torch.empty_like(x))


def _cpu_kernels_take(x: _Tensor, b: _Optional, dim: int, act: str, alpha: float, gain: float, *_: object) -> bool:
    return slope_of(act, alpha, gain) is not None and (dim == 1 or x.is_contiguous())


def _empty(first: _Tensor, *_: object) -> _Tensor:
    layout = registry.layout_of(first)
    return torch.empty(first.shape, dtype=first.dtype, device=first.device, memory_format=layout)


def _launch(
    kernels: Kernels,
    order: int,
    ref: _Tensor,
    b: _Optional,
    dy: _Optional,
    ddx: _Optional,
    dim: int,
    act: str,
    alpha: float,
    gain: float,
    clamp: float | None,
) -> _Tensor:
    """Any of the three operations; the first of its tensors decides about the layout."""
    first = (ref, dy, ddx)[order]
    assert first is not None
    out = _empty(first)
    if out.numel() == 0:
        return out
    layout = registry.layout_of(out)
    ref = ref.contiguous(memory_format=layout)
    dy, ddx = (None if t is None else t.contiguous(memory_format=layout) for t in (dy, ddx))
    b = None if b is None else b.contiguous()
    scalars = (alpha, gain, -1.0 if clamp is None else clamp)
    number = activation_funcs[act].cuda_idx
    launch = launch_config.bias_act(order, ref, b, dy, ddx, out, dim, number, scalars)
    cuda_kernels.queue(kernels, launch, out.device)
    return out


def _by_cuda_kernels(kernels: Kernels, x: _Tensor, b: _Optional, *scalars: Any) -> _Tensor:
    return _launch(kernels, 0, x, b, None, None, *scalars)


def _grad_by_cuda_kernels(kernels: Kernels, dy: _Tensor, ref: _Tensor, b: _Optional, *scalars: Any) -> _Tensor:
    return _launch(kernels, 1, ref, b, dy, None, *scalars)


def _grad2_by_cuda_kernels(
    kernels: Kernels, ddx: _Tensor, dy: _Tensor, ref: _Tensor, b: _Optional, *scalars: Any
) -> _Tensor:
    return _launch(kernels, 2, ref, b, dy, ddx, *scalars)


BIAS_ACT = registry.register(
    registry.Op("bias_act", 2, bias_act_ref, _by_cpu_kernels, _by_cuda_kernels, cpu_takes=_cpu_kernels_take)
)
BIAS_ACT_GRAD = registry.register(registry.Op("bias_act_grad", 3, _plain_grad, cuda=_grad_by_cuda_kernels))
BIAS_ACT_GRAD2 = registry.register(registry.Op("bias_act_grad2", 4, _plain_grad2, cuda=_grad2_by_cuda_kernels))

# ----------------------------------------------------------------------------------------------------------------------
# What each derivative remembers, and computes


def _remember(ctx: Any, inputs: tuple[Any, ...], output: _Tensor) -> None:
    x, b, *ctx.scalars = inputs
    _, act, _, _, clamp = ctx.scalars
    if act == "swish":
        ctx.save_for_backward(x, b)
    elif act != "linear" or clamp is not None:
        ctx.save_for_backward(output, None)


def _backward(ctx: Context, dy: _Tensor) -> tuple[_Optional, ...]:
    dim, _, _, gain, _ = ctx.scalars
    if ctx.saved_tensors:
        dx = torch.ops.sg2.bias_act_grad(dy, *ctx.saved_tensors, *ctx.scalars)
    else:
        dx = dy * gain
    return dx, sum_to_bias(dx, dim) if ctx.needs_input_grad[1] else None, *[None] * 5


def _grad_remember(ctx: Context, inputs: tuple[Any, ...], output: _Tensor) -> None:
    dy, ref, b, *ctx.scalars = inputs
    ctx.save_for_backward(dy, ref, b)


def _grad_backward(ctx: Context, ddx: _Tensor) -> tuple[_Optional, ...]:
    dy, ref, b = ctx.saved_tensors
    dim, act = ctx.scalars[:2]
    d_ref = None
    if activation_funcs[act].has_2nd_grad:
        d_ref = torch.ops.sg2.bias_act_grad2(ddx, dy, ref, b, *ctx.scalars)
    d_dy = torch.ops.sg2.bias_act_grad(ddx, ref, b, *ctx.scalars) if ctx.needs_input_grad[0] else None
    d_b = sum_to_bias(d_ref, dim) if d_ref is not None and ctx.needs_input_grad[2] else None
    return d_dy, d_ref, d_b, *[None] * 5


def _grad2_backward(ctx: Context, grad: _Tensor) -> tuple[_Optional, ...]:
    raise NotImplementedError("bias_act: the kernels have no third derivative; pass impl='ref'")


_SCALARS = "int dim, str act, float alpha, float gain, float? clamp) -> Tensor"
registry.define(f"(Tensor x, Tensor? b, {_SCALARS}", BIAS_ACT, _empty, _backward, _remember)
registry.define(
    f"(Tensor dy, Tensor ref, Tensor? b, {_SCALARS}", BIAS_ACT_GRAD, _empty, _grad_backward, _grad_remember
)
registry.define(f"(Tensor ddx, Tensor dy, Tensor ref, Tensor? b, {_SCALARS}", BIAS_ACT_GRAD2, _empty, _grad2_backward)
