"""Features of many images, or only their mean and covariance, collected batch by batch."""
import os
from typing import Any

import numpy as np
import torch

from dnnlib.files import open_atomic
from torch_utils import distributed


class _Moments:
    """The float64 sums over vectors [n, F] that their mean and covariance need."""

    def __init__(self, total: np.ndarray | float = 0.0, outer: np.ndarray | float = 0.0):
        self.total, self.outer = np.asarray(total), np.asarray(outer)

    def add(self, vectors: np.ndarray) -> None:
        exact = vectors.astype(np.float64)
        self.total = self.total + exact.sum(axis=0)
        self.outer = self.outer + exact.T @ exact

    def mean_cov(self, num: int) -> tuple[np.ndarray, np.ndarray]:
        mean = self.total / num
        return mean, self.outer / num - np.outer(mean, mean)


class FeatureStats:
    """Collects feature vectors up to a maximum number.

    Args:
        capture_all: keep every vector, as float32.
        capture_mean_cov: keep the float64 sums that mean and covariance need.
        max_items: what exceeds this many vectors is dropped; None keeps all.
    """

    def __init__(self, capture_all: bool = False, capture_mean_cov: bool = False, max_items: int | None = None):
        self.max_items, self.num_items = max_items, 0
        self.num_features: int | None = None
        self._vectors: list[np.ndarray] | None = [] if capture_all else None  # in pieces
        self._moments = _Moments() if capture_mean_cov else None

    @property
    def capture_all(self) -> bool:
        """Whether every vector is kept."""
        return self._vectors is not None

    @property
    def capture_mean_cov(self) -> bool:
        """Whether the sums for mean and covariance are kept."""
        return self._moments is not None

    def append(self, x: np.ndarray) -> None:
        """Adds vectors [n, F]; those beyond max_items are dropped."""
        vectors = np.asarray(x, dtype=np.float32)
        assert vectors.ndim == 2, vectors.shape
        assert self.num_features in (None, vectors.shape[1]), (vectors.shape, self.num_features)
        vectors = vectors[: self._room()]
        num, self.num_features = vectors.shape
        self.num_items += num
        if self._vectors is not None:
            self._vectors.append(vectors)
        if self._moments is not None:
            self._moments.add(vectors)

    def _room(self) -> int | None:
        """How many more vectors are taken; None is any number."""
        return None if self.max_items is None else self.max_items - self.num_items

    def append_torch(self, x: torch.Tensor) -> None:
        """Adds the vectors [n, F] of every rank: first the first of each rank in rank order, then the second ones."""
        self.append(distributed.all_gather_interleaved(x).cpu().numpy())

    def append_blocks(self, x: torch.Tensor) -> None:
        """Adds one block [n, F] of every rank, whole blocks in rank order."""
        blocks = distributed.all_gather_interleaved(x.reshape(1, -1))
        self.append(blocks.reshape(-1, x.shape[1]).cpu().numpy())

    def is_full(self) -> bool:
        """Whether max_items vectors are there."""
        return self._room() == 0

    def get_all(self) -> np.ndarray:
        """All vectors, float32 [N, F]."""
        assert self._vectors is not None, "made without capture_all"
        if len(self._vectors) != 1:
            self._vectors = [np.concatenate(self._vectors)]
        return self._vectors[0]

    def get_all_torch(self) -> torch.Tensor:
        """All vectors as a tensor on the CPU, float32 [N, F]."""
        return torch.from_numpy(self.get_all())

    def get_mean_cov(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean [F] and covariance [F, F] with divisor N, float64."""
        assert self._moments is not None, "made without capture_mean_cov"
        return self._moments.mean_cov(self.num_items)

    def reduced(self, capture_all: bool = False, capture_mean_cov: bool = False) -> "FeatureStats":
        """The same with only what is to be captured, which must be here."""
        state = self.arrays()
        wanted = {"num_items"} | ({"features"} if capture_all else set())
        wanted |= {"sum", "sum_outer"} if capture_mean_cov else set()
        return FeatureStats.from_arrays({name: state[name] for name in wanted})

    def arrays(self) -> dict[str, np.ndarray]:
        """The whole state as named arrays; `from_arrays` makes an equal object of them.

        num_items []; features [N, F] if every vector is kept; sum [F] and sum_outer [F, F] if mean and covariance are.
        """
        state: dict[str, np.ndarray] = {"num_items": np.array(self.num_items)}
        if self.capture_all:
            state["features"] = self.get_all()
        if self._moments is not None:
            state |= {"sum": self._moments.total, "sum_outer": self._moments.outer}
        return state

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> "FeatureStats":
        """Rebuilds what `arrays` gave. Raises KeyError or ValueError if they do not belong together."""
        stats = cls()
        stats.num_items = stats.max_items = int(arrays["num_items"])
        if "features" in arrays:
            stats._vectors = [arrays["features"]]
            stats.num_features = arrays["features"].shape[1]
        if "sum" in arrays:
            stats._moments = _Moments(arrays["sum"], arrays["sum_outer"])
            stats.num_features = len(arrays["sum"])
        return stats

    def save(self, path: str | os.PathLike) -> None:
        """Writes the state as .npz without pickled parts, under its name only once it is complete."""
        with open_atomic(path) as file:
            np.savez(file, **self.arrays())  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | os.PathLike) -> "FeatureStats":
        """Reads what `save` wrote. Raises OSError, ValueError, KeyError or zipfile.BadZipFile if it cannot."""
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return cls.from_arrays(dict(arrays))
