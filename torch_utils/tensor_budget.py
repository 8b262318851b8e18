"""A limit on what is allocated while a network is constructed from unchecked numbers."""
import math
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.randn, torch.rand}
_RANDOM = {torch.randn, torch.rand}
_DRAWS = {torch.Tensor.normal_, torch.Tensor.uniform_, torch.nn.init.normal_, torch.nn.init.uniform_,
          torch.nn.init.kaiming_uniform_, torch.nn.init.orthogonal_}
# Change elements in place, which tensors on the meta device lack; torch imports much for some of these there.
_CHANGES = {torch.Tensor.add_, torch.Tensor.sub_, torch.Tensor.mul_, torch.Tensor.div_, torch.Tensor.copy_,
            torch.Tensor.fill_, torch.Tensor.zero_, torch.nn.init.constant_, torch.nn.init.ones_, torch.nn.init.zeros_}


class OverBudget(ValueError):
    """More tensors or elements were asked for than there may be."""


class TensorBudget(TorchFunctionMode):
    """Within this context new tensors come from a budget of elements, and no random numbers are drawn for them.

    A tensor that exceeds the budget is not allocated. With `torch.device("meta")` around it, none is.

    Args:
        elements: how many there may be in all.
        tensors: how many tensors.

    Attributes:
        used: elements so far.

    Raises:
        OverBudget: from within the context, where the budget is exceeded.
    """

    def __init__(self, elements: int = 1 << 62, tensors: int = 1 << 30) -> None:
        super().__init__()
        self.elements, self.tensors, self.used = elements, tensors, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _FACTORIES:
            size = args[0] if args else kwargs["size"]
            self.used += math.prod(size) if isinstance(size, list | tuple) else math.prod(args)
            self.tensors -= 1
            if self.used > self.elements or self.tensors < 0:
                raise OverBudget(f"more than {self.elements:,} elements" if self.tensors >= 0 else "too many tensors")
        if func in _DRAWS or func in _CHANGES:
            tensor = args[0] if args else kwargs["tensor"]
            if func in _DRAWS or tensor.is_meta:
                return tensor
        return (torch.empty if func in _RANDOM else func)(*args, **kwargs)
