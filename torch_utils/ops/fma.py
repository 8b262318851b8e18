"""Fused multiply-add with broadcasting."""
import torch


def fma(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """Returns a * b + c; the three shapes are broadcast against each other. Differentiable to any order."""
    return torch.addcmul(c, a, b)
