"""Convolutions under the names that source text embedded in foreign network pickles imports.

Older PyTorch needed hand-written convolution gradients to differentiate twice. Since 2.x the built-in ones are
complete, and `torch.autograd.grad(..., inputs=[x])` computes no weight gradient that nobody asked for
(tests/contract/test_torch_facts.py holds this down), so nothing is left to fix: the functions are torch's own.
"""
import contextlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F

enabled = False
weight_gradients_disabled = False

conv2d = F.conv2d


def conv_transpose2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    output_padding: int = 0,
    groups: int = 1,
    dilation: int = 1,
) -> torch.Tensor:
    """torch.nn.functional.conv_transpose2d, callable with the keyword names of its Python signature."""
    return F.conv_transpose2d(input, weight, bias, stride, padding, output_padding, groups, dilation)


@contextlib.contextmanager
def no_weight_gradients(disable: bool = True) -> Iterator[None]:
    """Marks a region that needs gradients of activations only; restores the flag even after an exception."""
    global weight_gradients_disabled
    before = weight_gradients_disabled
    weight_gradients_disabled = before or disable
    try:
        yield
    finally:
        weight_gradients_disabled = before
