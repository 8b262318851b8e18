"""filtered_lrelu: reference numbers, the definition with scipy, gradients of every order, memory, and errors."""
import ast
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from tests.helpers import golden
from torch_utils.ops import filtered_lrelu as module
from torch_utils.ops.filtered_lrelu import filtered_lrelu

DATA = golden("sg3ops")
CASES = sorted(key.removesuffix("/y") for key in DATA if key.endswith("/y") and "/" not in key.removesuffix("/y"))
TOLERANCE = 1e-5  # of max |reference|


def tensor(name: str) -> torch.Tensor:
    return torch.from_numpy(DATA[name])


def arguments(case: str) -> dict[str, Any]:
    args = ast.literal_eval(str(DATA[f"{case}/args"]))
    return {**args, **{name: None if args[name] == "none" else tensor(args[name]) for name in ("fu", "fd")}}


def assert_near(actual: torch.Tensor, reference: torch.Tensor) -> None:
    assert actual.shape == reference.shape
    assert float((actual - reference).detach().abs().max()) <= TOLERANCE * float(reference.abs().max())


@pytest.mark.usefixtures("cpu_path")
@pytest.mark.parametrize("impl", ["cuda", "ref"])
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_of_both_orders(case: str, impl: str) -> None:
    x, b, v = (tensor(name).clone().requires_grad_() for name in ("x", "b", f"{case}/v"))
    y = filtered_lrelu(x, b=b, **arguments(case), impl=impl)
    dx, db = torch.autograd.grad((y * v).sum(), [x, b], create_graph=True)
    (ddv,) = torch.autograd.grad((dx * tensor(f"{case}/p")).sum() + (db * tensor(f"{case}/q")).sum(), v)
    for name, result in (("y", y), ("dx", dx), ("db", db), ("ddv", ddv)):
        assert_near(result, tensor(f"{case}/{name}"))


@pytest.mark.parametrize("case", ["1", "3", "4f", "5", "7", "11", "8f"])
def test_gradients_by_finite_differences(case: str) -> None:
    x, b = (torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
            for shape in ((1, 2, 9, 8), (2,)))
    args = arguments(case)

    def op(x: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return filtered_lrelu(x, b=b, **args)

    assert gradcheck(op, (x, b))
    assert gradgradcheck(op, (x, b))


def _by_definition(x: np.ndarray, b: np.ndarray, fu: np.ndarray, fd: np.ndarray, args: dict[str, Any]) -> np.ndarray:
    """One plane at a time, with scipy; filters [fh, fw]."""
    up, down, (left, right, top, bottom) = args["up"], args["down"], args["padding"]
    from scipy import signal  # takes seconds to import

    apply = signal.correlate2d if args["flip_filter"] else signal.convolve2d
    planes = []
    for image in x:
        for plane, shift in zip(image, b):
            stuffed = np.zeros([plane.shape[0] * up, plane.shape[1] * up])
            stuffed[::up, ::up] = plane + shift
            stuffed = np.pad(stuffed, [(max(top, 0), max(bottom, 0)), (max(left, 0), max(right, 0))])
            stuffed = stuffed[max(-top, 0) : len(stuffed) - max(-bottom, 0)]
            stuffed = stuffed[:, max(-left, 0) : stuffed.shape[1] - max(-right, 0)]
            u = apply(stuffed, fu, mode="valid") * up**2
            u = np.where(u > 0, u, u * args["slope"]) * args["gain"]
            u = u if args["clamp"] is None else u.clip(-args["clamp"], args["clamp"])
            planes.append(apply(u, fd, mode="valid")[::down, ::down])
    return np.array(planes).reshape(*x.shape[:2], *planes[0].shape)


@settings(max_examples=40, deadline=None)
@given(
    up=st.integers(1, 4), down=st.integers(1, 4), padding=st.tuples(*[st.integers(-2, 9)] * 4), flip=st.booleans(),
    clamp=st.sampled_from([None, 0.5]), slope=st.sampled_from([0.0, 0.2, 1.0]), separable=st.booleans(),
    seed=st.integers(0, 99),
)
def test_definition(
    up: int, down: int, padding: tuple[int, ...], flip: bool, clamp: float | None, slope: float, separable: bool,
    seed: int,
) -> None:
    assume(min(8 * up + sum(padding[:2]), 9 * up + sum(padding[2:])) >= 6)  # both filters fit
    rng = np.random.RandomState(seed)
    x, b = rng.randn(2, 3, 9, 8), rng.randn(3)
    fu, fd = (rng.rand(4), rng.rand(3)) if separable else (rng.rand(3, 2), rng.rand(2, 4))
    args = {"up": up, "down": down, "padding": padding, "flip_filter": flip, "clamp": clamp, "slope": slope,
            "gain": 1.3}
    tensors = [torch.from_numpy(f.astype(np.float32)) for f in (fu, fd)]
    full = [(torch.outer(f, f) if separable else f).double().numpy() for f in tensors]
    y = filtered_lrelu(torch.from_numpy(x), *tensors, torch.from_numpy(b), **args)
    np.testing.assert_allclose(y.numpy(), _by_definition(x, b, *full, args), atol=1e-6)


class _Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation makes, in bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.num_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, tuple | list) else [out]:
            if isinstance(t, torch.Tensor):
                self.num_bytes = max(self.num_bytes, t.numel() * t.element_size())
        return out


def test_upsampled_images_never_exist_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 16, 40, 40, requires_grad=True)
    f = torch.ones(12) / 12
    args = {"up": 2, "down": 2, "padding": [11, 10, 11, 10]}
    whole = filtered_lrelu(x, f, f, **args, clamp=1.0)
    (dx,) = torch.autograd.grad(whole.square().sum(), x)
    monkeypatch.setitem(module.GROUP_BYTES, "cpu", 5 * 90 * 90 * 4)  # five planes of 2 · 16
    with _Largest() as largest:
        y = filtered_lrelu(x, f, f, **args, clamp=1.0)
        y.square().sum().backward()
    assert torch.equal(y, whole)
    torch.testing.assert_close(x.grad, dx, rtol=0, atol=0)
    assert largest.num_bytes <= max(x.numel() * 4, 5 * 91 * 91 * 4)


def test_backward_keeps_two_bits_per_upsampled_position() -> None:
    x = torch.randn(1, 8, 32, 32, requires_grad=True)
    f = torch.ones(12) / 12
    kept: list[torch.Tensor] = []

    def keep(t: torch.Tensor) -> torch.Tensor:
        kept.append(t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        y = filtered_lrelu(x, f, f, up=2, down=2, padding=[11, 10, 11, 10], clamp=1.0)
    upsampled = 8 * (64 + 21 - 11) ** 2
    assert y.shape == (1, 8, 32, 32)
    assert sum(t.numel() * t.element_size() for t in kept) <= upsampled / 4 * 1.03  # rows are rounded up to bytes


class _Layer(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        f = torch.ones(12) / 12
        return filtered_lrelu(x, f, f, up=2, down=2, padding=[9, 8, 9, 8])


def test_exported_program_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.GROUP_BYTES, "cpu", 1)  # a captured program has no loop over channels
    x = torch.randn(1, 3, 9, 9)
    with torch.no_grad():
        program = torch.export.export(_Layer(), (x,))
        torch.testing.assert_close(program.module()(x), _Layer()(x))
    assert sum("conv" in str(node.target) for node in program.graph.nodes) == 4  # two passes of each filter


@pytest.mark.parametrize("slope", [0.2, 1.0])
def test_empty_batch(slope: float) -> None:
    x = torch.zeros([0, 3, 9, 9], requires_grad=True)
    y = filtered_lrelu(x, None, torch.ones(3), down=2, slope=slope)
    y.sum().backward()
    assert y.shape == (0, 3, 4, 4)
    assert x.grad is not None
    assert x.grad.shape == x.shape


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"impl": "fast"}, "impl is 'cuda' or 'ref', found 'fast'"),
        ({"b": torch.zeros(4)}, r"bias \(4,\) does not fit x \(1, 3, 5, 5\)"),
        ({"gain": 0}, "expected gain > 0, slope >= 0 and clamp >= 0 or None, found 0, 0.2 and None"),
        ({"up": 0}, "up and down are integers of at least 1, found 0 and 1"),
        ({"padding": [1, 2, 3]}, r"padding has 1, 2 or 4 values, found \[1, 2, 3\]"),
        ({"fu": torch.ones(6)}, "a 6x6 filter does not fit into an image of 5x5 after padding"),
        ({"fd": torch.ones(6)}, "a 6x6 filter does not fit into an image of 5x5 after padding"),
        ({"x": torch.zeros(3, 5, 5)}, r"expected images \[N, C, H, W\], found shape \(3, 5, 5\)"),
    ],
)
def test_errors(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        filtered_lrelu(**{"x": torch.zeros(1, 3, 5, 5), **kwargs})
