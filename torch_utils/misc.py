"""Small torch helpers: cached constants, shape checks, copying and comparing weights."""
import functools
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import numpy as np
import torch

from dnnlib.errors import UserError
from torch_utils import distributed
from torch_utils.sampler import InfiniteSampler
from torch_utils.summary import print_module_summary

__all__ = [
    "InfiniteSampler",
    "WeightsError",
    "assert_shape",
    "check_ddp_consistency",
    "constant",
    "copy_params_and_buffers",
    "ddp_sync",
    "named_params_and_buffers",
    "nan_to_num",
    "params_and_buffers",
    "print_module_summary",
    "profiled_function",
    "suppress_tracer_warnings",
    "symbolic_assert",
]

_Function = TypeVar("_Function", bound=Callable[..., Any])

_MAX_NAMES = 8  # in one error message

nan_to_num = torch.nan_to_num
symbolic_assert = torch._assert  # documented, in spite of its name


class WeightsError(UserError, ValueError):
    """The weights of one network do not fit another."""


def suppress_tracer_warnings() -> AbstractContextManager[Any]:
    """Context in which torch.jit.trace does not warn about values it takes as constants."""
    if torch.compiler.is_compiling() or not torch.jit.is_tracing():
        return nullcontext()
    return _no_tracer_warnings()


@contextmanager
def _no_tracer_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=torch.jit.TracerWarning)
        yield


_constants: defaultdict[tuple, dict[tuple, torch.Tensor]] = defaultdict(dict)  # by kind of tensor, then by content


def constant(
    value: object,
    shape: Sequence[int] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    memory_format: torch.memory_format | None = None,
) -> torch.Tensor:
    """A tensor [*shape] with a fixed value, made once and kept; callers must not change it.

    Args:
        value: anything NumPy can turn into an array.
        shape: broadcast the value to this shape.
        dtype: torch's default type if None.
        device: the CPU if None.
        memory_format: torch.contiguous_format if None.
    """
    dtype = dtype or torch.get_default_dtype()
    device = torch.device(device or "cpu")
    shape = None if shape is None else tuple(shape)
    if torch.compiler.is_compiling():  # a part of the graph, not to be kept
        return _new_constant(value, shape, dtype, device, memory_format)
    array = np.asarray(value)
    kept, content = _constants[device, dtype, memory_format], (array.tobytes(), array.dtype, array.shape, shape)
    if content in kept:
        return kept[content]
    # What is kept may later meet autograd, even if made during inference.
    with torch.inference_mode(False), suppress_tracer_warnings():
        tensor = _new_constant(array, shape, dtype, device, memory_format)
    if type(tensor) is torch.Tensor:  # no tracer's stand-in may be kept
        kept[content] = tensor
    return tensor


def _new_constant(
    value: object,
    shape: tuple[int, ...] | None,
    dtype: torch.dtype,
    device: torch.device,
    memory_format: torch.memory_format | None,
) -> torch.Tensor:
    tensor = torch.tensor(value, dtype=dtype, device=device)
    if shape is not None:
        tensor = tensor.expand(shape)
    return tensor.contiguous(memory_format=memory_format or torch.contiguous_format)


def assert_shape(tensor: torch.Tensor, ref_shape: Sequence[int | None]) -> None:
    """Checks that a tensor's shape is [*ref_shape]; None stands for any size.

    Raises:
        AssertionError: says which shape was expected.
    """
    expected = list(ref_shape)
    assert tensor.ndim == len(expected), f"expected a tensor of shape {expected}, found {list(tensor.shape)}"
    with suppress_tracer_warnings():
        for size, ref in zip(tensor.shape, expected):
            assert ref is None or size == ref, f"expected a tensor of shape {expected}, found {list(tensor.shape)}"


def profiled_function(fn: _Function) -> _Function:
    """Decorator: calls appear under the function's name in torch's profiler."""

    @functools.wraps(fn)
    def wrapper(*args: object, **kwargs: object) -> Any:
        if torch.compiler.is_compiling():
            return fn(*args, **kwargs)
        with torch.autograd.profiler.record_function(fn.__name__):
            return fn(*args, **kwargs)

    return wrapper  # type: ignore[return-value]


def params_and_buffers(module: torch.nn.Module) -> list[torch.Tensor]:
    """All parameters, then all buffers, each of its own shape [...]."""
    return [*module.parameters(), *module.buffers()]


def named_params_and_buffers(module: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    """All parameters, then all buffers, each of its own shape [...], with their names."""
    return [*module.named_parameters(), *module.named_buffers()]


def _shorten(names: list[str]) -> str:
    rest = len(names) - _MAX_NAMES
    return ", ".join(names[:_MAX_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def copy_params_and_buffers(src: torch.nn.Module, dst: torch.nn.Module, require_all: bool = False) -> None:
    """Copies the tensors of equal name from one network to another; parameters and buffers share one name space.

    Names that only one side has keep what they have. requires_grad stays as dst has it.

    Args:
        src: where the values come from.
        dst: the network to change.
        require_all: every name of dst must be in src.

    Raises:
        WeightsError: a shape differs, or a required name is missing; lists them. Nothing was copied then.
    """
    have = dict(named_params_and_buffers(src))
    want = named_params_and_buffers(dst)
    shapes = [
        f"{name} {list(have[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in want
        if name in have and have[name].shape != tensor.shape
    ]
    missing = [name for name, _ in want if name not in have] if require_all else []
    kinds = {"missing": missing, "other shape": shapes}
    problems = [f"{kind}: {_shorten(names)}" for kind, names in kinds.items() if names]
    if problems:
        raise WeightsError(f"{type(src).__name__}: the weights do not fit {type(dst).__name__}: {'; '.join(problems)}")
    with torch.no_grad():
        for name, tensor in want:
            if name in have:
                tensor.copy_(have[name])


@contextmanager
def ddp_sync(module: torch.nn.Module, sync: bool) -> Iterator[None]:
    """Context in which a DistributedDataParallel module leaves gradients local if `sync` is False."""
    parallel = torch.nn.parallel.DistributedDataParallel
    with module.no_sync() if not sync and isinstance(module, parallel) else nullcontext():
        yield


def check_ddp_consistency(module: torch.nn.Module, ignore_regex: str | None = None) -> None:
    """Checks that every parameter and buffer has the same values on all ranks, NaN being equal to NaN.

    Args:
        module: all ranks must call this with the same kind of module.
        ignore_regex: leaves out the tensors whose whole "<ClassName>.<name>" it matches.

    Raises:
        RuntimeError: on every rank; names the ranks and tensors that differ from rank 0.
    """
    if distributed.world_size() == 1:
        return
    differing = []
    for name, tensor in named_params_and_buffers(module):
        full_name = f"{type(module).__name__}.{name}"
        if ignore_regex is None or not re.fullmatch(ignore_regex, full_name):
            own = nan_to_num(tensor.detach())
            if not torch.equal(own, distributed.broadcast_(own.clone())):
                differing.append(full_name)
    by_rank = distributed.gather_objects(differing)
    reports = [f"rank {rank}: {_shorten(names)}" for rank, names in enumerate(by_rank) if names]
    if reports:
        raise RuntimeError(f"the ranks differ from rank 0: {'; '.join(reports)}")
