"""The type of `ctx` in the methods of autograd functions."""
from typing import TYPE_CHECKING, Any

import torch


class Context(torch.autograd.function.FunctionCtx):
    """The `ctx` of an autograd function, whose other attributes are what its forward pass sets."""

    saved_tensors: tuple[torch.Tensor, ...]
    needs_input_grad: tuple[bool, ...]

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

        def __setattr__(self, name: str, value: Any) -> None: ...
