"""Keeps the feature statistics of real images on disk, under a key of everything that they depend on.

The key holds the content of the images (not the path), the content of the detector, its call form, the number of
images and what is captured. So a changed image, an updated detector or other mirroring never meets old numbers.
"""
import hashlib
import json
import logging
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from dnnlib.util import make_cache_dir_path
from metrics.detector import Detector
from metrics.feature_stats import FeatureStats
from torch_utils import distributed

_FORMAT = 1  # counts up when the meaning of a stored file changes
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheEntry:
    """One file of the cache, whether it exists or not."""

    path: str
    content_hash: str

    def load(self) -> FeatureStats | None:
        """The stored statistics on every rank, or None if rank 0 has none. A damaged file counts as none."""
        arrays = None
        if distributed.is_main() and os.path.isfile(self.path):
            try:
                arrays = FeatureStats.load(self.path).arrays()
            except _UNREADABLE as error:
                _log.warning("metric cache: %s is damaged and will be computed again (%s)", self.path, error)
        arrays = distributed.broadcast_object(arrays)
        return None if arrays is None else FeatureStats.from_arrays(arrays)

    def save(self, stats: FeatureStats) -> None:
        """Stores the statistics (rank 0)."""
        if distributed.is_main():
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            stats.save(self.path)


def open_entry(
    dataset: Any,
    detector: Detector,
    detector_kwargs: Mapping[str, Any],
    num_items: int,
    capture: Mapping[str, bool],
) -> CacheEntry:
    """Names the cache file for these images and this detector. Reads all images' content on rank 0."""
    content_hash = distributed.broadcast_object(_content_hash(dataset) if distributed.is_main() else None)
    key = {
        "format": _FORMAT,
        "images": content_hash,
        "num_items": num_items,
        "detector": detector.sha256,
        "detector_kwargs": dict(detector_kwargs),
        "capture": sorted(name for name, wanted in capture.items() if wanted),
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    name = re.sub(r"[^0-9a-zA-Z._-]", "_", f"{dataset.name}-{detector.name}")[:100]
    return CacheEntry(make_cache_dir_path("gan-metrics", f"{name}-{digest[:32]}.npz"), content_hash)


def _content_hash(dataset: Any) -> str:
    """The data set's own hash, or for a class without one that of its decoded images."""
    if hasattr(dataset, "content_hash"):
        return dataset.content_hash()
    digest = hashlib.sha256()
    for index in range(len(dataset)):
        image = torch.as_tensor(dataset[index][0]).numpy()
        digest.update(f"{image.shape} {image.dtype}".encode() + image.tobytes())
    return digest.hexdigest()
