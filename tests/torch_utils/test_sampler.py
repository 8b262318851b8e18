"""InfiniteSampler: its order, its share per rank, its state."""
import copy
import io
from itertools import islice

import pytest
import torch

from dnnlib.errors import UserError
from torch_utils.misc import InfiniteSampler

# Orders of the reference implementation.
ORDER_10_SEED_0 = "2 8 4 9 1 6 2 3 0 9 7 8 1 5 6 4 3 8 2 1 9 6 7 5 8 4 0 9 6 7 3 1 2 8 4 7 6 3 1 8"
ORDER_10_SEED_3_RANK_1_OF_2 = "4 2 6 0 2 4 6 0 2 5 6 1 8 4 7 2 4 6 1 2"


def take(sampler, num):
    return list(islice(iter(sampler), num))


def saved(sampler, **kwargs):
    """A state that went through a file the safe way."""
    buffer = io.BytesIO()
    torch.save(sampler.state_dict(**kwargs), buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def test_reference_orders():
    assert take(InfiniteSampler(range(10)), 40) == [int(i) for i in ORDER_10_SEED_0.split()]
    sampler = InfiniteSampler(range(10), rank=1, num_replicas=2, seed=3)
    assert take(sampler, 20) == [int(i) for i in ORDER_10_SEED_3_RANK_1_OF_2.split()]


def test_every_iterator_begins_again():
    sampler = InfiniteSampler(range(10), seed=5)
    assert take(sampler, 30) == take(sampler, 30)


def test_ranks_share_one_order():
    whole = take(InfiniteSampler(range(7), seed=1), 60)
    for ranks in (2, 3):
        for rank in range(ranks):
            part = take(InfiniteSampler(range(7), rank=rank, num_replicas=ranks, seed=1), 60 // ranks)
            assert part == whole[rank::ranks]


def test_without_shuffle_and_tiny_windows():
    assert take(InfiniteSampler(range(3), shuffle=False), 7) == [0, 1, 2, 0, 1, 2, 0]
    assert take(InfiniteSampler(range(1)), 3) == [0, 0, 0]
    once = take(InfiniteSampler(range(6), window_size=0), 12)
    assert once[:6] == once[6:]
    assert sorted(once[:6]) == list(range(6))


@pytest.mark.parametrize("num_used", [0, 1, 6, 10, 37])
def test_state_of_what_was_used_continues_exactly(num_used):
    whole = take(InfiniteSampler(range(10), seed=2), 100)
    sampler = InfiniteSampler(range(10), seed=2)
    iterator = iter(sampler)
    drawn = list(islice(iterator, 50))  # a DataLoader draws ahead of what is used
    state = saved(sampler, num_used=num_used)
    assert drawn + list(islice(iterator, 50)) == whole  # saving does not disturb the iterator

    other = InfiniteSampler(range(10), seed=99)
    other.load_state_dict(state)
    assert take(other, 60) == whole[num_used : num_used + 60]


def test_states_one_after_the_other():
    whole = take(InfiniteSampler(range(10), seed=2), 100)
    sampler = InfiniteSampler(range(10), seed=2)
    for start, stop in [(0, 13), (13, 40), (40, 41), (41, 80)]:
        iterator = iter(sampler)
        assert list(islice(iterator, stop - start)) == whole[start:stop]
        state = sampler.state_dict()  # all that was drawn
        assert state["position"] == stop
        sampler = InfiniteSampler(range(10), seed=2)
        sampler.load_state_dict(state)


def test_state_is_common_to_the_ranks_and_may_change_their_number():
    whole = take(InfiniteSampler(range(10), seed=4), 100)
    states = []
    for rank in range(2):
        sampler = InfiniteSampler(range(10), rank=rank, num_replicas=2, seed=4)
        iterator = iter(sampler)
        assert list(islice(iterator, 12)) == whole[rank:24:2]
        states.append(sampler.state_dict())
    assert states[0]["position"] == states[1]["position"] == 24
    for key, value in states[0].items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(states[1][key]))
    for rank in range(3):
        sampler = InfiniteSampler(range(10), rank=rank, num_replicas=3, seed=4)
        sampler.load_state_dict(states[0])
        assert take(sampler, 20) == whole[24 + rank : 84 : 3]


def test_state_is_a_copy():
    sampler = InfiniteSampler(range(10))
    state = sampler.state_dict()
    before = copy.deepcopy(state)
    sampler.state_dict(num_used=50)
    assert torch.equal(state["order"], before["order"])
    sampler = InfiniteSampler(range(10))
    sampler.load_state_dict(state)
    sampler.state_dict(num_used=50)
    assert torch.equal(state["order"], before["order"])


def test_in_a_data_loader():
    data = torch.arange(10)
    loader = torch.utils.data.DataLoader(data, sampler=InfiniteSampler(data), batch_size=4)
    drawn = torch.cat(list(islice(iter(loader), 3))).tolist()
    assert drawn == [int(i) for i in ORDER_10_SEED_0.split()][:12]


def test_errors():
    state = InfiniteSampler(range(10)).state_dict()
    with pytest.raises(
        UserError, match="expected the state of a data set of 12 images, found one of 10; resume with"
    ):
        InfiniteSampler(range(12)).load_state_dict(state)
    with pytest.raises(UserError, match="the state was made with another shuffle or window_size"):
        InfiniteSampler(range(10), shuffle=False).load_state_dict(state)
    sampler = InfiniteSampler(range(10))
    sampler.state_dict(num_used=20)
    with pytest.raises(ValueError, match="expected at least 20 samples, as used so far, found 10"):
        sampler.state_dict(num_used=10)
    for kwargs in ({"rank": 1}, {"window_size": 2}):
        with pytest.raises(AssertionError):
            InfiniteSampler(range(10), **kwargs)
    with pytest.raises(AssertionError, match="the data set is empty"):
        InfiniteSampler([])
