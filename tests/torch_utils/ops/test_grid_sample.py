"""grid_sample: values by hand, gradients of first and second order with torch's derivative and with our own."""
import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from torch_utils.ops import grid_sample_gradfix
from torch_utils.ops.grid_sample_gradfix import grid_sample


def example(seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    """Two images of two channels and places in, on the edge of, and outside of them."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn([2, 2, 4, 5], generator=rng, dtype=dtype)
    grid = torch.rand([2, 3, 3, 2], generator=rng, dtype=dtype) * 2.6 - 1.3
    return x.requires_grad_(), grid


@pytest.fixture(params=["torch", "own"])
def each_implementation(request, monkeypatch):
    if request.param == "torch" and not grid_sample_gradfix._torch_differentiates_twice("cpu"):
        pytest.skip("this PyTorch has no second derivative of grid_sample")
    monkeypatch.setattr(grid_sample_gradfix, "implementation", request.param)


def bilinear_by_hand(image: np.ndarray, x: float, y: float) -> float:
    """One sample of one plane [H, W] at pixel coordinates; outside is zero."""
    total = 0.0
    for row in (math.floor(y), math.floor(y) + 1):
        for col in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < image.shape[0] and 0 <= col < image.shape[1]:
                total += image[row, col] * (1 - abs(x - col)) * (1 - abs(y - row))
    return total


@pytest.mark.usefixtures("each_implementation")
def test_values_are_the_definition():
    x, grid = example()
    result = grid_sample(x, grid).detach().numpy()
    planes = x.detach().numpy()
    for n, c, i, j in np.ndindex(*result.shape):
        u, v = grid[n, i, j].tolist()
        want = bilinear_by_hand(planes[n, c], ((u + 1) * 5 - 1) / 2, ((v + 1) * 4 - 1) / 2)
        assert result[n, c, i, j] == pytest.approx(want, abs=1e-12)


@pytest.mark.usefixtures("each_implementation")
def test_first_and_second_derivatives():
    x, grid = example()
    assert gradcheck(lambda x: grid_sample(x, grid), [x])
    assert gradgradcheck(lambda x: grid_sample(x, grid), [x])
    assert gradgradcheck(lambda x: grid_sample(x, grid).pow(3), [x])


@pytest.mark.usefixtures("each_implementation")
def test_third_derivative_of_a_nonlinear_use():
    x, grid = example()

    def slope(x):
        return torch.autograd.grad(grid_sample(x, grid).pow(4).sum(), x, create_graph=True)[0]

    assert gradgradcheck(slope, [x])


def test_own_gradients_are_those_of_torch(monkeypatch):
    x, grid = example(seed=1, dtype=torch.float32)
    (want,) = torch.autograd.grad(grid_sample_gradfix._sample(x, grid).square().sum(), x)
    monkeypatch.setattr(grid_sample_gradfix, "implementation", "own")
    (result,) = torch.autograd.grad(grid_sample(x, grid).square().sum(), x)
    assert torch.allclose(result, want, atol=1e-6)


def test_the_adjoint_is_one(monkeypatch):
    monkeypatch.setattr(grid_sample_gradfix, "implementation", "own")
    x, grid = example(seed=2)
    y = grid_sample(x, grid)
    dy = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(3))
    (dx,) = torch.autograd.grad(y, x, dy)
    assert (y * dy).sum().item() == pytest.approx((x * dx).sum().item(), abs=1e-10)


@pytest.mark.parametrize(("twice", "wanted"), [(True, False), (False, True)])
def test_the_probe_decides(monkeypatch, twice, wanted):
    monkeypatch.setattr(grid_sample_gradfix, "_torch_differentiates_twice", lambda device: twice)
    x, grid = example()
    assert ("_Sample" in type(grid_sample(x, grid).grad_fn).__name__) is wanted


def test_the_probe_tells_what_this_torch_can():
    x, grid = example()
    (dx,) = torch.autograd.grad(grid_sample_gradfix._sample(x, grid).square().sum(), x, create_graph=True)
    if grid_sample_gradfix._torch_differentiates_twice("cpu"):
        assert torch.autograd.grad(dx.sum(), x)[0].abs().sum() > 0
    else:
        with pytest.raises(RuntimeError, match="grid_sampler"):
            torch.autograd.grad(dx.sum(), x)


def test_the_probe_works_where_gradients_are_off():
    grid_sample_gradfix._torch_differentiates_twice.cache_clear()
    with torch.no_grad():
        quiet = grid_sample_gradfix._torch_differentiates_twice("cpu")
    grid_sample_gradfix._torch_differentiates_twice.cache_clear()
    assert grid_sample_gradfix._torch_differentiates_twice("cpu") is quiet


def test_no_probe_without_a_gradient(monkeypatch):
    monkeypatch.setattr(grid_sample_gradfix, "_torch_differentiates_twice", lambda device: pytest.fail("probed"))
    x, grid = example()
    with torch.no_grad():
        result = grid_sample(x, grid)
    assert torch.equal(result, grid_sample(x.detach(), grid))


def test_disabled_is_torch_as_it_is(monkeypatch):
    monkeypatch.setattr(grid_sample_gradfix, "enabled", False)
    monkeypatch.setattr(grid_sample_gradfix, "implementation", "own")
    x, grid = example()
    assert "GridSampler" in type(grid_sample(x, grid).grad_fn).__name__


def test_a_grid_that_wants_a_gradient_is_refused():
    x, grid = example()
    with pytest.raises(ValueError, match=r"grid requires a gradient.*detach it"):
        grid_sample(x, grid.requires_grad_())
