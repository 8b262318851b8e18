"""Times the trace of the matrix square root in FID: our symmetric solver against scipy.linalg.sqrtm, in the same run.

    python benchmarks/fid_sqrtm.py

Covariances of made-up non-negative features whose spectrum falls over five decades, as that of pooled network features
does. One JSON line per case: seconds of both, their ratio, and the relative difference of the traces.
"""
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import scipy.linalg
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from metrics.frechet_inception_distance import trace_sqrt_product


def made_up_covariance(num_images: int, num_features: int, rng: np.random.Generator) -> np.ndarray:
    """Covariance [F, F] of rectified random features."""
    mixing = np.linalg.qr(rng.standard_normal([num_features, num_features]))[0]
    spectrum = np.logspace(0, -2.5, num_features)
    features = np.maximum((rng.standard_normal([num_images, num_features]) * spectrum) @ mixing + 0.02, 0)
    return np.cov(features, rowvar=False, bias=True)


def timed(function: Callable[[], float]) -> tuple[float, float]:
    """Result and seconds of one call."""
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


@click.command()
@click.option("--features", help="Number of features.", type=click.IntRange(2), default=2048, show_default=True)
@click.option("--seed", help="Random seed.", type=int, default=0, show_default=True)
def main(features: int, seed: int) -> None:
    """Compare the two ways to the trace of a covariance product's square root."""
    rng = np.random.default_rng(seed)
    trace_sqrt_product(np.eye(64), np.eye(64))  # loads the libraries
    cases = {"more images than features": 4 * features, "fewer images than features": features // 2}
    for label, num_images in cases.items():
        cov1, cov2 = (made_up_covariance(num_images, features, rng) for _ in range(2))
        own_value, our_sec = timed(lambda a=cov1, b=cov2: trace_sqrt_product(a, b))
        scipy_value, their_sec = timed(lambda a=cov1, b=cov2: float(np.trace(scipy.linalg.sqrtm(a @ b)).real))
        row = {
            "case": label,
            "features": features,
            "images": num_images,
            "threads": torch.get_num_threads(),
            "ours_sec": round(our_sec, 3),
            "sqrtm_sec": round(their_sec, 3),
            "ratio": round(their_sec / our_sec, 1),
            "relative_difference": abs(own_value - scipy_value) / scipy_value,
            "scipy": scipy.__version__,
            "torch": torch.__version__,
        }
        click.echo(json.dumps(row))


if __name__ == "__main__":
    main()
