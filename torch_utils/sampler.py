"""The endless, reproducible, resumable order in which training images are drawn."""
import copy
from collections.abc import Iterator, Sized
from typing import Any

import numpy as np
import torch

from dnnlib.errors import UserError


class _Sequence:
    """The order all ranks share: a shuffled ring; each drawn item is swapped with one up to `window` places behind.

    A deep copy continues exactly as the original does.
    """

    def __init__(self, size: int, shuffle: bool, seed: int, window_size: float):
        self.order = np.arange(size)
        self.window = 0
        self.rng = np.random.RandomState(seed)
        self.position = 0
        if shuffle:
            self.rng.shuffle(self.order)
            self.window = int(np.rint(size * window_size))

    def next(self) -> int:
        size = len(self.order)
        here = self.position % size
        item = int(self.order[here])
        if self.window >= 2:
            there = (here - self.rng.randint(self.window)) % size
            self.order[here], self.order[there] = self.order[there], item
        self.position += 1
        return item

    def advance(self, position: int) -> None:
        while self.position < position:
            self.next()

    def get_state(self) -> dict[str, Any]:
        kind, keys, pos, *_ = self.rng.get_state()
        assert kind == "MT19937", kind
        return {
            "position": self.position,
            "window": self.window,
            "order": torch.from_numpy(self.order.astype(np.int64)),
            "rng_keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "rng_pos": int(pos),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        self.position = int(state["position"])
        self.order = state["order"].numpy().copy()
        keys = state["rng_keys"].numpy().astype(np.uint32)
        self.rng.set_state(("MT19937", keys, int(state["rng_pos"]), 0, 0.0))


class InfiniteSampler(torch.utils.data.Sampler[int]):
    """Draws the items of a data set without end, each rank its share of one common order.

    Rank r of R takes the positions r, r + R, r + 2R, ... of the order. Each iterator begins at the start, or where
    `load_state_dict` has set it.

    To save where a training run is, give `state_dict` the number of samples that were *used*, since a DataLoader draws
    some ahead. The state is the same on every rank, and may be resumed with another number of ranks.

    Args:
        dataset: anything with a length, at least 1.
        rank: this process's number.
        num_replicas: number of processes that share the order.
        shuffle: False repeats 0, 1, 2, ...
        seed: of the order; the same on every rank.
        window_size: how far back a used item may move in the order, as a part of the data set's size, 0 to 1.
    """

    def __init__(
        self,
        dataset: Sized,
        rank: int = 0,
        num_replicas: int = 1,
        shuffle: bool = True,
        seed: int = 0,
        window_size: float = 0.5,
    ):
        super().__init__()
        assert len(dataset) > 0, "the data set is empty"
        assert 0 <= rank < num_replicas, (rank, num_replicas)
        assert 0 <= window_size <= 1, window_size
        self.rank = rank
        self.num_replicas = num_replicas
        self._used = _Sequence(len(dataset), shuffle, seed, window_size)  # runs behind what iterators have drawn
        self._drawn = self._used.position

    def __iter__(self) -> Iterator[int]:
        sequence = copy.deepcopy(self._used)
        start = self._drawn = sequence.position
        while True:
            item = sequence.next()
            offset = (sequence.position - 1 - start) % self.num_replicas
            if offset == self.rank:
                self._drawn = sequence.position - offset + self.num_replicas - 1  # whole rounds
                yield item

    def state_dict(self, num_used: int | None = None) -> dict[str, Any]:
        """The state after `num_used` samples, as plain numbers and tensors.

        Args:
            num_used: samples used by all ranks together since the beginning of the order, saved and resumed
                runs included (for a training run: its images so far); None for all that were drawn.

        Raises:
            ValueError: the order is beyond that many already.
        """
        num_used = self._drawn if num_used is None else num_used
        if num_used < self._used.position:
            raise ValueError(f"expected at least {self._used.position} samples, as used so far, found {num_used}")
        self._used.advance(num_used)
        return self._used.get_state()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Lets the next iterator resume from a state.

        Raises:
            UserError: it is from a data set of another size, or from another kind of order.
        """
        num_items, expected = len(state["order"]), len(self._used.order)
        if num_items != expected:
            raise UserError(
                f"order of the data: expected the state of a data set of {expected} images, found one of {num_items}; "
                "resume with the data set the run was started with"
            )
        if int(state["window"]) != self._used.window:
            raise UserError("order of the data: the state was made with another shuffle or window_size")
        self._used.set_state(state)
        self._drawn = self._used.position
