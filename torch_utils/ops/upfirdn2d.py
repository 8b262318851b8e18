"""Upsample, FIR-filter and downsample batches of images in one operation.

The resampling of StyleGAN2 (Karras et al. 2020, arXiv:1912.04958; filters as in Zhang 2019, arXiv:1904.11486).
"""
import math
from collections.abc import Sequence

import numpy as np
import torch

from .resampling import Sides, resample, resample_ref

Scaling = int | Sequence[int]
Padding = int | Sequence[int]


def setup_filter(
    f: torch.Tensor | np.ndarray | Sequence[float] | float | None,
    device: torch.device | str = "cpu",
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1,
    separable: bool | None = None,
) -> torch.Tensor:
    """Prepares a filter for the functions of this module.

    Args:
        f: taps, [fh, fw] or [taps]; a scalar is one tap, None is the identity.
        device: where the result lives.
        normalize: divide by the sum of the taps.
        flip_filter: reverse every axis.
        gain: overall factor of the signal; a separable filter carries its square root per axis.
        separable: keep 1-D taps 1-D (two passes). None: only from 8 taps on, shorter ones become their outer product.

    Returns:
        float32 tensor, [fh, fw] or, separable, [taps].

    Raises:
        ValueError: no taps, more than two axes, or two axes although `separable`.
    """
    taps = torch.as_tensor(1 if f is None else f, dtype=torch.float32, device=device)
    if taps.ndim > 2 or taps.numel() == 0:
        raise ValueError(f"setup_filter: expected taps of rank 0, 1 or 2, found shape {tuple(taps.shape)}")
    if taps.ndim == 0:
        taps = taps.reshape(1)
    if taps.ndim == 1 and not (taps.numel() >= 8 if separable is None else separable):
        taps = torch.outer(taps, taps)
    elif separable and taps.ndim == 2:
        raise ValueError("setup_filter: expected taps of rank 1 for a separable filter, found rank 2")
    total = taps.sum() if normalize else 1.0
    taps = taps / total * gain ** (taps.ndim / 2)
    return taps.flip(tuple(range(taps.ndim))) if flip_filter else taps


def _parse_scaling(scaling: Scaling) -> tuple[int, int]:
    """int or (x, y) → (x, y), each at least 1."""
    sx, sy = (scaling, scaling) if isinstance(scaling, int) else scaling
    if sx < 1 or sy < 1:
        raise ValueError(f"upfirdn2d: expected scaling factors ≥ 1, found {scaling}")
    return int(sx), int(sy)


def _parse_padding(padding: Padding) -> tuple[int, int, int, int]:
    """int, (x, y) or (x_before, x_after, y_before, y_after) → the latter; negative values crop."""
    values = [padding] if isinstance(padding, int) else [int(p) for p in padding]
    if len(values) == 1:
        values = values * 4
    elif len(values) == 2:
        values = [values[0], values[0], values[1], values[1]]
    if len(values) != 4:
        raise ValueError(f"upfirdn2d: expected padding of 1, 2 or 4 values, found {padding}")
    return values[0], values[1], values[2], values[3]


def _get_filter_size(f: torch.Tensor | None) -> tuple[int, int]:
    """(width, height) of a prepared filter; a separable one counts for both axes, None is a single tap."""
    return (1, 1) if f is None else (int(f.shape[-1]), int(f.shape[0]))


def _identity(device: torch.device) -> torch.Tensor:
    return torch.ones([1, 1], dtype=torch.float32, device=device)


def upfirdn2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    up: Scaling = 1,
    down: Scaling = 1,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> torch.Tensor:
    """Zero-stuffs, pads or crops, filters and decimates every channel on its own.

    Along one axis, y[i] = gain * sum over k of f[k] * z[i * down + taps - 1 - k] (of z[i * down + k] if `flip_filter`),
    where z[before + j * up] = x[j], and all else of z is 0; its length is len(x) * up + before + after.

    Args:
        x: images [N, C, H, W], any float type.
        f: filter of `setup_filter`, without gradient; None is the identity.
        up, down: factors, int or (x, y).
        padding: int, (x, y) or (x_before, x_after, y_before, y_after), in pixels after zero-stuffing.
        flip_filter: correlate instead of convolve.
        gain: overall factor.
        impl: 'cuda' uses the fastest implementation that is available, 'ref' the plain torch one.

    Returns:
        [N, C, (H*up + py0 + py1 - fh) // down + 1, (W*up + px0 + px1 - fw) // down + 1], x's dtype.
        Differentiable in x to any order.

    Raises:
        ValueError: the filter does not fit into the padded image, or an argument is out of its range.
    """
    if impl not in ("cuda", "ref"):
        raise ValueError(f"upfirdn2d: expected impl 'cuda' or 'ref', found {impl!r}")
    if x.ndim != 4:
        raise ValueError(f"upfirdn2d: expected images [N, C, H, W], found shape {tuple(x.shape)}")
    upx, upy = _parse_scaling(up)
    downx, downy = _parse_scaling(down)
    px0, px1, py0, py1 = _parse_padding(padding)
    f = _identity(x.device) if f is None else f
    if f.device != x.device:
        raise ValueError(f"upfirdn2d: the filter is on {f.device}, the images are on {x.device}")
    one_pass = resample_ref if impl == "ref" else resample
    if f.ndim == 1:  # one pass per axis, each with its share of the gain
        x = one_pass(x, f[None, :], (upx, 1), (downx, 1), (px0, px1, 0, 0), flip_filter, gain**0.5)
        return one_pass(x, f[:, None], (1, upy), (1, downy), (0, 0, py0, py1), flip_filter, gain**0.5)
    return one_pass(x, f, (upx, upy), (downx, downy), (px0, px1, py0, py1), flip_filter, gain)


# ----------------------------------------------------------------------------------------------------------------------
# The three uses


def _centred(f: torch.Tensor | None, padding: Padding, up: Scaling = 1, down: Scaling = 1) -> Sides:
    """The user's padding plus what lets the filter look at the middle of what it makes, for one factor above 1."""
    sides = list(_parse_padding(padding))
    for axis, taps in enumerate(_get_filter_size(f)):
        factor_up, factor_down = _parse_scaling(up)[axis], _parse_scaling(down)[axis]
        before = (taps + factor_up - factor_down) // 2
        sides[2 * axis] += before
        sides[2 * axis + 1] += taps - factor_down - before
    return sides[0], sides[1], sides[2], sides[3]


def filter2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> torch.Tensor:
    """Filters images [N, C, H, W] at the same size; `padding` enlarges the output.

    Raises:
        ValueError: as `upfirdn2d`.
    """
    return upfirdn2d(x, f, 1, 1, _centred(f, padding), flip_filter, gain, impl)


def upsample2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    up: Scaling = 2,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> torch.Tensor:
    """Enlarges images [N, C, H, W] to [N, C, H*up, W*up] at the same brightness; `padding` refers to the output.

    Raises:
        ValueError: as `upfirdn2d`.
    """
    gain = math.prod(_parse_scaling(up), start=gain)
    return upfirdn2d(x, f, up, 1, _centred(f, padding, up=up), flip_filter, gain, impl)


def downsample2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    down: Scaling = 2,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> torch.Tensor:
    """Shrinks images [N, C, H, W] to [N, C, H/down, W/down]; `padding` refers to the input.

    Raises:
        ValueError: as `upfirdn2d`.
    """
    return upfirdn2d(x, f, 1, down, _centred(f, padding, down=down), flip_filter, gain, impl)
