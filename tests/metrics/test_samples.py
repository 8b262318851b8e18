import numpy as np
import pytest
import torch

from metrics.options import MetricOptions
from metrics.samples import LabelSource, rank_blocks, sample_rng, sample_rngs, torch_seeded
from tests.metrics.toys import write_dataset


def test_sample_numbers_do_not_depend_on_the_number_of_ranks():
    opts = MetricOptions()
    whole = rank_blocks(opts, 10, 4)
    assert whole == [range(0, 4), range(4, 8), range(8, 12)]
    opts.num_gpus = 2
    first = rank_blocks(opts, 10, 4)
    opts.rank = 1
    second = rank_blocks(opts, 10, 4)
    assert [block for pair in zip(first, second, strict=True) for block in pair][:3] == whole


def test_each_sample_has_its_own_numbers():
    draws = [tuple(sample_rng(seed, index).randn(3)) for seed in (0, 1) for index in range(50)]
    assert len(set(draws)) == 100
    assert np.array_equal(sample_rng(3, 4).randn(3), np.random.RandomState([3, 4]).randn(3))
    reseeded = [(rng.randn(3).tolist(), rng.randint(9)) for rng in sample_rngs(3, range(4, 6))]
    alone = [(rng.randn(3).tolist(), rng.randint(9)) for rng in (sample_rng(3, 4), sample_rng(3, 5))]
    assert reseeded == alone


def test_labels_are_those_of_the_data(tmp_path):
    opts = MetricOptions(dataset_kwargs=write_dataset(tmp_path / "images", num=12, num_classes=3))
    labels = LabelSource(opts, c_dim=3)
    drawn = np.stack([labels.draw(sample_rng(0, i)) for i in range(200)])
    assert drawn.dtype == np.float32
    assert drawn.mean(axis=0) == pytest.approx(1 / 3, abs=0.1)
    assert set(np.unique(drawn)) == {0, 1}


def test_unconditional_needs_no_data():
    assert LabelSource(MetricOptions(), c_dim=0).draw(sample_rng(0, 0)).shape == (0,)


def test_seeding_leaves_no_trace():
    opts = MetricOptions(seed=5)
    torch.manual_seed(0)
    expected = torch.randn(4)
    torch.manual_seed(0)
    with torch_seeded(opts, 3):
        first = torch.randn(4)
    assert torch.equal(torch.randn(4), expected)
    with torch_seeded(opts, 3):
        assert torch.equal(torch.randn(4), first)
    with torch_seeded(opts, 4):
        assert not torch.equal(torch.randn(4), first)
