"""Bias, activation, gain, clamp."""
import torch
import torch.nn.functional as F

from dnnlib import EasyDict

_ROOT = 2**0.5
activation_funcs = {
    "linear": EasyDict(func=lambda x, a: x, def_alpha=0, def_gain=1),
    "relu": EasyDict(func=lambda x, a: F.relu(x), def_alpha=0, def_gain=_ROOT),
    "lrelu": EasyDict(func=lambda x, a: F.leaky_relu(x, a), def_alpha=0.2, def_gain=_ROOT),
    "tanh": EasyDict(func=lambda x, a: torch.tanh(x), def_alpha=0, def_gain=1),
    "sigmoid": EasyDict(func=lambda x, a: torch.sigmoid(x), def_alpha=0, def_gain=1),
    "elu": EasyDict(func=lambda x, a: F.elu(x), def_alpha=0, def_gain=1),
    "selu": EasyDict(func=lambda x, a: F.selu(x), def_alpha=0, def_gain=1),
    "softplus": EasyDict(func=lambda x, a: F.softplus(x), def_alpha=0, def_gain=1),
    "swish": EasyDict(func=lambda x, a: x * torch.sigmoid(x), def_alpha=0, def_gain=_ROOT),
}


def bias_act(x, b=None, dim=1, act="linear", alpha=None, gain=None, clamp=None, impl="cuda"):
    """clip(gain * f(x + b))."""
    spec = activation_funcs[act]
    if b is not None:
        x = x + b.reshape([-1 if axis == dim else 1 for axis in range(x.ndim)])
    x = spec.func(x, spec.def_alpha if alpha is None else alpha) * (spec.def_gain if gain is None else gain)
    return x if clamp is None else x.clamp(-clamp, clamp)
