"""The activation functions, and bias, activation, gain and clamp in plain torch."""
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


_SLOPES = {"linear": 1.0, "relu": 0.0}


def slope_of(act: str, alpha: float, gain: float) -> float | None:
    """The slope below zero of an activation that is the identity above zero.

    None for the others, and where the sign of the output does not show the sign of the input.
    """
    slope = alpha if act == "lrelu" else _SLOPES.get(act)
    return slope if slope is not None and slope >= 0 and gain > 0 else None


def broadcast_bias(b: torch.Tensor, dim: int, ndim: int) -> torch.Tensor:
    """Reshapes a bias [C] to `ndim` axes so that it broadcasts along `dim`."""
    return b.reshape(*[1] * dim, -1, *[1] * (ndim - 1 - dim))


def sum_to_bias(x: torch.Tensor, dim: int) -> torch.Tensor:
    """Sums a gradient of any shape over all axes but `dim`: the gradient of the bias, [x.shape[dim]]."""
    others = (*range(dim), *range(dim + 1, x.ndim))
    return x.sum(others) if others else x  # torch takes no axes for all of them


def bias_act_ref(
    x: torch.Tensor, b: torch.Tensor | None, dim: int, act: str, alpha: float, gain: float, clamp: float | None
) -> torch.Tensor:
    """clip(gain * act(x + b), -clamp, clamp), straight from the definition.

    Args:
        x: any shape. b: [x.shape[dim]]. The others: as in `bias_act.bias_act`.

    Returns:
        A tensor of x's shape, which may be x itself.
    """
    y = x
    if b is not None:
        y = y + broadcast_bias(b, dim, x.ndim)
    y = activation_funcs[act].func(y, alpha=alpha)
    if gain != 1:
        y = y * gain
    return y if clamp is None else y.clamp(-clamp, clamp)


def d_act(act: str, v: torch.Tensor, u: torch.Tensor, alpha: float) -> torch.Tensor:
    """The first derivative f'(v) of an activation, where u = f(v); of any shape [...].

    `swish` needs v only, the others u only.
    """
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


def d2_act(act: str, v: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """The derivative of `d_act` by u, but of swish by v; of any shape [...]."""
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
