"""torch's optimizers, without the start of torch's compiler.

The methods of torch.optim are decorated so that `torch.compile` leaves them alone. The decorators import torch._dynamo
on the first call, which takes seconds and which nothing here needs. The classes below have the functions inside the
decorators as their methods: the same steps, bit by bit, and the same state dictionaries.
"""
import inspect
from collections.abc import Callable
from typing import Any

import torch


def _inner(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function inside decorators made by functools.wraps."""
    return inspect.unwrap(function)


class Adam(torch.optim.Adam):
    """torch.optim.Adam (arXiv:1412.6980)."""

    add_param_group = _inner(torch.optim.Adam.add_param_group)
    load_state_dict = _inner(torch.optim.Adam.load_state_dict)
    state_dict = _inner(torch.optim.Adam.state_dict)
    zero_grad = _inner(torch.optim.Adam.zero_grad)
    step = torch.no_grad()(_inner(torch.optim.Adam.step))  # the decorator that is left out disables gradients


class AdamW(torch.optim.AdamW):
    """torch.optim.AdamW (arXiv:1711.05101)."""

    add_param_group = _inner(torch.optim.AdamW.add_param_group)
    load_state_dict = _inner(torch.optim.AdamW.load_state_dict)
    state_dict = _inner(torch.optim.AdamW.state_dict)
    zero_grad = _inner(torch.optim.AdamW.zero_grad)
    step = torch.no_grad()(_inner(torch.optim.AdamW.step))
