"""The registry of metrics, running one of them, and reporting its result."""
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from dnnlib import strict_json
from dnnlib.errors import UserError
from dnnlib.files import append_line
from dnnlib.util import EasyDict, format_time
from metrics.agreement import compute_agreement
from metrics.frechet_inception_distance import compute_fid
from metrics.inception_score import compute_is
from metrics.kernel_inception_distance import compute_kid
from metrics.options import MetricOptions
from metrics.perceptual_path_length import PathKind, compute_ppl
from metrics.precision_recall import compute_pr
from torch_utils import distributed

MetricFunction = Callable[[MetricOptions], dict[str, float]]

_OWN_KEYS = {"comparable", "protocol"}  # of a result, last in its line: what other code bases write comes first
_metrics: dict[str, MetricFunction] = {}


class UnknownMetric(UserError):
    """A name that no metric has."""


def register_metric(function: MetricFunction) -> MetricFunction:
    """Decorator: makes a function a metric under its own name.

    Raises:
        ValueError: the name is taken.
    """
    name = function.__name__
    if _metrics.get(name, function) is not function:
        raise ValueError(f"register_metric: there already is a metric {name}")
    _metrics[name] = function
    return function


def is_valid_metric(metric: str) -> bool:
    """Whether there is a metric of this name."""
    return metric in _metrics


def list_valid_metrics() -> list[str]:
    """All names, in the order of registration."""
    return list(_metrics)


def calc_metric(metric: str, **options: Any) -> EasyDict:
    """Runs one metric. Call it on every rank with equal options; every rank gets the same result.

    Args:
        metric: registered name.
        options: as for `metrics.options.MetricOptions`.

    Returns:
        results (name -> float), metric, total_time (seconds), total_time_str, num_gpus, comparable (whether the
        published protocol was followed) and protocol (how the numbers were computed).

    Raises:
        UnknownMetric: no such metric.
        DetectorUnavailable: its detector cannot be read; raised on every rank.
    """
    if not is_valid_metric(metric):
        raise UnknownMetric(f"no metric is called {metric!r}; valid ones: {', '.join(list_valid_metrics())}")
    opts = MetricOptions(**options)
    values, seconds = distributed.broadcast_object(_timed(_metrics[metric], opts))
    result = EasyDict(results=EasyDict((name, float(value)) for name, value in values.items()), metric=metric)
    result |= {"total_time": seconds, "total_time_str": format_time(seconds), "num_gpus": opts.num_gpus}
    result |= {"comparable": opts.comparable, "protocol": EasyDict(opts.protocol)}
    return result


def _timed(function: MetricFunction, opts: MetricOptions) -> tuple[dict[str, float], float]:
    """A metric's values, and how many seconds they took."""
    begin = time.time()
    return function(opts), time.time() - begin


def report_metric(result_dict: dict[str, Any], run_dir: str | None = None, snapshot_pkl: str | None = None) -> None:
    """Prints a result of `calc_metric` as one JSON line, and appends it to RUN_DIR/metric-<metric>.jsonl.

    Args:
        run_dir: nothing is written if it is None or no folder.
        snapshot_pkl: the network that was measured; recorded relative to run_dir if both are given.
    """
    facts = {**result_dict, "snapshot_pkl": _relative_to(run_dir, snapshot_pkl), "timestamp": time.time()}
    line = strict_json.dumps({key: facts[key] for key in sorted(facts, key=_OWN_KEYS.__contains__)})
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
    if run_dir is not None and os.path.isdir(run_dir):
        append_line(os.path.join(run_dir, f"metric-{result_dict['metric']}.jsonl"), line)


def _relative_to(folder: str | None, path: str | None) -> str | None:
    return path if folder is None or path is None else os.path.relpath(path, folder)


def _define(
    name: str, compute: Callable[..., dict[str, float]], dataset_kwargs: dict[str, Any], **protocol: Any
) -> None:
    """Registers a metric that is one of the computations under a fixed protocol."""

    def metric(opts: MetricOptions) -> dict[str, float]:
        opts.dataset_kwargs.update(dataset_kwargs)
        return compute(opts, name, **protocol)

    metric.__name__ = name
    register_metric(metric)


# The current protocols compare with all real images without their mirror images. The order here is that of the listing.
_FULL = {"max_size": None, "xflip": False}
_define("fid50k_full", compute_fid, _FULL, max_real=None, num_gen=50000)
_define("kid50k_full", compute_kid, _FULL, max_real=1000000, num_gen=50000)
_define("pr50k3_full", compute_pr, _FULL, max_real=200000, num_gen=50000)
_define("ppl2_wend", compute_ppl, {}, kind=PathKind("w", "end", crop=False), num_pairs=50000)
_define("is50k", compute_is, _FULL, num_gen=50000)
_define("agreement", compute_agreement, {}, num_gen=1000)

# Older protocols: at most 50,000 real images, mirrored if the training's were; path lengths of cropped images.
_LEGACY = {"max_size": None}
_define("fid50k", compute_fid, _LEGACY, max_real=50000, num_gen=50000)
_define("kid50k", compute_kid, _LEGACY, max_real=50000, num_gen=50000)
_define("pr50k3", compute_pr, _LEGACY, max_real=50000, num_gen=50000)
_define("ppl_zfull", compute_ppl, {}, kind=PathKind("z", "full", crop=True), num_pairs=50000)
_define("ppl_wfull", compute_ppl, {}, kind=PathKind("w", "full", crop=True), num_pairs=50000)
_define("ppl_zend", compute_ppl, {}, kind=PathKind("z", "end", crop=True), num_pairs=50000)
_define("ppl_wend", compute_ppl, {}, kind=PathKind("w", "end", crop=True), num_pairs=50000)
