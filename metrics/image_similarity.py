"""Similarity of two images pixel by pixel: squared error and structural similarity."""
import math

import torch
import torch.nn.functional as F

WINDOW, SIGMA = 11, 1.5  # px, of the Gaussian window
STABILISERS = (0.01, 0.03)  # K1 and K2, times the dynamic range
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
MULTISCALE_PX = WINDOW * 2 ** (len(SCALE_WEIGHTS) - 1)  # smallest side for which every scale holds a window
MAX_PSNR = 100.0  # dB, of equal images


def psnr(mean_squared_error: float, dynamic_range: float = 2.0) -> float:
    """Peak signal-to-noise ratio in dB, at most MAX_PSNR."""
    if mean_squared_error <= 0:
        return MAX_PSNR
    return min(MAX_PSNR, 10 * math.log10(dynamic_range**2 / mean_squared_error))


def _smoothed(x: torch.Tensor) -> torch.Tensor:
    """Weighted means under the window, where it lies wholly within the image: [N, C, H, W] → [N, C, H', W']."""
    offsets = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - (WINDOW - 1) / 2
    taps = (-offsets.square() / (2 * SIGMA**2)).exp()
    taps = (taps / taps.sum()).expand(x.shape[1], 1, 1, -1)
    x = F.conv2d(x, taps, groups=x.shape[1])
    return F.conv2d(x, taps.transpose(2, 3), groups=x.shape[1])


def _terms(a: torch.Tensor, b: torch.Tensor, dynamic_range: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean over pixels of SSIM, and of its part without luminance, each [N, C]."""
    c1, c2 = ((k * dynamic_range) ** 2 for k in STABILISERS)
    mean_a, mean_b = _smoothed(a), _smoothed(b)
    var_a, var_b = _smoothed(a * a) - mean_a**2, _smoothed(b * b) - mean_b**2
    covariance = _smoothed(a * b) - mean_a * mean_b
    structure = (2 * covariance + c2) / (var_a + var_b + c2)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return (luminance * structure).mean(dim=[2, 3]), structure.mean(dim=[2, 3])


def ssim(a: torch.Tensor, b: torch.Tensor, dynamic_range: float = 2.0) -> torch.Tensor:
    """Structural similarity (Wang et al. 2004, IEEE TIP 13(4)) of images [N, C, H, W] of at least WINDOW px: [N].

    Raises:
        ValueError: the images are smaller, or of two shapes.
    """
    _check(a, b, WINDOW)
    return _terms(a, b, dynamic_range)[0].mean(dim=1)


def ms_ssim(a: torch.Tensor, b: torch.Tensor, dynamic_range: float = 2.0) -> torch.Tensor:
    """Multi-scale structural similarity (Wang et al. 2003, Asilomar) of images [N, C, H, W]: [N].

    Five scales, each half of the one before; the luminance counts at the last.

    Raises:
        ValueError: the images are of less than MULTISCALE_PX, or of two shapes.
    """
    _check(a, b, MULTISCALE_PX)
    product: torch.Tensor | float = 1.0
    for number, weight in enumerate(SCALE_WEIGHTS):
        whole, structure = _terms(a, b, dynamic_range)
        is_last = number == len(SCALE_WEIGHTS) - 1
        product = product * (whole if is_last else structure).clamp_min(0) ** weight
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    assert isinstance(product, torch.Tensor)
    return product.mean(dim=1)


def _check(a: torch.Tensor, b: torch.Tensor, smallest: int) -> None:
    if a.shape != b.shape or a.ndim != 4 or min(a.shape[2:]) < smallest:
        raise ValueError(f"structural similarity: expected two batches of images of at least {smallest} px and one "
                         f"shape, found {list(a.shape)} and {list(b.shape)}")
