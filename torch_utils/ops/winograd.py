"""3x3 convolutions on a CPU by Winograd's F(4x4, 3x3): a quarter of the multiplications. They make no graph.

Lavin & Gray 2016, arXiv:1509.09308. Tiles of 6x6 inputs and the 3x3 weights are transformed, multiplied channel by
channel as 36 matrix products, and transformed back. Scales of the inputs are part of the first transform, and what
follows a convolution is part of the last (csrc/winograd.h).

The weights are transformed at every call, so that no cache of weights can be out of date.
"""
import math

import torch
import torch.nn.functional as F

from dnnlib.errors import UserError

from . import cpu_kernels, registry, settings
from .epilogue import epilogue

# Measured: below these the transforms, or those of the weights, take more time than the multiplications that are saved.
# A fixed rule, not a measurement at run time, so that results do not depend on how busy the machine is.
MIN_CHANNELS = 16
MIN_TILES = 16  # of 4x4 pixels, in all images

_Optional = torch.Tensor | None


def takes(x: torch.Tensor, w: torch.Tensor, *_: object) -> bool:
    """Whether a convolution of x [N, C, H, W] with w [O, C, 3, 3], stride 1, padding 1, is faster this way.

    Raises:
        UserError: $SG_CONV is neither "auto" nor "direct".
    """
    if settings.conv not in ("auto", "direct"):
        raise UserError(f"environment variable SG_CONV: expected auto or direct, found {settings.conv!r}")
    if settings.conv == "direct" or x.dtype != torch.float32 or not x.is_contiguous(memory_format=torch.channels_last):
        return False
    n, height, width = x.shape[0], *x.shape[2:]
    return min(w.shape[:2]) >= MIN_CHANNELS and n * math.ceil(height / 4) * math.ceil(width / 4) >= MIN_TILES


def _by_cpu_kernels(
    x: torch.Tensor,
    w: torch.Tensor,
    styles: _Optional = None,
    scale: _Optional = None,
    noise: _Optional = None,
    b: _Optional = None,
    slope: float = 1,
    gain: float = 1,
    clamp: float | None = None,
) -> torch.Tensor:
    styles, scale, b = (None if t is None else t.contiguous() for t in (styles, scale, b))
    noise = None if noise is None else noise.reshape(-1, x.shape[2] * x.shape[3]).contiguous()
    u = cpu_kernels.winograd_weights(w)
    return cpu_kernels.winograd_convolve(x, u, w.shape[0], styles, scale, noise, b, slope, gain, clamp)


def _plain(
    x: torch.Tensor,
    w: torch.Tensor,
    styles: _Optional = None,
    scale: _Optional = None,
    noise: _Optional = None,
    b: _Optional = None,
    slope: float = 1,
    gain: float = 1,
    clamp: float | None = None,
) -> torch.Tensor:
    x = x if styles is None else x * styles[:, :, None, None]
    return epilogue(F.conv2d(x, w, padding=1), scale, noise, b, slope, gain, clamp)


# x [N, C, H, W] and w [O, C, 3, 3] → clip(gain * act(conv(x * styles) * scale + noise + b)), as in `epilogue.epilogue`.
CONV3X3 = registry.register(registry.Op("conv3x3", 6, _plain, _by_cpu_kernels, cpu_takes=takes))
