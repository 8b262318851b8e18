"""A limit on what is allocated while a network is constructed from unchecked numbers."""
import math
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.randn, torch.rand}
_RANDOM = {torch.randn, torch.rand}


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

    def __init__(self, elements: int, tensors: int = 1 << 30) -> None:
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
        return (torch.empty if func in _RANDOM else func)(*args, **kwargs)
