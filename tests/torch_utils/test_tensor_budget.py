"""The budget of tensors: what is refused, and what is not computed for tensors that are about to be overwritten."""
import pytest
import torch

from torch_utils.tensor_budget import OverBudget, TensorBudget


def construct() -> list[torch.Tensor]:
    """Tensors of one layer of each kind, as networks make theirs."""
    layers = [torch.nn.Linear(3, 2), torch.nn.Embedding(4, 2), torch.nn.BatchNorm1d(5)]
    scaled = torch.randn([2, 2]).div_(torch.full([2, 1], 4.0)).add_(1)
    torch.nn.init.orthogonal_(scaled)
    return [scaled, *(tensor for layer in layers for tensor in layer.state_dict().values())]


def test_tensors_without_elements_have_their_shapes_and_are_counted() -> None:
    expected = construct()
    before = torch.random.get_rng_state()
    with torch.device("meta"), TensorBudget() as budget:
        actual = construct()
    assert [tensor.shape for tensor in actual] == [tensor.shape for tensor in expected]
    assert all(tensor.is_meta for tensor in actual)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert budget.used == sum(tensor.numel() for tensor in expected) - 1 + 2  # no tensor(0) of batches seen, a full


def test_elements_on_a_device_are_not_random_but_computed() -> None:
    before = torch.random.get_rng_state()
    with TensorBudget():
        construct()
        scaled = torch.ones([3]).mul_(8).div_(2).add_(1)
    assert scaled.tolist() == [5, 5, 5]
    assert torch.equal(torch.random.get_rng_state(), before)


def test_more_is_refused() -> None:
    with pytest.raises(OverBudget, match="more than 10 elements"), TensorBudget(10):
        torch.empty([3, 4])
    with pytest.raises(OverBudget, match="too many tensors"), TensorBudget(10, tensors=1):
        torch.zeros(2), torch.ones(2)
