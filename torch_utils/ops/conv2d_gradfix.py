"""Convolutions under the names that source text embedded in foreign network pickles imports.

Older PyTorch needed hand-written convolution gradients to differentiate twice. Since 2.x the built-in ones are
complete, so the functions are torch's own. `conv2d_resample` uses gradients of our own on a CPU, where they are faster
(conv_gradients.py); these leave out the gradients of weights within `no_weight_gradients()`.
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
    """torch.nn.functional.conv_transpose2d, callable with the keyword names of its Python signature.

    Args:
        input: [N, C, H, W]. weight: [C, O // groups, kh, kw]. bias: [O]. The others: as in torch.

    Returns:
        [N, O, H', W'].
    """
    return F.conv_transpose2d(input, weight, bias, stride, padding, output_padding, groups, dilation)


@contextlib.contextmanager
def no_weight_gradients(disable: bool = True) -> Iterator[None]:
    """Marks a region in which a graph of gradients is made of which only those of activations are needed.

    The flag is restored even after an exception.
    """
    global weight_gradients_disabled
    before = weight_gradients_disabled
    weight_gradients_disabled = disable or before
    try:
        yield
    finally:
        weight_gradients_disabled = before
