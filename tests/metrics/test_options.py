import pytest
import torch

from dnnlib.errors import UserError
from metrics.options import MetricOptions
from tests.metrics.toys import ToyGenerator


def test_counts():
    opts = MetricOptions()
    assert opts.count_gen(50000, at_least=2) == 50000
    assert opts.count_real(None, 300, at_least=2) == 300
    assert opts.count_real(200, 300, at_least=2) == 200
    assert opts.comparable
    assert opts.protocol["num_gen"] == 50000
    assert opts.protocol["num_real"] == 200


@pytest.mark.parametrize("override", [{"num_gen": 100}, {"num_real": 100}, {"G_kwargs": {"truncation_psi": 0.7}}])
def test_departures_are_not_comparable(override):
    opts = MetricOptions(G=ToyGenerator(), **override)
    opts.count_gen(50000, at_least=2)
    opts.count_real(None, 300, at_least=2)
    opts.generator()
    assert not opts.comparable


def test_overrides_that_change_nothing_are_comparable():
    opts = MetricOptions(num_gen=50000, num_real=1000)
    opts.count_gen(50000, at_least=2)
    opts.count_real(None, 300, at_least=2)
    assert opts.comparable


def test_too_few():
    opts = MetricOptions(num_gen=3, num_real=1)
    with pytest.raises(UserError, match="num_gen: this metric needs at least 10 generated images, found 3"):
        opts.count_gen(50000, at_least=10)
    with pytest.raises(UserError, match="num_real: this metric needs at least 4 real images, found 1 of the 300"):
        opts.count_real(None, 300, at_least=4)


def test_generator_is_a_frozen_copy():
    G = ToyGenerator().train()
    opts = MetricOptions(G=G)
    net = opts.generator()
    assert net is not G
    assert not net.training
    assert G.training
    assert not any(p.requires_grad for p in net.parameters())
    assert opts.protocol["dtype"] == "float32"


def test_batch_follows_the_resolution():
    assert MetricOptions(G=ToyGenerator(img_resolution=16)).gen_batch() == 32
    assert MetricOptions(G=ToyGenerator(img_resolution=256, img_channels=1)).gen_batch() == 4
    assert MetricOptions(G=ToyGenerator(), batch_gen=7).gen_batch() == 7


def test_odd_number_of_channels():
    with pytest.raises(UserError, match="expected a generator of 1 or 3 image channels, found 4"):
        MetricOptions(G=ToyGenerator(img_channels=4)).generator()


def test_no_generator():
    with pytest.raises(ValueError, match="needs a generator, found G=None"):
        MetricOptions().generator()


def test_no_data_set():
    with pytest.raises(UserError, match="this metric needs a data set; pass `data`"):
        MetricOptions().dataset()


def test_ranks_must_be_those_of_the_process_group():
    assert MetricOptions(num_gpus=1, rank=0).device == torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match=r"expected rank 1 of 2, but torch_utils\.distributed runs rank 0 of 1"):
        MetricOptions(num_gpus=2, rank=1)
