"""Transposed 3x3 convolutions with stride 2, without gradients, on a CPU: filter and all that follows are one pass.

Large images are convolved by Winograd's F(4, 2) for the even outputs along each axis (csrc/winograd_up.h): 81
multiplications in place of 144.
"""
import math

import torch
import torch.nn.functional as F

from . import cpu_kernels, registry, settings
from .bias_act import scale_bias_act
from .epilogue import epilogue
from .resampling import padding_of_transposed
from .upfirdn2d import _centred, upfirdn2d

_Optional = torch.Tensor | None

# Measured, as in winograd.py: below these the transforms take more time than the multiplications that are saved.
MIN_CHANNELS = 16
MIN_TILES = 64  # of 4x4 inputs, in each image: at the borders there are some more, which cost small images most


def takes(x: torch.Tensor, w: torch.Tensor, f: torch.Tensor, *_: object) -> bool:
    """Whether the native kernels compute it for x [N, C, H, W], w [O, C, 3, 3] and a filter f [fh, fw]."""
    is_plain = x.dtype == torch.float32 and x.is_contiguous(memory_format=torch.channels_last) and w.shape[0] > 1
    return is_plain and f.ndim == 2 and cpu_kernels.takes_filter(f)


def is_large(x: torch.Tensor, w: torch.Tensor) -> bool:
    """Whether the convolution of x [N, C, H, W] with w [O, C, 3, 3] is faster by Winograd's."""
    tiles = math.ceil(x.shape[2] / 4) * math.ceil(x.shape[3] / 4)
    return settings.conv == "auto" and min(w.shape[:2]) >= MIN_CHANNELS and tiles >= MIN_TILES


def with_styles(x: torch.Tensor, w: torch.Tensor, styles: _Optional) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [N, C, H, W] and weights [O, C, kh, kw], of which one is multiplied by the styles [N, C] of the inputs."""
    if styles is None:
        return x, w
    if x.shape[0] == 1 and w.numel() < x.numel() and not (torch.is_grad_enabled() or torch.compiler.is_compiling()):
        return x, w * styles[0, :, None, None]  # less work than scaling one large image; captured programs are for any
    return scale_bias_act(x, styles), w


def _plain(
    x: torch.Tensor,
    w: torch.Tensor,
    f: torch.Tensor,
    styles: _Optional,
    scale: _Optional,
    noise: _Optional,
    b: _Optional,
    slope: float,
    gain: float,
    clamp: float | None,
) -> torch.Tensor:
    x, w = with_styles(x, w, styles)
    (cut_x, rest_x), (cut_y, rest_y) = _padding(f)
    x = F.conv_transpose2d(x, w.transpose(0, 1), None, 2, (cut_y, cut_x))
    x = upfirdn2d(x, f, padding=(*rest_x, *rest_y), gain=4)
    return epilogue(x, scale, noise, b, slope, gain, clamp, overwrite=True)


def _padding(f: torch.Tensor) -> tuple[tuple[int, tuple[int, int]], tuple[int, tuple[int, int]]]:
    """What the convolution cuts off, and the filter adds, for x and y: the result has twice the size."""
    px0, px1, py0, py1 = _centred(f, (1, 1, 1, 1), up=2)
    return padding_of_transposed(3, 2, px0, px1), padding_of_transposed(3, 2, py0, py1)


def _by_cpu_kernels(
    x: torch.Tensor,
    w: torch.Tensor,
    f: torch.Tensor,
    styles: _Optional,
    scale: _Optional,
    noise: _Optional,
    b: _Optional,
    slope: float,
    gain: float,
    clamp: float | None,
) -> torch.Tensor:
    scale, b = (None if t is None else t.contiguous() for t in (scale, b))
    n, _, height, width = x.shape
    noise = None if noise is None else noise.reshape(-1, 4 * height * width).contiguous()
    y = torch.empty((n, w.shape[0], 2 * height, 2 * width), memory_format=torch.channels_last)
    if is_large(x, w) and f.shape == (4, 4):
        u = cpu_kernels.winograd_weights(w, up=True)
        styles = None if styles is None else styles.contiguous()
        if cpu_kernels.winograd_up_convolve(x, u, y, styles, f, 4, scale, noise, b, slope, gain, clamp):
            return y
    x, w = with_styles(x, w, styles)
    (cut_x, rest_x), (cut_y, rest_y) = _padding(f)
    x = F.conv_transpose2d(x, w.transpose(0, 1), None, 2, (cut_y, cut_x)).contiguous(memory_format=torch.channels_last)
    cpu_kernels.fir_epilogue(x, f, y, (rest_x[0], rest_y[0]), False, 4, scale, noise, b, slope, gain, clamp)
    return y


UP_CONVOLUTION = registry.register(registry.Op("up_convolution", 7, _plain, _by_cpu_kernels, cpu_takes=takes))
