"""Transposed 3x3 convolutions with stride 2, without gradients, on a CPU: filter and all that follows are one pass."""
import torch
import torch.nn.functional as F

from . import cpu_kernels, registry
from .epilogue import epilogue
from .resampling import padding_of_transposed
from .upfirdn2d import _centred, upfirdn2d

_Optional = torch.Tensor | None


def takes(x: torch.Tensor, w: torch.Tensor, f: torch.Tensor, *_: object) -> bool:
    """Whether the native kernels compute it for x [N, C, H, W], w [O, C, 3, 3] and a filter f [fh, fw]."""
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
    n, _, height, width = x.shape
    noise = None if noise is None else noise.reshape(-1, 4 * height * width).contiguous()
    x = F.conv_transpose2d(x, w.transpose(0, 1), None, 2, (cut_y, cut_x)).contiguous(memory_format=torch.channels_last)
    y = torch.empty((n, w.shape[0], 2 * height, 2 * width), memory_format=torch.channels_last)
    cpu_kernels.fir_epilogue(x, f, y, (rest_x[0], rest_y[0]), False, 4, scale, noise, b, slope, gain, clamp)
    return y


UP_CONVOLUTION = registry.register(registry.Op("up_convolution", 6, _plain, _by_cpu_kernels, cpu_takes=takes))
