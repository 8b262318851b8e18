"""Bias, activation, gain and clamp as one operation.

y = clip(gain * act(x + b), -clamp, clamp), every step optional. This is the epilogue of nearly every
StyleGAN2 layer (Karras et al. 2020, arXiv:1912.04958, section 2.2; the clamp is from arXiv:2006.06676, appendix D.1).
"""
import torch

from . import registry
from .activations import Activation, activation_funcs, bias_act_ref, slope_of
from .bias_act_derivatives import sign_is_kept
from .epilogue import epilogue

__all__ = ["Activation", "activation_funcs", "bias_act", "scale_bias_act"]


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
        raise ValueError(f"bias_act: expected an activation of {', '.join(activation_funcs)}, found {act!r}")
    if impl not in ("cuda", "ref"):
        raise ValueError(f"bias_act: expected impl 'cuda' or 'ref', found {impl!r}")
    if clamp is not None and clamp < 0:
        raise ValueError(f"bias_act: expected clamp ≥ 0, found {clamp}")
    if b is not None and (b.ndim != 1 or not 0 <= dim < x.ndim or b.shape[0] != x.shape[dim]):
        raise ValueError(f"bias_act: bias {tuple(b.shape)} does not fit axis {dim} of x {tuple(x.shape)}")
    alpha = float(spec.def_alpha if alpha is None else alpha)
    gain = float(spec.def_gain if gain is None else gain)
    if impl == "cuda" and registry.uses_dispatcher(x, b) and sign_is_kept(act, alpha, gain):
        if b is None and clamp is None and act == "linear" and gain == 1:
            return x
        return torch.ops.sg2.bias_act(x, b, dim, act, alpha, gain, clamp)
    slope = slope_of(act, alpha, gain)
    if impl == "ref" or slope is None:
        return bias_act_ref(x, b, dim, act, alpha, gain, clamp)
    return epilogue(x, None, None, b, slope, gain, clamp, dim)


def scale_bias_act(
    x: torch.Tensor,
    scale: torch.Tensor | None,
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
        scale: factors [N, C], of x's dtype; None is 1.
        noise: [H, W] or [N, 1, H, W]; None adds nothing.
        b: bias [C]; None adds nothing.
        act, gain, clamp: as in bias_act, but the gain has no default.
        overwrite: the result may take x's place where no gradient is needed.

    Returns:
        A tensor of x's shape, differentiable to any order.

    Raises:
        KeyError: unknown activation.
    """
    spec = activation_funcs[act]
    slope = slope_of(act, spec.def_alpha, gain)
    if slope is not None:
        return epilogue(x, scale, noise, b, slope, gain, clamp, overwrite=overwrite)
    if scale is not None:
        x = x * scale[:, :, None, None]
    x = x if noise is None else x + noise
    return bias_act_ref(x, b, 1, act, spec.def_alpha, gain, clamp)
