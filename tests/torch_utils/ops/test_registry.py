"""One rule chooses between the implementations of an operation; all of an operation's implementations agree."""
from typing import Any

import pytest
import torch

from torch_utils.ops import bias_act, cpu_kernels, registry, settings, upfirdn2d
from torch_utils.ops.backend import choice

needs_compiler = pytest.mark.skipif(
    cpu_kernels.library()[0] is None, reason=f"no native CPU kernels here: {cpu_kernels.library()[1]}"
)


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def arguments(name: str, dtype: torch.dtype = torch.float32) -> tuple[Any, ...]:
    """A call of an operation."""
    x, b = randn(2, 3, 6, 8, dtype=dtype), randn(3, seed=1, dtype=dtype)
    other = randn(2, 3, 6, 8, seed=2, dtype=dtype)
    scalars = (1, "lrelu", 0.2, 1.4, 0.8)
    images = randn(1, 128, 32, 32, seed=6, dtype=dtype).contiguous(memory_format=torch.channels_last)
    return {
        "conv3x3": (images, randn(128, 128, 3, 3, seed=7, dtype=dtype)),
        "up_convolution": (
            images, randn(8, 128, 3, 3, seed=7, dtype=dtype), randn(4, 4, seed=3), randn(1, 128, seed=5, dtype=dtype),
            randn(1, 8, seed=4, dtype=dtype), None, randn(8, seed=1, dtype=dtype), 0.2, 1.4, 0.8,
        ),
        "upfirdn2d": (x, randn(4, 4, seed=3), (2, 2), (1, 1), (2, 1, 2, 1), False, 4.0),
        "bias_act": (x, b, *scalars),
        "bias_act_grad": (x, other, None, *scalars),
        "bias_act_grad2": (x, other, other, None, *scalars),
        "epilogue": (x, randn(2, 3, seed=4, dtype=dtype), randn(6, 8, seed=5, dtype=dtype), b, 1, 0.2, 1.4, 0.8, False),
    }[name]


@pytest.mark.parametrize("name", registry.operations())
@needs_compiler
def test_all_implementations_of_an_operation_agree(name: str, request: pytest.FixtureRequest) -> None:
    op, args = registry.operations()[name], arguments(name)
    expected = op.plain(*args)
    if op.cpu is not None:
        assert op.compiled(*args) is op.cpu
        error = (op(*args) - expected).abs().max() / expected.std()
        assert error < (3e-5 if name == "conv3x3" else 5e-6)
    if op.cuda is not None:
        on_host = request.getfixturevalue("on_host")
        torch.testing.assert_close(op(*args), expected, rtol=1e-5, atol=1e-6)
        assert len(on_host.launches) == 1


@needs_compiler
def test_a_type_that_the_kernels_lack_is_computed_by_torch() -> None:
    op = registry.operations()["upfirdn2d"]
    assert op.compiled(*arguments("upfirdn2d", torch.bfloat16)) is None
    assert op.compiled(*arguments("upfirdn2d", torch.float64)) is op.cpu


@needs_compiler
def test_tensors_of_different_types_are_computed_by_torch(on_host) -> None:
    x, b, *scalars = arguments("bias_act")
    assert registry.operations()["bias_act"].compiled(x, b.double(), *scalars) is None


@needs_compiler
def test_an_activation_that_the_cpu_kernels_lack_is_computed_by_torch() -> None:
    x, b, dim, _, *scalars = arguments("bias_act")
    assert registry.operations()["bias_act"].compiled(x, b, dim, "tanh", *scalars) is None


@pytest.mark.parametrize("name", registry.operations())
def test_plain_torch_on_request(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "mode", "ref")
    assert registry.operations()[name].compiled(*arguments(name)) is None


def test_cpu_tensors_do_not_go_through_the_dispatcher(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("called")

    monkeypatch.setattr(torch.ops.sg2, "upfirdn2d", refuse)
    monkeypatch.setattr(torch.ops.sg2, "bias_act", refuse)
    x = randn(1, 2, 4, 4).requires_grad_()
    y = upfirdn2d.upsample2d(bias_act.bias_act(x, act="lrelu"), upfirdn2d.setup_filter([1, 3, 3, 1]))
    assert torch.autograd.grad(y.sum(), x)[0].shape == x.shape


def test_a_device_without_kernels_computes_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_chosen", {torch.device("cpu"): None})
    monkeypatch.setattr(cpu_kernels, "enabled", False)
    for name, op in registry.operations().items():
        assert op.compiled(*arguments(name)) is None
        assert torch.equal(op(*arguments(name)), op.plain(*arguments(name)))
