"""Scores untrained slices of a network, plain and refitted, for every channel score: distances and agreement.

    python -m benchmarks.refit_table --out=refit-out --detector=metrics/detectors/clothing32.pt \\
        --detector=efficientnet-lite0.pt

Slices of the demo's teacher, against the last 2,000 of its test images, as the demo scores them. What is done is not
done again. The second detector is made by benchmarks/efficientnet_detector.py.
"""
import hashlib
import json
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from dgl import scores
from dnnlib.cli import Command, Fraction01
from dnnlib.errors import UserError
from dnnlib.files import append_line, open_atomic, write_json_atomic

ROOT = Path(__file__).resolve().parents[1]
TEACHER = ROOT / "demo/teacher/fmnist32.pkl"
TEST_DATA = ROOT / "demo/data/t10k-images-idx3-ubyte.gz"
TEST_RANGE = "8000:"
HEADINGS = {"agreement_psnr": "PSNR, dB ↑", "agreement_ssim": "SSIM ↑", "agreement_distance@D": "distance by D ↓"}


class Table:
    """The networks and results in a folder, and how further ones are made.

    Args:
        out: the folder.
        settings: everything that results depend on; a folder made with others is refused.

    Raises:
        UserError: it was made with other settings.
    """
    def __init__(self, out: Path, settings: dict[str, Any]) -> None:
        self.out, self.settings = out, settings
        out.mkdir(parents=True, exist_ok=True)
        record = out / "settings.json"
        if record.is_file() and json.loads(record.read_text()) != settings:
            raise UserError(f"{out} was made with other settings; name a new folder", "out")
        write_json_atomic(record, settings)

    def results(self) -> list[dict[str, Any]]:
        """What is measured: rows with network, measure and results."""
        path = self.out / "results.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []

    def make(self, score: str) -> None:
        """Writes the plain and the refitted slice by a score, and how they came about, unless they are there."""
        from dgl import prune, refit, student, teacher
        from training.checkpoints.pickles import save_networks, snapshot_data

        record = self.out / f"{score}.json"
        if record.is_file():
            return
        source = teacher.load(str(TEACHER))
        start = time.process_time()
        keep = student.keep_lists(source.G_ema, student.Cut(Fraction(self.settings["width"]), score))
        facts: dict[str, Any] = {"score_cpu_seconds": round(time.process_time() - start, 1)}
        for fitted in (False, True):
            narrow = prune.slice_network(source.G_ema, keep)
            if fitted:
                start = time.process_time()
                report = refit.refit_network("G_ema", source.G_ema, narrow, keep, refit.RefitOptions())
                facts["refit_cpu_seconds"] = round(time.process_time() - start, 1)
                facts["refit"] = None if report is None else report.as_dict()
            nets = {"G": narrow, "G_ema": narrow, "D": source.D, "augment_pipe": None}
            save_networks(snapshot_data(nets, None), self.path(score, fitted))
        write_json_atomic(record, facts)

    def path(self, score: str, fitted: bool) -> Path:
        """The pickle of a slice."""
        return self.out / f"{score}{'-refitted' if fitted else ''}.pkl"

    def measure(self, title: str, path: Path, measure: str) -> None:
        """Adds one result, unless it is there: a Fréchet distance by a detector's file, or "agreement"."""
        from dgl import teacher
        from metrics.agreement import Reference
        from metrics.metric_main import calc_metric
        from training.checkpoints.pickles import open_networks

        if any((row["network"], row["measure"]) == (title, measure) for row in self.results()):
            return
        G = open_networks(str(path))["G_ema"]
        if measure == "agreement":
            source = teacher.load(str(TEACHER))
            reference = Reference(TEACHER.name, source.sha256, source.G_ema, source.D)
            outcome = calc_metric("agreement", G=G, device="cpu", reference=reference)
        else:
            data = {"class_name": "training.dataset.ImageFolderDataset", "path": str(self.out / "test.zip"),
                    "use_labels": False, "resolution": G.img_resolution}
            outcome = calc_metric("fid50k_full", G=G, dataset_kwargs=data, device="cpu", detectors=[measure],
                                num_gen=self.settings["num_gen"])
        row = {"network": title, "measure": measure, "results": outcome["results"], "protocol": outcome["protocol"]}
        append_line(str(self.out / "results.jsonl"), json.dumps(row))
        click.echo(f"{title}: " + ", ".join(f"{key} {value:.4g}" for key, value in outcome["results"].items()))


def document(rows: Sequence[dict[str, Any]]) -> str:
    """The table in Markdown: a row for every network, a column for every number that any of them has."""
    networks: dict[str, dict[str, float]] = {}
    for row in rows:
        networks.setdefault(row["network"], {}).update(row["results"])
    keys = list(dict.fromkeys(key for values in networks.values() for key in values))
    head = ["network", *(HEADINGS.get(key, f"{key} ↓") for key in keys)]
    lines = [head, ["---"] * len(head)]
    lines += [[title, *(_number(values.get(key)) for key in keys)] for title, values in networks.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 30 else f"{value:.2f}"


@click.command(cls=Command)
@click.option("--out", help="Folder of the rows.", required=True, metavar="DIR", type=click.Path(path_type=Path))
@click.option("--detector", "detectors", help="Feature detector; repeatable.", required=True, multiple=True,
              metavar="FILE.pt", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--width", help="Part of the channels to keep.", type=Fraction01(), default="1/2", show_default=True,
              metavar="FRACTION")
@click.option("--num-gen", help="Generated images per score.", type=click.IntRange(min=2), default=2000,
              show_default=True, metavar="INT")
@click.option("--score", "names", help="Scores to take; repeatable.", multiple=True, show_default="all",
              type=click.Choice(scores.NAMES))
def main(out: Path, detectors: tuple[Path, ...], width: Fraction, num_gen: int, names: tuple[str, ...]) -> None:
    """Score plain and refitted slices of the demo's teacher by every channel score."""
    import torch

    from dataset_tool import main as dataset_tool

    torch.set_num_threads(1)
    files = [TEACHER, TEST_DATA, *detectors]
    settings = {"width": str(width), "num_gen": num_gen, "detectors": [str(path.resolve()) for path in detectors],
                "sha256": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}}
    table = Table(out, settings)
    if not (out / "test.zip").is_file():
        dataset_tool(["--source", str(TEST_DATA), f"--range={TEST_RANGE}", "--dest", str(out / "test.zip")],
                     standalone_mode=False)
    networks = {"teacher": TEACHER}
    for name in names or scores.NAMES:
        table.make(name)
        networks |= {name: table.path(name, False), f"{name}, refitted": table.path(name, True)}
    for measure in (settings["detectors"][0], "agreement", *settings["detectors"][1:]):
        for title, path in networks.items():
            table.measure(title, path, measure)
    text = document(table.results())
    with open_atomic(str(out / "table.md")) as file:
        file.write(text.encode())
    click.echo(text)


if __name__ == "__main__":
    main()
