"""Bilinear image sampling that can be differentiated twice, on every supported PyTorch.

R1 through geometric augmentation needs the second derivative of `grid_sample`. PyTorch has it only since 2.12
(earlier: "derivative for aten::grid_sampler_2d_backward is not implemented"). Which of the two implementations is
used is decided by trying once per kind of device, never from a version number.
"""
import functools
from typing import Literal

import torch
import torch.nn.functional as F

from torch_utils.function_context import Context

enabled = True  # False: torch's function as it is, with whatever derivatives it has
implementation: Literal["auto", "torch", "own"] = "auto"  # "auto" probes; the other two are for tests


def grid_sample(input: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Samples images at given places: bilinear, zero outside, `align_corners=False`.

    Args:
        input: images [N, C, H, W]. Differentiable to any order.
        grid: places (x, y) in units of half the image, -1 and 1 being its outer edges, [N, H', W', 2], same dtype.
            Taken as a constant.

    Returns:
        [N, C, H', W'].

    Raises:
        ValueError: `grid` requires a gradient, which this function would not give.
    """
    if grid.requires_grad:
        raise ValueError("grid_sample: the grid requires a gradient but is taken as a constant here; detach it")
    if enabled and input.requires_grad and torch.is_grad_enabled() and _use_own(input.device.type):
        return _Sample.apply(input, grid)
    return _sample(input, grid)


def _use_own(device_type: str) -> bool:
    return implementation == "own" or (implementation == "auto" and not _torch_differentiates_twice(device_type))


@functools.cache
def _torch_differentiates_twice(device_type: str) -> bool:
    """Tries a second derivative on a single pixel."""
    with torch.inference_mode(False), torch.enable_grad():
        x = torch.ones([1, 1, 1, 1], device=device_type, requires_grad=True)
        y = _sample(x, torch.zeros([1, 1, 1, 2], device=device_type))
        try:
            (dx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
            torch.autograd.grad(dx.sum(), x)
        except RuntimeError:  # NotImplementedError, which some devices raise, is one too
            return False
    return True


def _sample(x: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


class _Sample(torch.autograd.Function):
    """Sampling, a linear map of the image; its derivative is the adjoint below."""

    @staticmethod
    def forward(ctx: Context, x: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(grid)
        ctx.shape = x.shape
        return _sample(x, grid)

    @staticmethod
    def backward(ctx: Context, dy: torch.Tensor) -> tuple[torch.Tensor, None]:
        (grid,) = ctx.saved_tensors
        return _Splat.apply(dy, grid, ctx.shape), None


class _Splat(torch.autograd.Function):
    """The adjoint: spreads values over the four pixels they were sampled from. Its own derivative is sampling."""

    @staticmethod
    def forward(ctx: Context, dy: torch.Tensor, grid: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        ctx.save_for_backward(grid)
        # A linear map has the same adjoint everywhere, so torch's first derivative at a blank image gives it.
        with torch.enable_grad():
            blank = dy.new_zeros(shape).requires_grad_()
            # A sum, because with grad_outputs torch imports sympy for a second.
            return torch.autograd.grad((_sample(blank, grid.detach()) * dy).sum(), blank)[0]

    @staticmethod
    def backward(ctx: Context, ddx: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (grid,) = ctx.saved_tensors
        return _Sample.apply(ddx, grid), None, None
