"""A table of a network's modules: parameters, buffers, output shapes and types."""
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch


class _Call(NamedTuple):
    name: str
    module: torch.nn.Module
    outputs: list[torch.Tensor]


def _tensors(value: object) -> list[torch.Tensor]:
    values = value if isinstance(value, (tuple, list)) else [value]
    return [item for item in values if isinstance(item, torch.Tensor)]


def _record_calls(module: torch.nn.Module, inputs: Sequence[Any], max_nesting: int) -> tuple[list[_Call], Any]:
    """Runs the module and lists the calls of it and its submodules, innermost first, down to a depth."""
    names = {child: name for name, child in module.named_modules()}
    calls: list[_Call] = []
    depth = 0

    def enter(child: torch.nn.Module, args: object) -> None:
        nonlocal depth
        depth += 1

    def leave(child: torch.nn.Module, args: object, output: object) -> None:
        nonlocal depth
        depth -= 1
        if depth <= max_nesting:
            calls.append(_Call(names[child] or type(module).__name__, child, _tensors(output)))

    with ExitStack() as hooks:
        for child in names:
            hooks.callback(child.register_forward_pre_hook(enter).remove)
            hooks.callback(child.register_forward_hook(leave).remove)
        outputs = module(*inputs)
    return calls, outputs


class _Counted:
    """Counts every tensor once, for the first call that returns or owns it."""

    def __init__(self) -> None:
        self._ids: set[int] = set()

    def new(self, tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
        fresh = [tensor for tensor in dict.fromkeys(tensors) if id(tensor) not in self._ids]
        self._ids.update(map(id, fresh))
        return fresh


def _describe(output: torch.Tensor) -> tuple[str, str]:
    return str(list(output.shape)), str(output.dtype).removeprefix("torch.")


def _rows(calls: list[_Call], skip_redundant: bool) -> tuple[list[list[str]], int, int]:
    counted = _Counted()
    rows, num_params, num_buffers = [], 0, 0
    for name, module, outputs in calls:
        params = sum(tensor.numel() for tensor in counted.new(module.parameters()))
        buffers = sum(tensor.numel() for tensor in counted.new(module.buffers()))
        has_new_output = bool(counted.new(outputs))
        num_params += params
        num_buffers += buffers
        if skip_redundant and not (params or buffers or has_new_output):
            continue
        shapes = [_describe(output) for output in outputs] or [("-", "-")]
        rows.append([name, str(params or "-"), str(buffers or "-"), *shapes[0]])
        rows += [[f"{name}:{index}", "-", "-", *shape] for index, shape in enumerate(shapes[1:], 1)]
    return rows, num_params, num_buffers


def _format(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def module_summary(
    module: torch.nn.Module, inputs: Sequence[Any], max_nesting: int = 3, skip_redundant: bool = True
) -> tuple[str, Any]:
    """Runs a module once and describes it.

    A parameter or buffer counts in the innermost module shown that owns it. The hooks are gone afterwards, but whatever
    running the module changes (a running mean in training mode, say) stays changed.

    Args:
        module: the network.
        inputs: positional arguments of its forward.
        max_nesting: how many levels below the module are shown.
        skip_redundant: leave out modules that add no tensor of their own to the table.

    Returns:
        The table, without a newline at the end, and what the module returned.
    """
    assert not isinstance(inputs, torch.Tensor), "inputs is the list of the arguments"
    calls, outputs = _record_calls(module, inputs, max_nesting)
    rows, num_params, num_buffers = _rows(calls, skip_redundant)
    header = ["Module", "Parameters", "Buffers", "Output shape", "Datatype"]
    total = ["Total", str(num_params), str(num_buffers), "-", "-"]
    rule = ["---"] * len(header)
    return _format([header, rule, *rows, rule, total]), outputs


def print_module_summary(
    module: torch.nn.Module, inputs: Sequence[Any], max_nesting: int = 3, skip_redundant: bool = True
) -> Any:
    """Writes the table of `module_summary` to stdout and returns what the module returned."""
    table, outputs = module_summary(module, inputs, max_nesting, skip_redundant)
    sys.stdout.write(f"\n{table}\n\n")
    return outputs
