"""What follows a convolution, as one operation: demodulation, noise, bias, activation, gain and clamp."""

import torch
import torch.nn.functional as F

_SLOPES = {"linear": 1.0, "relu": 0.0}


def slope_of(act: str, alpha: float, gain: float) -> float | None:
    """The slope below zero of an activation that is the identity above, and whose output shows on which side its input
    was; None for the others."""
    slope = alpha if act == "lrelu" else _SLOPES.get(act)
    return slope if slope is not None and slope >= 0 and gain > 0 else None


def epilogue(
    x: torch.Tensor,
    scale: torch.Tensor | None,
    noise: torch.Tensor | None,
    b: torch.Tensor | None,
    slope: float,
    gain: float,
    clamp: float | None,
    overwrite: bool,
) -> torch.Tensor:
    """clip(gain * act(x * scale + noise + b), -clamp, clamp), where act(v) is v above zero and slope * v below.

    Args:
        x: any shape.
        scale, noise, b: of shapes that broadcast to x's; None where there is nothing to scale or to add.
        slope: ≥ 0.
        gain: > 0.
        clamp: limit of the absolute value; None is none.
        overwrite: where no gradient is needed, the result may take x's place.

    Returns:
        A tensor of x's shape, differentiable to any order; where the limit is reached, the gradient is 0.
    """
    graph = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, scale, noise, b))
    out = x if overwrite and not graph else None
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
