"""A network from constructor arguments and tensors that a file states, neither of which is trusted."""
from collections.abc import Mapping
from typing import Any

import torch

from torch_utils import misc
from torch_utils.checkpoint import CheckpointError
from torch_utils.tensor_budget import OverBudget, TensorBudget

MAX_RESOLUTION = 1 << 14  # of an image; a file that states more is damaged

_SLACK = 1 << 20  # elements; below that, a network of the wrong size is built, to say which tensor is wrong


def rebuild(cls: Any, arguments: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> Any:
    """A network of these constructor arguments with these tensors [...]: `blank`, then `fill`."""
    module = blank(cls, arguments, sum(tensor.numel() for tensor in tensors.values()))
    fill(module, tensors)
    return module


def blank(cls: Any, arguments: Mapping[str, Any], available: int) -> Any:
    """A network to be filled, in eval mode on the CPU, without gradients. Its random weights are left undefined.

    Args:
        cls: the network's class.
        arguments: keyword arguments of its constructor.
        available: how many elements the file has for it; a damaged number in a file costs no more memory than that.

    Raises:
        CheckpointError: the network is much larger.
    """
    try:
        with torch.random.fork_rng(devices=[]), TensorBudget(2 * available + _SLACK):
            return cls(**arguments).eval().requires_grad_(False)
    except OverBudget:
        raise CheckpointError("this architecture needs far more weights than the file holds") from None


def fill(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Copies tensors [...] into every parameter and buffer.

    Raises:
        CheckpointError: names or shapes do not match; the message lists them.
    """
    target = dict(misc.named_params_and_buffers(module))
    missing, extra = sorted(target.keys() - tensors.keys()), sorted(tensors.keys() - target.keys())
    if missing or extra:
        raise CheckpointError(f"tensors do not match this architecture; missing in the file: {some(missing)}; "
                              f"unknown here: {some(extra)}")
    for name, tensor in target.items():
        if tensor.shape != tensors[name].shape:
            raise CheckpointError(f"{name} has shape {list(tensors[name].shape)}, expected {list(tensor.shape)}")
    with torch.no_grad():
        for name, tensor in target.items():
            tensor.copy_(tensors[name])


def some(names: list[str]) -> str:
    """The first four names, and the number of the others."""
    rest = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return (", ".join(names[:4]) or "none") + rest
