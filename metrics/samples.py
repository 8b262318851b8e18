"""Latents and labels of numbered samples, and the split of the samples over processes.

Sample i is the same whatever the batch size and the number of processes. Noise that the generator draws itself is
seeded per block of samples, so it is the same for any number of processes, but not for another batch_gen.
"""
import contextlib
import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch

from dnnlib.errors import UserError
from metrics.options import MetricOptions


def sample_rng(seed: int, index: int) -> np.random.RandomState:
    """The random numbers of one sample. RandomState, because its streams are the same in every NumPy version."""
    return np.random.RandomState([seed, index])


def sample_rngs(seed: int, indices: Iterable[int]) -> Iterator[np.random.RandomState]:
    """The random numbers of several samples, one after the other: an object is as slow to make as thousands of numbers,
    so all share one, which is reseeded.
    """
    rng = np.random.RandomState(0)
    for index in indices:
        rng.seed([seed, index])
        yield rng


class LabelSource:
    """Labels as the data set has them: that of a uniformly drawn item; none if the generator is unconditional.

    Raises:
        UserError: the data set's labels are of another size than the generator's.
    """

    def __init__(self, opts: MetricOptions, c_dim: int):
        self._dataset = opts.dataset() if c_dim > 0 else None
        if self._dataset is not None and (shape := self._dataset.get_label(0).shape) != (c_dim,):
            raise UserError(
                f"metrics: the network takes labels of {c_dim} numbers, the data set has labels of {math.prod(shape)}"
            )

    def draw(self, rng: np.random.RandomState) -> np.ndarray:
        """A float32 label [c_dim]."""
        if self._dataset is None:
            return np.zeros(0, dtype=np.float32)
        return self._dataset.get_label(rng.randint(len(self._dataset)))


def rank_blocks(opts: MetricOptions, num_items: int, block: int) -> list[range]:
    """The blocks of sample numbers that this rank makes: every num_gpus-th one, equally many on all ranks.

    Blocks are whole, so the last ones may go beyond num_items.
    """
    num_blocks = -(-num_items // block)
    rounds = -(-num_blocks // opts.num_gpus)
    of_rank = range(opts.rank, rounds * opts.num_gpus, opts.num_gpus)
    return [range(number * block, (number + 1) * block) for number in of_rank]


@contextlib.contextmanager
def torch_seeded(opts: MetricOptions, index: int) -> Iterator[None]:
    """Seeds torch's own random numbers from (seed, index) and restores the former state afterwards."""
    cuda = [opts.device] if opts.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        words = np.random.SeedSequence([opts.seed, index]).generate_state(1, np.uint64)
        torch.manual_seed(int(words[0]) >> 1)  # torch takes 63 bits
        yield
