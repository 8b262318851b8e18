"""The endless stream of training batches, and random labels for generated images."""
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch

from torch_utils import distributed, loader_workers
from torch_utils.misc import InfiniteSampler

from .dataset import Dataset


class Feed(Protocol):
    """Batches of this rank, in an order that all ranks share and that can be resumed exactly."""

    def next(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The next images [n, C, H, W], float32 in [-1, 1], and labels [n, c_dim] of this rank."""

    def skip(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Passes over the next batch without making it: black images [n, C, H, W], and labels of zeros [n, c_dim]."""

    def random_labels(self, count: int) -> torch.Tensor:
        """Random labels [count, c_dim]."""

    def state_dict(self, num_used: int) -> dict[str, Any]:
        """The position after `num_used` images of all ranks since the beginning."""


def make_feed(
    dataset: Any,
    batch_size: int,
    seed: int,
    device: torch.device,
    loader_kwargs: Mapping[str, Any],
    state: Mapping[str, Any] | None = None,
) -> Feed:
    """The feed of a data set: the one it makes itself, if it generates its images, or a DataFeed; arguments as there.
    """
    if dataset.is_generated:
        return dataset.make_feed(batch_size, seed, device, state)
    return DataFeed(dataset, batch_size, seed, device, loader_kwargs, state)


def black_batch(
    count: int, image_shape: Sequence[int], label_dim: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Black images [count, C, H, W] that take no memory, and labels [count, label_dim] of zeros."""
    return torch.full([1], -1.0, device=device).expand(count, *image_shape), torch.zeros([count, label_dim],
                                                                                          device=device)


class DataFeed:
    """Batches of this rank, in an order that all ranks share and that can be resumed exactly.

    Nothing is loaded, and no process started, before the first batch is asked for.

    Args:
        dataset: images and labels.
        batch_size: images per batch over all ranks.
        seed: of the order.
        device: where batches go.
        loader_kwargs: further arguments of torch.utils.data.DataLoader.
        state: `state_dict()` of an earlier feed to resume from.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        seed: int,
        device: torch.device,
        loader_kwargs: Mapping[str, Any],
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self._dataset = dataset
        self._device = device
        self._batch_size = batch_size
        self._position = 0 if state is None else int(state["position"])  # images passed since the beginning
        self._batches: Iterator[Any] | None = None
        ranks = distributed.world_size()
        self._sampler = InfiniteSampler(dataset, rank=distributed.rank(), num_replicas=ranks, seed=seed)
        if state is not None:
            self._sampler.load_state_dict(dict(state))
        options = dict(loader_kwargs)
        if device.type != "cuda":
            options["pin_memory"] = False
        if not options.get("num_workers"):
            options.pop("prefetch_factor", None)
        options.update(sampler=self._sampler, batch_size=batch_size // ranks)
        self._options = options

    def _started(self) -> Iterator[Any]:
        """The loader's batches from the present position on."""
        self._sampler.state_dict(self._position)  # advances it over what was skipped
        with torch.random.fork_rng(devices=[]):  # a loader draws a seed for its workers
            return loader_workers.batches(self._dataset, **self._options)

    def next(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The next images [n, C, H, W], float32 in [-1, 1], and labels [n, c_dim] of this rank."""
        if self._batches is None:
            self._batches = self._started()
        img, c = next(self._batches)
        self._position += self._batch_size
        img = img.to(self._device, non_blocking=True).to(torch.float32) / 127.5 - 1
        return img, c.to(self._device, non_blocking=True)

    def skip(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Passes over the next batch without making it: black images [n, C, H, W], and labels of zeros [n, c_dim]."""
        if self._batches is not None:
            return self.next()
        self._position += self._batch_size
        share = self._batch_size // distributed.world_size()
        return black_batch(share, self._dataset.image_shape, self._dataset.label_dim, self._device)

    def random_labels(self, count: int) -> torch.Tensor:
        """Labels [count, c_dim] of uniformly drawn items."""
        if self._dataset.label_dim == 0:
            return torch.zeros([count, 0], device=self._device)
        drawn = torch.randint(len(self._dataset), [count]).tolist()
        return torch.stack([torch.from_numpy(self._dataset.get_label(i)) for i in drawn]).to(self._device)

    def state_dict(self, num_used: int) -> dict[str, Any]:
        """The position after `num_used` images of all ranks since the beginning."""
        return self._sampler.state_dict(num_used)
