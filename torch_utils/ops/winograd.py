"""3x3 convolutions without gradients on a CPU by Winograd's F(4x4, 3x3): a quarter of the multiplications.

Lavin & Gray 2016, arXiv:1509.09308. Tiles of 6x6 inputs and the 3x3 weights are transformed, multiplied channel by
channel as 36 matrix products by torch's sgemm, and transformed back (csrc/winograd.h).

The weights are transformed at every call. That costs as much as the convolution of a few pixels, so that small images,
for which it would matter, are left to torch, and no cache of weights can be out of date.
"""
import functools
import math

import torch
import torch.nn.functional as F

from dnnlib.errors import UserError

from . import cpu_kernels, registry, settings

# Measured: below these the transforms, or those of the weights, take more time than the multiplications that are saved.
# A fixed rule, not a measurement at run time, so that results do not depend on how busy the machine is.
MIN_CHANNELS = 32
MIN_PIXELS = 32 * 32
MIN_ELEMENTS = 64 * 32 * 32  # channels times pixels

_POINTS = (0.0, math.sqrt(0.5), -math.sqrt(0.5), math.sqrt(2), -math.sqrt(2))


def takes(x: torch.Tensor, w: torch.Tensor) -> bool:
    """Whether a convolution of x [N, C, H, W] with w [O, C, 3, 3], stride 1, padding 1, is faster this way.

    Raises:
        UserError: $SG_CONV is neither "auto" nor "direct".
    """
    if settings.conv not in ("auto", "direct"):
        raise UserError(f"environment variable SG_CONV: expected auto or direct, found {settings.conv!r}")
    if settings.conv == "direct" or x.dtype != torch.float32 or not x.is_contiguous(memory_format=torch.channels_last):
        return False
    channels, pixels = min(w.shape[:2]), x.shape[2] * x.shape[3]
    return channels >= MIN_CHANNELS and pixels >= MIN_PIXELS and channels * pixels >= MIN_ELEMENTS


@functools.cache
def _weights_transform() -> torch.Tensor:
    """[36, 9]: the values of the polynomial with the taps as coefficients at all pairs of points, scaled."""
    rows = []
    for p in _POINTS:
        scale = math.prod(p - q for q in _POINTS if q != p)
        rows.append([1 / scale, p / scale, p * p / scale])
    line = torch.tensor([*rows, [0.0, 0.0, 1.0]], dtype=torch.float64)
    return torch.einsum("pi,qj->pqij", line, line).reshape(36, 9).float()


def _by_cpu_kernels(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    n, c, height, width = x.shape
    out_channels = w.shape[0]
    taps = w.permute(0, 2, 3, 1).reshape(out_channels, 9, c)
    u = torch.matmul(_weights_transform(), taps).permute(1, 2, 0)  # [36, C, O]
    y = torch.empty((n, out_channels, height, width), memory_format=torch.channels_last)
    tiles = math.ceil(height / 4) * math.ceil(width / 4)
    chunk = min(tiles, 256 if c >= 256 else 64)  # whose transforms stay in the caches
    v, m = torch.empty([36 * chunk * c]), torch.empty([36 * chunk * out_channels])
    for image, result in zip(x, y):
        for first in range(0, tiles, chunk):
            count = min(chunk, tiles - first)
            inputs = v[: 36 * count * c].view(36, count, c)
            products = m[: 36 * count * out_channels].view(36, count, out_channels)
            cpu_kernels.winograd_input(image, inputs, first)
            torch.bmm(inputs, u, out=products)
            cpu_kernels.winograd_output(products, result, first)
    return y


def _plain(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return F.conv2d(x, w, padding=1)


CONV3X3 = registry.register(registry.Op("conv3x3", 2, _plain, _by_cpu_kernels, cpu_takes=takes))
