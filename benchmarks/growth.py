"""How time and memory grow: distillation, refit, slicing and metrics against resolution, width, batch and images.

    python benchmarks/growth.py > growth.md

Every point is measured in a process of its own: seconds of processor time of the work alone, without what is built
before, and the most memory that the process had above its interpreter with torch. Networks have random weights.
"""
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import click

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


class Point(NamedTuple):
    """What is measured, and of which size."""

    work: str
    resolution: int = 64
    width: str = "1/2"
    batch: int = 8
    images: int = 64


CHANNEL_BASE, CHANNEL_MAX, W_DIM = 2048, 64, 64  # of the teachers
RESOLUTIONS, WIDTHS = [16, 32, 64, 128], ["1/4", "1/2", "1"]
AXES: dict[str, dict[str, list[Any]]] = {
    "distillation": {"resolution": RESOLUTIONS, "width": WIDTHS, "batch": [4, 8, 16], "images": [32, 64, 128]},
    "refit": {"resolution": RESOLUTIONS, "width": ["1/4", "1/2", "3/4"], "images": [32, 64, 128]},
    "slicing": {"resolution": RESOLUTIONS, "width": WIDTHS, "images": [32, 64, 128]},
    "metrics": {"resolution": RESOLUTIONS, "width": WIDTHS, "batch": [4, 8, 16], "images": [64, 128, 256]},
}
NOTES = {
    "distillation": "Gradients of the terms rgb and feature for this number of images.",
    "refit": "One generator; images is the number of latents at high resolutions (128 by default).",
    "slicing": "`--score=reconstruct` with this number of latents (64 by default), and the slice.",
    "metrics": "Features of this number of generated images by `metrics/detectors/clothing32.pt`.",
}


def _generator(point: Point) -> Any:
    import torch

    from training.networks import Generator

    torch.manual_seed(0)
    widths = {"channel_base": CHANNEL_BASE, "channel_max": CHANNEL_MAX}
    return Generator(W_DIM, 0, W_DIM, point.resolution, 3, mapping_kwargs={"num_layers": 2},
                     synthesis_kwargs=widths).eval().requires_grad_(False)  # fmt: skip


def distillation(point: Point) -> Callable[[], Any]:
    """Steps of a student until it has seen the images."""
    import torch

    from benchmarks.cpu_works import Size, distilling

    size = Size(point.resolution, CHANNEL_BASE, point.batch, CHANNEL_MAX, W_DIM)
    step = distilling(size, Fraction(point.width))

    def run() -> None:
        for _ in range(max(point.images // point.batch, 1)):
            step()

    torch.manual_seed(0)
    return run


def refit(point: Point) -> Callable[[], Any]:
    """Of a random slice."""
    import torch

    from dgl import prune
    from dgl.architectures import plan_of
    from dgl.refit import RefitOptions, refit_network

    G = _generator(point)
    plan = plan_of(G)
    random = torch.Generator().manual_seed(0)
    sizes = plan.scaled(Fraction(point.width))
    keep = {name: torch.randperm(size, generator=random)[: sizes[name]].sort().values
            for name, size in plan.sets.items()}  # fmt: skip
    narrow = prune.slice_network(G, keep)
    return lambda: refit_network("G", G, narrow, keep, RefitOptions(num_latents=point.images))


def slicing(point: Point) -> Callable[[], Any]:
    """Scores and the slice."""
    from dgl import prune
    from dgl.student import Cut, keep_lists

    G = _generator(point)
    cut = Cut(Fraction(point.width), score="reconstruct", num_samples=point.images)
    return lambda: prune.slice_network(G, keep_lists(G, cut))


def metrics(point: Point) -> Callable[[], Any]:
    """Features of a student's images."""
    import torch

    from dgl.student import resized
    from metrics.detector import INCEPTION
    from metrics.metric_utils import compute_feature_stats_for_generator
    from metrics.options import MetricOptions

    G = _generator(point)
    G = G if point.width == "1" else resized(G, Fraction(point.width))
    opts = MetricOptions(G=G, batch_gen=point.batch, num_gen=point.images, device=torch.device("cpu"),
                         detectors=[str(ROOT / "metrics" / "detectors" / "clothing32.pt")])  # fmt: skip
    detector = opts.load_detector(INCEPTION)
    call = {"return_features": True}
    return lambda: compute_feature_stats_for_generator(opts, detector, call, point.images, capture_mean_cov=True)


def peak_mib() -> float:
    """The most memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def serve(point: Point) -> None:
    """The body of a process: one point, as one line of JSON."""
    import torch

    before = peak_mib()
    from torch_utils.devices import tune_allocator

    tune_allocator()
    torch.set_num_threads(1)
    run = {"distillation": distillation, "refit": refit, "slicing": slicing, "metrics": metrics}[point.work](point)
    begin = time.process_time()
    run()
    seconds = time.process_time() - begin
    sys.stdout.write(json.dumps({"seconds": seconds, "mib": peak_mib() - before}) + "\n")


def measured(point: Point) -> dict[str, float]:
    """Runs a process for one point."""
    command = [sys.executable, str(Path(__file__).resolve()), "--serve", json.dumps(point)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@click.command()
@click.option("--only", help="Only this work", type=click.Choice(list(AXES)))
@click.option("--serve", "of_point", hidden=True)
def main(only: str | None, of_point: str | None) -> None:
    """Prints the tables as Markdown."""
    if of_point is not None:
        serve(Point(*json.loads(of_point)))
        return
    known: dict[Point, dict[str, float]] = {}
    for work in [only] if only else AXES:
        base = Point(work)
        click.echo(f"\n## {work.capitalize()}\n\n{NOTES[work]}\n")
        for axis, values in AXES[work].items():
            points = [base._replace(**{axis: value}) for value in values]
            for point in points:
                if point not in known:
                    known[point] = measured(point)
            click.echo(f"| {axis} | {' | '.join(map(str, values))} |\n|---|{'---|' * len(values)}")
            click.echo(f"| seconds | {' | '.join(format(known[p]['seconds'], '.3g') for p in points)} |")
            click.echo(f"| MiB | {' | '.join(format(known[p]['mib'], '.0f') for p in points)} |\n")


if __name__ == "__main__":
    main()
