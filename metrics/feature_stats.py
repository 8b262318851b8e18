"""Features of many images, or only their mean and covariance, collected batch by batch."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch

from dnnlib.files import open_atomic
from torch_utils import distributed


class FeatureStats:
    """Collects feature vectors up to a maximum number.

    Args:
        capture_all: keep every vector, as float32.
        capture_mean_cov: keep the float64 sums that mean and covariance need.
        max_items: what exceeds this many vectors is dropped; None keeps all.
    """

    def __init__(self, capture_all: bool = False, capture_mean_cov: bool = False, max_items: int | None = None):
        self.capture_all = capture_all
        self.capture_mean_cov = capture_mean_cov
        self.max_items = max_items
        self.num_items = 0
        self.num_features: int | None = None
        self._chunks: list[np.ndarray] = []
        self._sum = np.zeros(0)
        self._sum_outer = np.zeros([0, 0])

    def append(self, x: np.ndarray) -> None:
        """Adds vectors [n, F]; those beyond max_items are dropped."""
        x = np.asarray(x, dtype=np.float32)
        assert x.ndim == 2, x.shape
        if self.num_features is None:
            self.num_features = x.shape[1]
            self._sum = np.zeros(x.shape[1])
            self._sum_outer = np.zeros([x.shape[1]] * 2)
        assert x.shape[1] == self.num_features, (x.shape, self.num_features)
        if self.max_items is not None:
            x = x[: self.max_items - self.num_items]
        self.num_items += len(x)
        if self.capture_all:
            self._chunks.append(x)
        if self.capture_mean_cov:
            exact = x.astype(np.float64)
            self._sum += exact.sum(axis=0)
            self._sum_outer += exact.T @ exact

    def append_torch(self, x: torch.Tensor) -> None:
        """Adds the vectors [n, F] of every rank: first the first of each rank in rank order, then the second ones."""
        self.append(distributed.all_gather_interleaved(x).cpu().numpy())

    def append_blocks(self, x: torch.Tensor) -> None:
        """Adds one block [n, F] of every rank, whole blocks in rank order."""
        blocks = distributed.all_gather_interleaved(x.reshape(1, -1))
        self.append(blocks.reshape(-1, x.shape[1]).cpu().numpy())

    def is_full(self) -> bool:
        """Whether max_items vectors are there."""
        return self.max_items is not None and self.num_items >= self.max_items

    def get_all(self) -> np.ndarray:
        """All vectors, float32 [N, F]."""
        assert self.capture_all, "made without capture_all"
        if len(self._chunks) != 1:
            self._chunks = [np.concatenate(self._chunks)]
        return self._chunks[0]

    def get_all_torch(self) -> torch.Tensor:
        """All vectors as a tensor on the CPU, float32 [N, F]."""
        return torch.from_numpy(self.get_all())

    def get_mean_cov(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean [F] and covariance [F, F] with divisor N, float64."""
        assert self.capture_mean_cov, "made without capture_mean_cov"
        mean = self._sum / self.num_items
        return mean, self._sum_outer / self.num_items - np.outer(mean, mean)

    def arrays(self) -> dict[str, np.ndarray]:
        """The whole state as named arrays; `from_arrays` makes an equal object of them."""
        found: dict[str, np.ndarray] = {"num_items": np.array(self.num_items)}
        if self.capture_all:
            found["features"] = self.get_all()
        if self.capture_mean_cov:
            found |= {"sum": self._sum, "sum_outer": self._sum_outer}
        return found

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> FeatureStats:
        """Rebuilds what `arrays` gave. Raises KeyError or ValueError if they do not belong together."""
        stats = cls(capture_all="features" in arrays, capture_mean_cov="sum" in arrays)
        stats.num_items = stats.max_items = int(arrays["num_items"])
        if stats.capture_all:
            stats._chunks = [arrays["features"]]
            stats.num_features = arrays["features"].shape[1]
        if stats.capture_mean_cov:
            stats._sum, stats._sum_outer = arrays["sum"], arrays["sum_outer"]
            stats.num_features = len(stats._sum)
        return stats

    def save(self, path: str | os.PathLike) -> None:
        """Writes the state as .npz without pickled parts, under its name only once it is complete."""
        with open_atomic(path) as file:
            np.savez(file, **self.arrays())  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | os.PathLike) -> FeatureStats:
        """Reads what `save` wrote. Raises OSError, ValueError, KeyError or zipfile.BadZipFile if it cannot."""
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return cls.from_arrays(dict(arrays))
