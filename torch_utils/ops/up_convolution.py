"""Transposed 3x3 convolution with stride 2, filter and what follows, without gradients on a CPU: by bands of rows.

The filter and all that follows are one pass. Large images are computed a band at a time, so that what lies between
convolution and filter takes little memory.
"""
import torch
import torch.nn.functional as F

from . import cpu_kernels, registry
from .epilogue import epilogue
from .resampling import padding_of_transposed
from .upfirdn2d import _centred, upfirdn2d

BAND_BYTES = 16 << 20  # between convolution and filter

_Optional = torch.Tensor | None


def takes(x: torch.Tensor, w: torch.Tensor, f: torch.Tensor, *_: object) -> bool:
    """Whether bands can compute it."""
    is_plain = x.dtype == torch.float32 and x.is_contiguous(memory_format=torch.channels_last) and w.shape[0] > 1
    return is_plain and f.ndim == 2 and cpu_kernels.takes_filter(f)


def _plain(
    x: torch.Tensor,
    w: torch.Tensor,
    f: torch.Tensor,
    scale: _Optional,
    noise: _Optional,
    b: _Optional,
    slope: float,
    gain: float,
    clamp: float | None,
) -> torch.Tensor:
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
    scale: _Optional,
    noise: _Optional,
    b: _Optional,
    slope: float,
    gain: float,
    clamp: float | None,
) -> torch.Tensor:
    scale, b = (None if t is None else t.contiguous() for t in (scale, b))
    (cut_x, rest_x), (cut_y, rest_y) = _padding(f)
    n, _, h, width = x.shape
    y = torch.empty((n, w.shape[0], 2 * h, 2 * width), memory_format=torch.channels_last)
    noise = None if noise is None else noise.reshape(-1, y.shape[2] * y.shape[3]).contiguous()
    w = w.transpose(0, 1)
    whole = 2 * h - cut_y + 1 - cut_y  # rows between convolution and filter
    step = y.shape[2]
    if 4 * y[0].numel() > 2 * BAND_BYTES:
        step = max(BAND_BYTES // (4 * y[0, :, 0].numel()), 16)
    for image in [slice(None)] if step == y.shape[2] else [slice(i, i + 1) for i in range(n)]:
        part_scale = None if scale is None else scale[image]
        part_noise = noise if noise is None or noise.shape[0] == 1 else noise[image]
        for first in range(0, y.shape[2], step):
            last = min(first + step, y.shape[2])
            begin, end = max(first - rest_y[0], 0), min(last - rest_y[0] + f.shape[0] - 1, whole)  # rows that it reads
            low, high = max((begin + cut_y - 1) // 2, 0), min((end - 1 + cut_y) // 2 + 1, h)  # and rows of x for those
            between = F.conv_transpose2d(x[image, :, low:high], w, None, 2, (0, cut_x))
            between = between.contiguous(memory_format=torch.channels_last)
            offset = 2 * low - cut_y
            cpu_kernels.fir_epilogue(
                between[:, :, begin - offset : end - offset] if step < y.shape[2] else between, f, y[image],
                (first, last), (rest_x[0], begin - first + rest_y[0]), False, 4, part_scale, part_noise, b, slope, gain,
                clamp,
            )  # fmt: skip
    return y


UP_CONVOLUTION = registry.register(registry.Op("up_convolution", 6, _plain, _by_cpu_kernels, cpu_takes=takes))
