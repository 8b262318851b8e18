"""A network from constructor arguments and tensors that a file states, neither of which is trusted."""
from collections.abc import Mapping
from typing import Any

import torch

from torch_utils import misc
from torch_utils.checkpoint import CheckpointError

MAX_RESOLUTION = 1 << 14  # of an image; a file that states more is damaged


def rebuild(cls: Any, arguments: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> Any:
    """Builds a network and fills it, in eval mode on the CPU, without gradients; no random number is drawn.

    Nothing is allocated before names and shapes are known to match: a damaged number in a file costs no memory.

    Args:
        cls: the network's class.
        arguments: keyword arguments of its constructor.
        tensors: name → value of every parameter and buffer; their memory is not kept.

    Raises:
        CheckpointError: names or shapes do not match; the message lists them.
    """
    with torch.device("meta"):
        module = cls(**arguments)
    target = dict(misc.named_params_and_buffers(module))
    missing, extra = sorted(target.keys() - tensors.keys()), sorted(tensors.keys() - target.keys())
    if missing or extra:
        raise CheckpointError(f"tensors do not match this architecture; missing in the file: {_some(missing)}; "
                              f"unknown here: {_some(extra)}")
    for name, tensor in target.items():
        if tensor.shape != tensors[name].shape:
            raise CheckpointError(f"{name} has shape {list(tensors[name].shape)}, expected {list(tensor.shape)}")
    module.to_empty(device="cpu").eval().requires_grad_(False)
    with torch.no_grad():
        for name, tensor in misc.named_params_and_buffers(module):
            tensor.copy_(tensors[name])
    return module


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "") if names else "none"
