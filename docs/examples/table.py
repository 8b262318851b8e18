"""Fréchet distances of the examples without and with the teacher's term, over seeds.

    python -m docs.examples.table --detector=metrics/detectors/clothing32.pt --detector=efficientnet-lite0.pt

For each model, λ is the one of `--weights` with the smallest distance by the first detector on `--tune-seed`, which is
not among `--seeds`. Models are trained on the first `--images` images, and compared with those behind them.
"""
import json
import statistics
from collections.abc import Sequence
from typing import Any

import click
import torch

from dnnlib.cli import CommaList, Command
from dnnlib.errors import UserError
from metrics.detector import DetectorSpec, check_given, load
from metrics.feature_stats import FeatureStats
from metrics.frechet_inception_distance import frechet_distance

from . import autoregressive, common, discrete, flow, vae

EXAMPLES = {module.EXAMPLE.name: module.EXAMPLE for module in (vae, flow, autoregressive, discrete)}


class Distances:
    """Distances of images by several detectors.

    Args:
        urls: of TorchScript detectors.
        real: images [N, 1, 32, 32] in [-1, 1] that others are compared with.
    """

    def __init__(self, urls: Sequence[str], real: torch.Tensor) -> None:
        specs = [DetectorSpec.parse(url) for url in urls]
        self._detectors = {spec.name: load(spec, torch.device("cpu")) for spec in specs}
        self._real = {name: self._moments(name, real) for name in self._detectors}

    def _moments(self, name: str, img: torch.Tensor) -> Any:
        """Mean and covariance of the features of images."""
        stats = FeatureStats(capture_mean_cov=True)
        with torch.no_grad():
            for part in img.split(100):
                pixels = (part * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)
                stats.append_torch(self._detectors[name](pixels, return_features=True))
        return stats.get_mean_cov()

    def __call__(self, img: torch.Tensor) -> dict[str, float]:
        """fd@DETECTOR → distance of images [N, 1, 32, 32]."""
        return {f"fd@{name}": frechet_distance(*self._moments(name, img), *real) for name, real in self._real.items()}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: mean ± standard error over seeds of every model and λ, and of the paired differences."""
    measures = [name for name in rows[0] if name.startswith("fd@")]
    lines = [f"| model | λ | seeds | {' | '.join(measures)} |", f"|{'---|' * (3 + len(measures))}"]
    for model in dict.fromkeys(row["model"] for row in rows):
        plain, guided = ([row for row in rows if row["model"] == model and (row["dgl_weight"] > 0) is is_guided]
                         for is_guided in (False, True))
        for label, group in ((0, plain), (guided[0]["dgl_weight"], guided)):
            cells = [_mean([row[name] for row in group]) for name in measures]
            lines.append(f"| {model} | {label:g} | {len(group)} | {' | '.join(cells)} |")
        cells = [_mean([b[name] - a[name] for a, b in zip(plain, guided)]) for name in measures]
        lines.append(f"| {model} | difference | {len(plain)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(values: Sequence[float]) -> str:
    error = f" ± {statistics.stdev(values) / len(values) ** 0.5:.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{error}"


@click.command(cls=Command)
@click.option("--detector", multiple=True, required=True, metavar="PATH", help="TorchScript detector; repeatable.")
@click.option("--model", multiple=True, type=click.Choice(list(EXAMPLES)), help="Which models; repeatable.",
              show_default="all")
@click.option("--data", default=common.DATA, show_default=True, help="Images as an IDX file.", metavar="PATH")
@click.option("--teacher", default=common.TEACHER, show_default=True, metavar="PKL", help="Whose discriminator guides.")
@click.option("--seeds", type=CommaList(), default="0,1,2", show_default=True, metavar="LIST", help="Of the table.")
@click.option("--tune-seed", type=int, default=100, show_default=True, help="λ is chosen on it.")
@click.option("--weights", type=CommaList(), default="0.03,0.1,0.3", show_default=True, metavar="LIST",
              help="To choose λ from.")
@click.option("--steps", type=click.IntRange(min=1), default=1000, show_default=True, help="Steps of 32 images.")
@click.option("--images", type=click.IntRange(min=common.BATCH), default=8000, show_default=True,
              help="Images to train on; the others are compared with.")
@click.option("--samples", type=click.IntRange(min=common.NUM_SAMPLES), default=2000, show_default=True,
              help="Samples to compare.")
def main(
    detector: tuple[str, ...], model: tuple[str, ...], data: str, teacher: str, seeds: list[str], tune_seed: int,
    weights: list[str], steps: int, images: int, samples: int,
) -> None:
    """Compare the examples without and with the teacher's term over seeds."""
    check_given(detector)
    everything = common.load_images(data, 1 << 30)
    if images + 2 > len(everything):
        raise UserError(f"--images: none of the {len(everything)} images in {data} are left to compare with")
    rows = []
    for name in model or EXAMPLES:
        example = EXAMPLES[name]
        distances = Distances(detector, example.shown(example.prepare(everything[images:])))

        def run(weight: float, seed: int, example: Any = example, distances: Any = distances) -> dict[str, Any]:
            term = common.teacher_term(teacher, weight)
            samples_of_term, row = example.run(everything[:images], term, steps, seed, samples)
            row |= {key: round(value, 4) for key, value in distances(samples_of_term).items()}
            click.echo(json.dumps(row))
            return row

        tuned = [run(float(weight), tune_seed) for weight in weights]
        first = next(key for key in tuned[0] if key.startswith("fd@"))
        best = min(tuned, key=lambda row: row[first])["dgl_weight"]
        rows += [run(weight, int(seed)) for seed in seeds for weight in (0.0, best)]
    click.echo(table(rows))


if __name__ == "__main__":
    main()
