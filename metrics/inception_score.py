"""Inception score: how confident a classifier is about each generated image, and how varied its answers are.

Source: Salimans et al. 2016, arXiv:1606.03498, section 4.
"""
import numpy as np
from scipy.special import rel_entr

from metrics.detector import INCEPTION
from metrics.metric_utils import compute_feature_stats_for_generator
from metrics.options import MetricOptions

NUM_SPLITS = 10


def compute_is(opts: MetricOptions, name: str, num_gen: int) -> dict[str, float]:
    """Mean and spread over splits, under `name`_mean and _std, or is@DETECTOR_mean and _std; NaN on ranks above 0."""
    detector = opts.load_detector(INCEPTION)
    call = {"no_output_bias": True}
    gen = compute_feature_stats_for_generator(opts, detector, call, num_gen, min_items=NUM_SPLITS, capture_all=True)
    mean, std = inception_score(gen.get_all()) if opts.rank == 0 else (float("nan"), float("nan"))
    key = opts.result_key(name, "is", detector, INCEPTION)
    return {f"{key}_mean": mean, f"{key}_std": std}


def inception_score(probs: np.ndarray, num_splits: int = NUM_SPLITS) -> tuple[float, float]:
    """exp(mean KL(p || mean of p)) of each of num_splits parts in order; the mean and population spread of these.

    Args:
        probs: class probabilities [N, K], N >= num_splits.
    """
    parts = np.array_split(probs.astype(np.float64), num_splits)
    scores = [np.exp(rel_entr(part, part.mean(axis=0)).sum(axis=1).mean()) for part in parts]
    return float(np.mean(scores)), float(np.std(scores))
