"""Rows of a convolution's linear system: what each sampled output position reads, exact at the borders."""
import dataclasses
from typing import Any

import torch
import torch.nn.functional as F

from torch_utils.ops import upfirdn2d

ROWS_PER_UNKNOWN = 8
MIN_ROWS = 8192


def _padding(layer: Any) -> tuple[int, int]:
    """Pixels before and after each axis of the resampled input, for the layer's own padding and filter."""
    up, down, padding = (getattr(layer, name, default) for name, default in (("up", 1), ("down", 1), ("padding", 0)))
    taps = int(layer.resample_filter.shape[-1]) if up > 1 or down > 1 else 1
    if up > 1:
        return padding + (taps + up - 1) // 2, padding + (taps - up) // 2
    if down > 1:
        return padding + (taps - down + 1) // 2, padding + (taps - down) // 2
    return padding, padding


@dataclasses.dataclass
class Places:
    """Random output positions, so many over all images that a linear system is well determined.

    Args:
        images: how many images there are in all.
        size: pixels of an output.
        layer: whose weights are the unknowns.
        max_rows: of the system.
        generator: of the random numbers.
    """
    images: int
    size: int
    layer: Any
    max_rows: int
    generator: torch.Generator

    def __call__(self, num: int) -> torch.Tensor:
        """Positions for each of the next `num` images, [num, P] int64 below `size`."""
        rows = min(max(ROWS_PER_UNKNOWN * self.layer.weight[0].numel(), MIN_ROWS), self.max_rows)
        count = -(-rows // self.images)
        if count >= self.size:
            return torch.arange(self.size).repeat(num, 1)
        if count * 4 >= self.size:
            return torch.stack([torch.randperm(self.size, generator=self.generator)[:count] for _ in range(num)])
        return torch.randint(self.size, [num, count], generator=self.generator)  # repetitions are rare


def patches(x: torch.Tensor, layer: Any, positions: torch.Tensor) -> torch.Tensor:
    """The inputs that a layer's output depends on: output = patches · `weight_matrix(layer)`ᵀ at these positions.

    An upsampling layer reads the filtered, upsampled input; a downsampling one the filtered input at every `down`-th
    position. Outside the image both see zeros, as `torch_utils.ops.conv2d_resample` does.

    Args:
        x: what the convolution is applied to, [N, C, H, W]; styles are already multiplied in.
        layer: has `weight` [O, C, K, K], and `up`, `down`, `padding`, `resample_filter` where not 1, 1, 0, none.
        positions: flat indices into the output's pixels, [N, P] int64.

    Returns:
        [N, P, C·K·K].
    """
    up, down = getattr(layer, "up", 1), getattr(layer, "down", 1)
    before, after = _padding(layer)
    if up > 1 or down > 1:
        x = upfirdn2d.upfirdn2d(x, layer.resample_filter, up=up, padding=[before, after] * 2, gain=up**2)
    elif before:
        x = F.pad(x, [before, after] * 2)
    kernel = int(layer.weight.shape[2])
    windows = x.unfold(2, kernel, down).unfold(3, kernel, down)  # a view, [N, C, H', W', K, K]
    positions = positions.to(x.device)
    rows, columns = positions // windows.shape[3], positions % windows.shape[3]
    image = torch.arange(len(x), device=x.device)[:, None]
    return windows[image, :, rows, columns].flatten(2)


def gather(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """The values of images [N, C, H, W] at flat positions [N, P], as [N, P, C]."""
    positions = positions.to(x.device)
    return x.flatten(2).gather(2, positions[:, None].expand(-1, x.shape[1], -1)).transpose(1, 2)


def weight_matrix(layer: Any, weight: torch.Tensor | None = None) -> torch.Tensor:
    """A layer's weight [O, C, K, K] as the matrix [O, C·K·K] that meets `patches`."""
    weight = layer.weight if weight is None else weight
    return (weight.flip([2, 3]) if getattr(layer, "up", 1) > 1 else weight).flatten(1)


def set_weight(layer: Any, matrix: torch.Tensor) -> None:
    """Sets a layer's weight, in place, from a matrix [O, C·K·K] in the form of `weight_matrix`."""
    weight = matrix.reshape(layer.weight.shape)
    layer.weight.copy_(weight.flip([2, 3]) if getattr(layer, "up", 1) > 1 else weight)
