"""Fused multiply-add with broadcasting."""
import torch


def fma(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """Returns a * b + c for tensors of any shapes [...] that broadcast. Differentiable to any order."""
    return torch.addcmul(c, a, b)
