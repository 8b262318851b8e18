"""The operations and their implementations: each is registered here once, and this is the one place that chooses.

An operation has a plain implementation (torch's own operations, any device), one by the native CPU kernels, and one by
the CUDA kernels; the latter two may be missing. They take the same arguments, return the same, and make no graph.
Derivatives are attached by the module of the operation, to all of its implementations alike: on CUDA devices through
torch's dispatcher, so that programs can be captured, elsewhere by an autograd.Function, which costs less
(docs/adr/0010-ops-outside-the-dispatcher.md).
"""
import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from . import cpu_kernels, settings
from .backend import choice
from .backend.kernels import Kernels
from .backend.launch_config import TAGS, is_channels_last

Implementation = Callable[..., Any]

LIBRARY = torch.library.Library("sg2", "FRAGMENT")  # the namespace of the operations that the dispatcher knows

_operations: "dict[str, Op]" = {}


@dataclass(frozen=True)
class Op:
    """One operation.

    Args:
        name: as `torch.ops.sg2.NAME`, if the dispatcher knows it.
        tensors: how many arguments, from the first on, decide: tensors (or None) that are to share device and type.
        plain: the implementation that always works.
        cpu: by the native kernels; None: there is none.
        cuda: by the CUDA kernels, which it takes as its first argument; None: there is none.
        cpu_takes: whether the native kernels can do it with these arguments.
    """

    name: str
    tensors: int
    plain: Implementation
    cpu: Implementation | None = None
    cuda: Implementation | None = None
    cpu_takes: Callable[..., bool] | None = None

    def cuda_kernels(self, *args: Any) -> Kernels | None:
        """The CUDA kernels that are to compute it with these arguments; None: others have to.

        Raises:
            UserError: $SG_OPS insists on kernels that cannot be had.
        """
        if self.cuda is None or torch.compiler.is_compiling():
            return None
        tensors = args[: self.tensors]
        kernels = choice.kernels_for(tensors[0].device)
        return kernels if kernels is not None and _of_one_type(tensors) else None

    def compiled(self, *args: Any) -> Implementation | None:
        """The compiled implementation for these arguments; None: the plain one has to do it.

        Raises:
            UserError: $SG_OPS insists on CUDA kernels that cannot be had.
        """
        kernels = self.cuda_kernels(*args)
        if kernels is not None and self.cuda is not None:
            return functools.partial(self.cuda, kernels)
        if self.cpu is None or not cpu_kernels.serve(*args[: self.tensors]):
            return None
        return self.cpu if self.cpu_takes is None or self.cpu_takes(*args) else None

    def __call__(self, *args: Any) -> Any:
        """Computes it, without a graph, by the fastest implementation."""
        return (self.compiled(*args) or self.plain)(*args)


def register(op: Op) -> Op:
    """Adds an operation to the table."""
    _operations[op.name] = op
    return op


def operations() -> dict[str, Op]:
    """All operations by name."""
    for module in ("bias_act", "epilogue", "upfirdn2d", "conv2d_resample"):  # they register their ops
        importlib.import_module(f"{__package__}.{module}")
    return dict(sorted(_operations.items()))


def uses_dispatcher(*tensors: torch.Tensor | None) -> bool:
    """Whether a call goes through torch's dispatcher: all tensors [...] are on a CUDA device and of one supported type.

    Elsewhere a direct call is quicker, and programs of torch's own operations can be exported to other formats.
    """
    first = tensors[0]
    assert first is not None
    return first.is_cuda and settings.mode != "ref" and _of_one_type(tensors)


def _of_one_type(tensors: tuple[torch.Tensor | None, ...]) -> bool:
    first = tensors[0]
    assert first is not None
    if first.dtype not in TAGS:
        return False
    return all(t is None or (t.device == first.device and t.dtype == first.dtype) for t in tensors)


def layout_of(x: torch.Tensor) -> torch.memory_format:
    """How a tensor of any shape is stored: channels_last for images [N, C, H, W] that are, else contiguous."""
    return torch.channels_last if x.ndim == 4 and is_channels_last(x) else torch.contiguous_format


def define(
    schema: str,
    op: Op,
    empty: Implementation,
    backward: Callable[..., Any],
    setup_context: Callable[..., None] | None = None,
) -> None:
    """Makes an operation known to torch's dispatcher as `torch.ops.sg2.NAME`.

    Args:
        schema: its arguments, as "(Tensor x, ...) -> Tensor".
        op: the operation, whose implementations return one tensor; that for CUDA one made by `empty`.
        empty: returns an uninitialised result; takes the same arguments.
        backward, setup_context: as in `torch.library.register_autograd`.
    """

    def compute(*args: Any) -> torch.Tensor:
        args = tuple(tuple(arg) if isinstance(arg, list) else arg for arg in args)
        kernels = op.cuda_kernels(*args)
        if kernels is not None and op.cuda is not None:
            return op.cuda(kernels, *args)
        out = empty(*args)  # others may return an argument, or another layout than graph capture expects
        return out.copy_(op(*args)) if out.numel() else out

    LIBRARY.define(op.name + schema)
    LIBRARY.impl(op.name, compute, "CompositeExplicitAutograd")
    torch.library.register_fake(f"sg2::{op.name}", empty, lib=LIBRARY)
    torch.library.register_autograd(f"sg2::{op.name}", backward, setup_context=setup_context, lib=LIBRARY)
