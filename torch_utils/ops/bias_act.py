"""Bias, activation, gain and clamp as one operation.

y = clip(gain * act(x + b), -clamp, clamp), every step optional. This is the epilogue of nearly every
StyleGAN2 layer (Karras et al. 2020, arXiv:1912.04958, section 2.2; the clamp is from arXiv:2006.06676, appendix D.1).
"""
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F


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
        A tensor of x's shape and dtype, differentiable to any order.

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
    return _bias_act_ref(x, b, dim, spec, alpha, gain, clamp)


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
        y = y + b.reshape([-1 if axis == dim else 1 for axis in range(x.ndim)])
    y = spec.func(y, alpha=alpha)
    if gain != 1:
        y = y * gain
    return y if clamp is None else y.clamp(-clamp, clamp)
