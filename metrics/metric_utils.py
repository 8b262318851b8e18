"""Features of a data set's and of a generator's images, as every metric collects them."""
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
import torch

from metrics import feature_cache
from metrics.detector import Detector, DetectorSpec, load
from metrics.feature_stats import FeatureStats
from metrics.options import MetricOptions
from metrics.samples import LabelSource, rank_blocks, sample_rngs, torch_seeded
from torch_utils import loader_workers
from torch_utils.pixels import to_uint8

__all__ = [
    "FeatureStats",
    "MetricOptions",
    "compute_feature_stats_for_dataset",
    "compute_feature_stats_for_generator",
    "get_feature_detector",
    "get_feature_detector_name",
]

_DETECTOR_BATCH = 64


def get_feature_detector_name(url: str) -> str:
    """Base name of a path or URL, without extension."""
    return DetectorSpec.parse(url).name


def get_feature_detector(url: str, device: torch.device | str = "cpu", verbose: bool = False) -> torch.jit.ScriptModule:
    """The TorchScript module behind a path or URL, in evaluation mode. Call it on every rank."""
    return load(DetectorSpec.parse(url), torch.device(device), verbose).module


def compute_feature_stats_for_dataset(
    opts: MetricOptions,
    detector: Detector,
    detector_kwargs: Mapping[str, Any],
    max_items: int | None = None,
    min_items: int = 1,
    batch_size: int = _DETECTOR_BATCH,
    **capture: bool,
) -> FeatureStats:
    """Features of the first real images (up to max_items) in their order, from the cache if they are there.

    Args:
        detector_kwargs: the detector's call form.
        max_items: None takes all; opts.num_real overrides it.
        min_items: fewer are an error (UserError).
        capture: capture_all or capture_mean_cov, as FeatureStats takes them.
    """
    overrides = {"use_labels": False} if "use_labels" in opts.dataset_kwargs else {}
    dataset = opts.dataset(**overrides)
    num_items = opts.count_real(max_items, len(dataset), min_items)
    opts.protocol["real_set"] = {"name": dataset.name, "xflip": bool(opts.dataset_kwargs.get("xflip"))}
    entry = feature_cache.open_entry(dataset, detector, detector_kwargs, num_items)
    opts.protocol["real_set"]["sha256"] = entry.content_hash

    def collect(**wanted: bool) -> FeatureStats:
        return _run_on_dataset(opts, dataset, detector, detector_kwargs, num_items, batch_size, **wanted)

    def compute() -> FeatureStats:
        key = ("real", entry.content_hash, *_call_key(detector, detector_kwargs), num_items)
        wanted = capture if opts.shared is None else dict.fromkeys(feature_cache.KINDS, True)  # other metrics follow
        return _shared(opts, key, collect, **wanted)

    return entry.get(compute, **capture) if opts.cache else compute().reduced(**capture)


def _shared(
    opts: MetricOptions, key: Hashable, collect: Callable[..., FeatureStats], **capture: bool
) -> FeatureStats:
    """What `collect(**capture)` gives, or what another metric of this run had it give."""
    return collect(**capture) if opts.shared is None else opts.shared.get(key, collect, **capture)


def _call_key(detector: Detector, detector_kwargs: Mapping[str, Any]) -> tuple[Hashable, ...]:
    return detector.sha256, tuple(sorted(detector_kwargs.items()))


def _run_on_dataset(
    opts: MetricOptions,
    dataset: torch.utils.data.Dataset,
    detector: Detector,
    detector_kwargs: Mapping[str, Any],
    num_items: int,
    batch_size: int,
    **capture: bool,
) -> FeatureStats:
    stats = FeatureStats(max_items=num_items, **capture)
    rounds = -(-num_items // opts.num_gpus)  # equally many items on every rank; the surplus is dropped at the end
    order = np.arange(opts.rank, rounds * opts.num_gpus, opts.num_gpus) % num_items
    rng = torch.Generator()  # the loader draws a number even where it does not shuffle; not from the global state
    batches = loader_workers.batches(
        dataset, sampler=order.tolist(), batch_size=batch_size, generator=rng, **opts.loader_kwargs()
    )
    with opts.progress(num_items, "images") as bar, torch.no_grad():
        for batch in batches:  # images and labels
            stats.append_torch(detector(batch[0].to(opts.device), **detector_kwargs))
            bar.set(stats.num_items)
    return stats


def compute_feature_stats_for_generator(
    opts: MetricOptions,
    detector: Detector,
    detector_kwargs: Mapping[str, Any],
    max_items: int,
    min_items: int = 1,
    batch_size: int = _DETECTOR_BATCH,
    **capture: bool,
) -> FeatureStats:
    """Features of generated images, made for samples 0, 1, 2, ... of opts.seed, or of opts.images_kwargs' images.

    Args:
        detector_kwargs: the detector's call form.
        max_items: how many; opts.num_gen overrides it. Of given images, all that there are up to this many.
        min_items: fewer are an error (UserError).
        batch_size: images per detector call and block of samples.
        capture: capture_all or capture_mean_cov, as FeatureStats takes them.
    """
    if opts.images_kwargs is not None:
        return _of_given_images(opts, detector, detector_kwargs, max_items, min_items, batch_size, **capture)
    num_items = opts.count_gen(max_items, min_items)
    block, batch_gen = min(batch_size, num_items), opts.gen_batch()
    net = opts.generator()
    labels = LabelSource(opts, net.c_dim)

    def collect(**wanted: bool) -> FeatureStats:
        return _run_on_generator(opts, net, labels, detector, detector_kwargs, num_items, block, batch_gen, **wanted)

    source = repr(sorted(opts.dataset_kwargs.items())) if net.c_dim > 0 else None  # of the labels
    key = ("generated", *_call_key(detector, detector_kwargs), num_items, block, batch_gen, opts.seed,
           repr(sorted(opts.G_kwargs.items())), source)  # fmt: skip
    return _shared(opts, key, collect, **capture)


def _of_given_images(
    opts: MetricOptions,
    detector: Detector,
    detector_kwargs: Mapping[str, Any],
    max_items: int,
    min_items: int,
    batch_size: int,
    **capture: bool,
) -> FeatureStats:
    """Features of opts.images_kwargs' images in place of generated ones."""
    images = opts.images()
    usual = min(max_items if opts.num_gen is None else opts.num_gen, len(images))
    opts.comparable &= usual == max_items
    opts.num_gen = usual
    num_items = opts.count_gen(usual, min_items)

    def collect(**wanted: bool) -> FeatureStats:
        return _run_on_dataset(opts, images, detector, detector_kwargs, num_items, batch_size, **wanted)

    key = ("given", opts.protocol["images"]["sha256"], *_call_key(detector, detector_kwargs), num_items)
    return _shared(opts, key, collect, **capture)


def _run_on_generator(
    opts: MetricOptions,
    net: Any,
    labels: LabelSource,
    detector: Detector,
    detector_kwargs: Mapping[str, Any],
    num_items: int,
    block: int,
    batch_gen: int,
    **capture: bool,
) -> FeatureStats:
    stats = FeatureStats(max_items=num_items, **capture)
    with opts.progress(num_items, "generated images") as bar, torch.no_grad():
        for indices in rank_blocks(opts, num_items, block):
            z, c = draw_inputs(opts, labels, net.z_dim, indices)
            with torch_seeded(opts, indices.start):
                parts = zip(z.split(batch_gen), c.split(batch_gen), strict=True)
                images = torch.cat([to_uint8(net(z=zi, c=ci, **opts.G_kwargs)) for zi, ci in parts])
            stats.append_blocks(detector(images, **detector_kwargs))
            bar.set(stats.num_items)
    return stats


def draw_inputs(
    opts: MetricOptions, labels: LabelSource, z_dim: int, indices: range
) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents [n, z_dim] and labels [n, c_dim] of numbered samples, float32 on the device."""
    z, c = [], []
    for rng in sample_rngs(opts.seed, indices):
        z.append(rng.randn(z_dim))
        c.append(labels.draw(rng))
    return (
        torch.from_numpy(np.stack(z).astype(np.float32)).to(opts.device),
        torch.from_numpy(np.stack(c)).to(opts.device),
    )
