"""Bias, activation, gain and clamp as one operation.

y = clip(gain * act(x + b), -clamp, clamp), every step optional. This is the epilogue of nearly every
StyleGAN2 layer (Karras et al. 2020, arXiv:1912.04958, section 2.2; the clamp is from arXiv:2006.06676, appendix D.1).
"""
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from . import backend
from .backend import plan
from .epilogue import along, epilogue, slope_of, sum_along


@dataclass(frozen=True)
class Activation:
    """One row of `activation_funcs`; attribute names are an interface that other code bases read.

    `ref` says which tensor a hand-written backward needs: '' none, 'x' the biased input, 'y' the output.
    """

    func: Callable[..., torch.Tensor]
    def_alpha: float
    def_gain: float
    cuda_idx: int
    ref: str
    has_2nd_grad: bool


_SQRT2 = math.sqrt(2)
_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772

activation_funcs: dict[str, Activation] = {
    "linear": Activation(lambda x, alpha=0.0: x, 0, 1, 1, "", False),
    "relu": Activation(lambda x, alpha=0.0: F.relu(x), 0, _SQRT2, 2, "y", False),
    "lrelu": Activation(lambda x, alpha=0.2: F.leaky_relu(x, alpha), 0.2, _SQRT2, 3, "y", False),
    "tanh": Activation(lambda x, alpha=0.0: torch.tanh(x), 0, 1, 4, "y", True),
    "sigmoid": Activation(lambda x, alpha=0.0: torch.sigmoid(x), 0, 1, 5, "y", True),
    "elu": Activation(lambda x, alpha=0.0: F.elu(x), 0, 1, 6, "y", True),
    "selu": Activation(lambda x, alpha=0.0: F.selu(x), 0, 1, 7, "y", True),
    "softplus": Activation(lambda x, alpha=0.0: F.softplus(x), 0, 1, 8, "y", True),
    "swish": Activation(lambda x, alpha=0.0: F.silu(x), 0, _SQRT2, 9, "x", True),
}


def bias_act(
    x: torch.Tensor,
    b: torch.Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    impl: str = "cuda",
) -> torch.Tensor:
    """Adds a bias, applies an activation, scales and clamps.

    Args:
        x: input of any rank and float type.
        b: bias of shape [x.shape[dim]] and x's dtype; None adds nothing.
        dim: the axis of x that the bias belongs to.
        act: a key of `activation_funcs`.
        alpha: slope of 'lrelu' below zero; None is the activation's own default.
        gain: factor after the activation; None is the activation's own default.
        clamp: limit ≥ 0 of the absolute value of the output; None does not clamp.
        impl: 'cuda' uses the fastest implementation that is available, 'ref' the plain torch one.

    Returns:
        A tensor of x's shape and dtype, differentiable to any order, on a CUDA device twice.

    Raises:
        ValueError: unknown activation or implementation, negative clamp, or a bias that does not fit.
    """
    spec = activation_funcs.get(act)
    if spec is None:
        raise ValueError(f"bias_act: unknown activation {act!r}; known: {', '.join(activation_funcs)}")
    if impl not in ("cuda", "ref"):
        raise ValueError(f"bias_act: impl is 'cuda' or 'ref', got {impl!r}")
    if clamp is not None and clamp < 0:
        raise ValueError(f"bias_act: clamp must not be negative, got {clamp}")
    if b is not None and (b.ndim != 1 or not 0 <= dim < x.ndim or b.shape[0] != x.shape[dim]):
        raise ValueError(f"bias_act: bias {tuple(b.shape)} does not fit axis {dim} of x {tuple(x.shape)}")
    alpha = float(spec.def_alpha if alpha is None else alpha)
    gain = float(spec.def_gain if gain is None else gain)
    if impl == "cuda" and backend.serves(x, b) and _slope_shows(act, alpha, gain):
        if b is None and clamp is None and act == "linear" and gain == 1:
            return x
        return torch.ops.sg2.bias_act(x, b, dim, act, alpha, gain, clamp)
    slope = slope_of(act, alpha, gain)
    if impl == "ref" or slope is None:
        return _bias_act_ref(x, b, dim, spec, alpha, gain, clamp)
    return epilogue(x, None, None, b, slope, gain, clamp, dim)


def scale_bias_act(
    x: torch.Tensor,
    scale: torch.Tensor,
    noise: torch.Tensor | None = None,
    b: torch.Tensor | None = None,
    act: str = "linear",
    gain: float = 1,
    clamp: float | None = None,
    overwrite: bool = False,
) -> torch.Tensor:
    """clip(gain * act(x * scale + noise + b), -clamp, clamp): all that surrounds a modulated convolution.

    Args:
        x: images [N, C, H, W].
        scale: factors [N, C], of x's dtype.
        noise: [H, W] or [N, 1, H, W]; None adds nothing.
        b: bias [C]; None adds nothing.
        act, gain, clamp: as in bias_act, but the gain has no default.
        overwrite: the result may take x's place where no gradient is needed.

    Returns:
        A tensor of x's shape, differentiable to any order.
    """
    spec = activation_funcs[act]
    slope = slope_of(act, spec.def_alpha, gain)
    if slope is not None:
        return epilogue(x, scale, noise, b, slope, gain, clamp, overwrite=overwrite)
    scale = scale[:, :, None, None]
    x = x * scale if noise is None else torch.addcmul(noise, x, scale)
    return _bias_act_ref(x, b, 1, spec, spec.def_alpha, gain, clamp)


# ----------------------------------------------------------------------------------------------------------------------
# In plain torch


def _bias_act_ref(
    x: torch.Tensor,
    b: torch.Tensor | None,
    dim: int,
    spec: Activation,
    alpha: float,
    gain: float,
    clamp: float | None,
) -> torch.Tensor:
    y = x
    if b is not None:
        y = y + along(b, dim, x.ndim)
    y = spec.func(y, alpha=alpha)
    if gain != 1:
        y = y * gain
    return y if clamp is None else y.clamp(-clamp, clamp)


def _slope_ref(act: str, v: torch.Tensor, u: torch.Tensor, alpha: float) -> torch.Tensor:
    """f'(v), where u = f(v); `swish` looks at v only, the others at u only."""
    match act:
        case "relu":
            return (u > 0).to(u.dtype)
        case "lrelu":
            return torch.where(u > 0, 1.0, alpha).to(u.dtype)
        case "tanh":
            return 1 - u * u
        case "sigmoid":
            return u * (1 - u)
        case "elu":
            return torch.where(u > 0, 1.0, u + 1)
        case "selu":
            return torch.where(u > 0, _SELU_SCALE, u + _SELU_SCALE * _SELU_ALPHA)
        case "softplus":
            return -torch.expm1(-u)
        case "swish":
            s = torch.sigmoid(v)
            return s * (1 + v * (1 - s))
    return torch.ones_like(u)


def _bend_ref(act: str, v: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """The derivative of `_slope_ref` by u, but of swish by v."""
    match act:
        case "tanh":
            return -2 * u
        case "sigmoid":
            return 1 - 2 * u
        case "elu" | "selu":
            return (u <= 0).to(u.dtype)
        case "softplus":
            return torch.exp(-u)
        case "swish":
            s = torch.sigmoid(v)
            return s * (1 - s) * (2 + v * (1 - 2 * s))
    return torch.zeros_like(u)


def _derivative_ref(order, ref, b, dy, ddx, dim, act, alpha, gain, clamp):
    """Order 1 or 2 as csrc/bias_act.cuh defines them."""
    swish = act == "swish"
    v = ref if b is None else ref + along(b, dim, ref.ndim)
    y = F.silu(v) * gain if swish else ref
    u = y / gain
    if order == 1:
        out = dy * gain * _slope_ref(act, v, u, alpha)
    else:
        out = ddx * dy * (gain if swish else 1) * _bend_ref(act, v, u)
    if clamp is None:
        return out
    return torch.where(y.abs() > clamp if swish else y.abs() >= clamp, 0, out)


# ----------------------------------------------------------------------------------------------------------------------
# As registered operations: compiled kernels, and what graph capture needs to know
#
# The derivative is an operation of its own, with a derivative. Order 1 depends on the output y that the forward pass
# has saved (swish: on x and b), so the second derivative reaches x through y's own history.


def _slope_shows(act: str, alpha: float, gain: float) -> bool:
    """Whether the sign of y tells on which side of zero x + b was, which the derivatives rely on."""
    return gain != 0 and (act != "lrelu" or alpha >= 0)


_SCALARS = "int dim, str act, float alpha, float gain, float? clamp"
backend.LIBRARY.define(f"bias_act(Tensor x, Tensor? b, {_SCALARS}) -> Tensor")
backend.LIBRARY.define(f"bias_act_grad(Tensor dy, Tensor ref, Tensor? b, {_SCALARS}) -> Tensor")
backend.LIBRARY.define(f"bias_act_grad2(Tensor ddx, Tensor dy, Tensor ref, Tensor? b, {_SCALARS}) -> Tensor")


def _layout(x: torch.Tensor) -> torch.memory_format:
    return torch.channels_last if x.ndim == 4 and plan.is_channels_last(x) else torch.contiguous_format


def _empty(first, *_):
    return torch.empty(first.shape, dtype=first.dtype, device=first.device, memory_format=_layout(first))


def _compute(order, ref, b, dy, ddx, dim, act, alpha, gain, clamp):
    """Any of the three operations; the first of its tensors decides about the layout."""
    out = _empty(ref if order == 0 else dy if order == 1 else ddx)
    if out.numel() == 0:
        return out
    kernels = backend.kernels_for(out.device)
    if kernels is None:
        spec = activation_funcs[act]
        if order == 0:
            return out.copy_(_bias_act_ref(ref, b, dim, spec, alpha, gain, clamp))
        return out.copy_(_derivative_ref(order, ref, b, dy, ddx, dim, act, alpha, gain, clamp))
    ref, dy, ddx = (None if t is None else t.contiguous(memory_format=_layout(out)) for t in (ref, dy, ddx))
    scalars = (alpha, gain, -1.0 if clamp is None else clamp)
    b = None if b is None else b.contiguous()
    launch = plan.bias_act(order, ref, b, dy, ddx, out, dim, activation_funcs[act].cuda_idx, scalars)
    backend.run(kernels, launch, out.device)
    return out


def _forward_now(x, b, *scalars):
    return _compute(0, x, b, None, None, *scalars)


def _grad_now(dy, ref, b, *scalars):
    return _compute(1, ref, b, dy, None, *scalars)


def _grad2_now(ddx, dy, ref, b, *scalars):
    return _compute(2, ref, b, dy, ddx, *scalars)


def _forward_remember(ctx, inputs, output):
    x, b, *ctx.scalars = inputs
    _, act, _, _, clamp = ctx.scalars
    if act == "swish":
        ctx.save_for_backward(x, b)
    elif act != "linear" or clamp is not None:
        ctx.save_for_backward(output, None)


def _forward_backward(ctx, dy):
    dim, _, _, gain, _ = ctx.scalars
    if ctx.saved_tensors:
        dx = torch.ops.sg2.bias_act_grad(dy, *ctx.saved_tensors, *ctx.scalars)
    else:
        dx = dy * gain
    return dx, sum_along(dx, dim) if ctx.needs_input_grad[1] else None, *[None] * 5


def _grad_remember(ctx, inputs, output):
    dy, ref, b, *ctx.scalars = inputs
    ctx.save_for_backward(dy, ref, b)


def _grad_backward(ctx, ddx):
    dy, ref, b = ctx.saved_tensors
    dim, act = ctx.scalars[:2]
    d_ref = None
    if activation_funcs[act].has_2nd_grad:
        d_ref = torch.ops.sg2.bias_act_grad2(ddx, dy, ref, b, *ctx.scalars)
    d_dy = torch.ops.sg2.bias_act_grad(ddx, ref, b, *ctx.scalars) if ctx.needs_input_grad[0] else None
    d_b = sum_along(d_ref, dim) if d_ref is not None and ctx.needs_input_grad[2] else None
    return d_dy, d_ref, d_b, *[None] * 5


def _grad2_backward(ctx, grad):
    raise NotImplementedError("bias_act: the kernels have no third derivative; pass impl='ref'")


for _name, _now in (("bias_act", _forward_now), ("bias_act_grad", _grad_now), ("bias_act_grad2", _grad2_now)):
    backend.LIBRARY.impl(_name, _now, "CompositeExplicitAutograd")
    torch.library.register_fake(f"sg2::{_name}", _empty, lib=backend.LIBRARY)
_register = torch.library.register_autograd
_register("sg2::bias_act", _forward_backward, setup_context=_forward_remember, lib=backend.LIBRARY)
_register("sg2::bias_act_grad", _grad_backward, setup_context=_grad_remember, lib=backend.LIBRARY)
_register("sg2::bias_act_grad2", _grad2_backward, lib=backend.LIBRARY)
