"""Tries freshly loaded kernels on a few pixels before they are trusted with anybody's images."""
import torch
import torch.nn.functional as F

from . import launch_config
from .errors import BackendError
from .kernels import Kernels, queue
from .launch_config import Launch

_LRELU = 3


def run(kernels: Kernels, device: torch.device) -> None:
    """Compares each kind of kernel with PyTorch on the CPU.

    Raises:
        BackendError: a kernel does not run, or what it computes is wrong.
    """
    kernels.check(device.index or 0)
    x = torch.arange(2 * 3 * 6 * 40, dtype=torch.float32, device="cpu").remainder(17).reshape(2, 3, 6, 40) / 8 - 1
    taps = torch.arange(1, 17, dtype=torch.float32, device="cpu").reshape(4, 4) / 16
    for up, down in ((1, 1), (1, 2), (2, 1), (2, 2)):
        for dtype in (torch.float32, torch.float16):
            for layout in (torch.contiguous_format, torch.channels_last):
                expected = _resampled(x, taps, up, down)
                y = torch.empty(expected.shape, dtype=dtype, device=device, memory_format=layout)
                images = x.to(device, dtype, memory_format=layout)
                filter_ = taps.to(device)
                launch = launch_config.upfirdn2d(images, filter_, y, (up, up), (down, down), (2, 2), False, 1.0)
                assert launch is not None
                _check(kernels, launch, y, expected, device)
    for dtype in (torch.float32, torch.float16):
        images, y = x.to(device, dtype), torch.empty(x.shape, dtype=dtype, device=device)
        b = torch.tensor([0.5, -0.25, 1.0], dtype=dtype, device=device)
        launch = launch_config.bias_act(0, images, b, None, None, y, 1, _LRELU, (0.2, 2.0, 1.5))
        expected = (F.leaky_relu(x + b.cpu().float()[:, None, None], 0.2) * 2).clamp(-1.5, 1.5)
        _check(kernels, launch, y, expected, device)


def _resampled(x: torch.Tensor, taps: torch.Tensor, up: int, down: int) -> torch.Tensor:
    """Two zeros around the image, then the filter, as torch would do it."""
    n, c, h, w = x.shape
    stuffed = x.new_zeros(n, c, h * up, w * up)
    stuffed[:, :, ::up, ::up] = x
    weights = taps.flip([0, 1]).expand(c, 1, 4, 4)
    return F.conv2d(F.pad(stuffed, [2, 2, 2, 2]), weights, stride=down, groups=c)


def _check(
    kernels: Kernels, launch: Launch, y: torch.Tensor, expected: torch.Tensor, device: torch.device
) -> None:
    queue(kernels, launch, device)
    error = (y.float().cpu() - expected).abs().max().item()
    limit = (1e-5 if y.dtype == torch.float32 else 5e-3) * expected.abs().max().item()
    if not error <= limit:
        raise BackendError(f"kernel {launch.kernel} computes wrong numbers (off by {error:.3g}); please report this")
