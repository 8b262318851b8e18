"""Keeps the feature statistics of real images on disk, under a key of everything that they depend on.

The key holds the content of the images (not the path), the content of the detector, its call form, the number of
images and what is captured. So a changed image, an updated detector or other mirroring never meets old numbers. Two
runs at the same time do not both compute what they share.
"""
import hashlib
import json
import logging
import os
import re
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch

from dnnlib.locks import try_lock
from dnnlib.util import make_cache_dir_path
from metrics.detector import Detector
from metrics.feature_stats import FeatureStats
from torch_utils import distributed

KINDS = ("capture_all", "capture_mean_cov")
_POLL_SEC = 0.5
_FORMAT = 1  # counts up when the meaning of a stored file changes
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheEntry:
    """Statistics of some images' features: a file for each kind of them, whether it exists or not.

    Attributes:
        paths: kind, as the arguments of `FeatureStats` name them → file.
        lock_path: file whose lock the process holds that computes them.
        content_hash: of the images.
    """

    paths: Mapping[str, str]
    lock_path: str
    content_hash: str

    def get(self, compute: Callable[[], FeatureStats], **capture: bool) -> FeatureStats:
        """The stored statistics of the kinds to capture, or of what `compute()` gives, all of which is then stored.

        Of several runs that need the same, one computes it and the others wait. A damaged file counts as none.
        Collective.
        """
        kinds = sorted(kind for kind, wanted in capture.items() if wanted)
        with self._only_one(kinds):
            stats = self._load(kinds)
            if stats is None:
                whole = compute()
                self._save(whole)
                stats = whole.reduced(**capture)
        return stats

    @contextmanager
    def _only_one(self, kinds: list[str]) -> Iterator[None]:
        """Waits until these kinds are stored, or nobody else computes them. Collective; rank 0 asks and tells."""
        with ExitStack() as lock:
            has_waited = False
            while not distributed.broadcast_object(distributed.is_main() and self._may_pass(kinds, lock)):
                if not has_waited and distributed.is_main():
                    _log.warning("metric cache: another process computes features of these real images; waiting for it")
                has_waited = True
                time.sleep(_POLL_SEC)
            yield

    def _may_pass(self, kinds: list[str], lock: ExitStack) -> bool:
        """Whether there is nothing to compute, or this process alone computes it, which it notes in `lock`."""
        if all(os.path.isfile(self.paths[kind]) for kind in kinds):
            return True
        os.makedirs(os.path.dirname(self.lock_path), exist_ok=True)
        file = open(self.lock_path, "ab")
        if not try_lock(file.fileno()):
            file.close()
            return False
        lock.callback(_remove, self.lock_path)
        lock.enter_context(file)  # closed before it is removed, because Windows removes no open file
        return True

    def _load(self, kinds: list[str]) -> FeatureStats | None:
        """The stored statistics on every rank, or None if rank 0 does not have all of them."""
        arrays: dict[str, Any] | None = None
        if distributed.is_main() and all(os.path.isfile(self.paths[kind]) for kind in kinds):
            try:
                arrays = {}
                for kind in kinds:
                    arrays |= FeatureStats.load(self.paths[kind]).arrays()
            except _UNREADABLE as error:
                arrays = None
                _log.warning("metric cache: %s is damaged and will be computed again (%s)", self.paths[kind], error)
        arrays = distributed.broadcast_object(arrays)
        return None if arrays is None else FeatureStats.from_arrays(arrays)

    def _save(self, stats: FeatureStats) -> None:
        """Stores every kind of the statistics that is there (rank 0)."""
        if distributed.is_main():
            for kind in (kind for kind in KINDS if getattr(stats, kind)):
                os.makedirs(os.path.dirname(self.paths[kind]), exist_ok=True)
                stats.reduced(**{kind: True}).save(self.paths[kind])


def _remove(path: str) -> None:
    """Removes a file that another process may use or have removed."""
    with suppress(OSError):
        os.remove(path)


def open_entry(
    dataset: Any, detector: Detector, detector_kwargs: Mapping[str, Any], num_items: int
) -> CacheEntry:
    """Names the cache files for these images and this detector. Reads all images' content on rank 0."""
    content_hash = distributed.broadcast_object(_content_hash(dataset) if distributed.is_main() else None)
    key = {
        "format": _FORMAT,
        "images": content_hash,
        "num_items": num_items,
        "detector": detector.sha256,
        "detector_kwargs": dict(detector_kwargs),
    }
    name = re.sub(r"[^0-9a-zA-Z._-]", "_", f"{dataset.name}-{detector.name}")[:100]

    def path(ending: str, **more: Any) -> str:
        digest = hashlib.sha256(json.dumps({**key, **more}, sort_keys=True).encode()).hexdigest()
        return make_cache_dir_path("gan-metrics", f"{name}-{digest[:32]}{ending}")

    return CacheEntry({kind: path(".npz", capture=[kind]) for kind in KINDS}, path(".lock"), content_hash)


def _content_hash(dataset: Any) -> str:
    """The data set's own hash, or for a class without one that of its decoded images."""
    if hasattr(dataset, "content_hash"):
        return dataset.content_hash()
    digest = hashlib.sha256()
    for index in range(len(dataset)):
        image = torch.as_tensor(dataset[index][0]).numpy()
        digest.update(f"{image.shape} {image.dtype}".encode() + image.tobytes())
    return digest.hexdigest()
