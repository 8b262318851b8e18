"""Compresses the demo's teacher in every way that this project offers, on real Fashion-MNIST at 32 px, on the CPU.

    nohup python -m benchmarks.compress_fmnist --out=compress-out > compress.log &
    python -m benchmarks.compress_fmnist --out=compress-out --list
    python -m benchmarks.compress_fmnist --out=compress-out --report

Hours of work in one command that can be stopped at any moment (Ctrl-C, SIGTERM, --time-budget) and given again: what is
done is not done again, and interrupted training resumes bit-exactly. Trained on the 60,000 training images
(Debian's package dataset-fashion-mnist), scored on the 10,000 test images that come with the demo.
"""
import fnmatch
import hashlib
import os
import time
from pathlib import Path
from typing import Any

import click

from benchmarks.compress import execution, report, table
from dnnlib.cli import CommaList, Command
from dnnlib.errors import UserError

DEBIAN = "/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz"
TEST_DATA = "demo/data/t10k-images-idx3-ubyte.gz"
TEACHER = "demo/teacher/fmnist32.pkl"
DETECTOR = "metrics/detectors/clothing32.pt"
GAMMA = 0.05  # R1 weight that the teacher was trained with


def _file(flag: str, path: str, hint: str) -> Path:
    if not os.path.isfile(path):
        raise UserError(f"{flag}: {path}: no such file; {hint}")
    return Path(path).absolute()


def _selected(patterns: list[str], kimg: int | None) -> list[table.Run]:
    """The rows whose name or group matches a pattern; all without patterns."""
    runs = table.runs()
    for pattern in patterns:
        if not any(fnmatch.fnmatch(name, pattern) for run in runs for name in (run.name, run.group)):
            raise UserError(f"--only: no run or group is called {pattern!r}; --list shows them")
    chosen = [run for run in runs
              if not patterns or any(fnmatch.fnmatch(name, p) for p in patterns for name in (run.name, run.group))]
    return chosen if kimg is None else [table.shortened(run, kimg) for run in chosen]


def jobs(runs: list[table.Run]) -> list[tuple[table.Run, int]]:
    """(row, seed) in the order of work: the first seed of a whole group before its second."""
    order = []
    for group in table.GROUPS:
        members = [run for run in runs if run.group == group]
        for seed in range(max((len(run.seeds) for run in members), default=0)):
            order += [(run, run.seeds[seed]) for run in members if seed < len(run.seeds)]
    return order


@click.command(cls=Command)
@click.option("--out", help="Folder of runs and results.", default="compress-out", show_default=True, metavar="DIR")
@click.option("--teacher", help="Network pickle.", default=TEACHER, show_default=True, metavar="PKL")
@click.option("--train-data", help="Training images: an IDX file (.gz) or a zip of dataset_tool.py.", default=DEBIAN,
              show_default=True, metavar="PATH")
@click.option("--test-data", help="Images to score against, likewise.", default=TEST_DATA, show_default=True,
              metavar="PATH")
@click.option("--detector", "detectors", help="Feature detector; repeatable. Precision and recall are those of the "
              "first.", show_default=str(DETECTOR), multiple=True, metavar="PATH")
@click.option("--gamma", help="R1 weight.", type=float, default=GAMMA, show_default=True)
@click.option("--num-gen", help="Images to score each network with.", type=click.IntRange(min=2), default=10000,
              show_default=True)
@click.option("--only", help="Runs or groups by name, with * and ?, and commas between them.", type=CommaList(),
              default="none", metavar="LIST")
@click.option("--kimg", help="Train every run that long, for a trial.", type=click.IntRange(min=1), metavar="INT")
@click.option("--time-budget", help="Stop after that many minutes.", type=click.FloatRange(min=0), metavar="MIN")
@click.option("--list", "show", help="Show the runs, what is done, and how long the rest takes.", is_flag=True)
@click.option("--report", "make_report", help="Write table, plot and data of what is done.", is_flag=True)
@click.option("--rows", help="Rows to report on; repeatable.", show_default="results.jsonl in --out", multiple=True,
              metavar="JSONL")
@click.option("--dest", help="Where the report goes.", show_default="the folder of --out", metavar="DIR")
def main(**options: Any) -> None:
    """Run the compression experiments on Fashion-MNIST, or resume them; list them; report on them."""
    runs = _selected(options["only"], options["kimg"])
    out = Path(options["out"])
    if options["show"]:
        click.echo(report.overview(jobs(runs), out))
    elif options["make_report"]:
        rows = execution.rows_to_report(options["rows"], out)
        for path in report.write(rows, Path(options["dest"] or out)):
            click.echo(path)
    else:
        _work(jobs(runs), **{**options, "out": out})


def _work(todo: list[tuple[table.Run, int]], out: Path, **options: Any) -> None:
    budget = options["time_budget"]
    deadline = None if budget is None else time.monotonic() + 60 * budget
    teacher = _file("--teacher", options["teacher"], "name a network pickle")
    train_source = _file("--train-data", options["train_data"],
                         "apt install dataset-fashion-mnist, or name the data set's own train-images-idx3-ubyte.gz")
    test_source = _file("--test-data", options["test_data"], "name an IDX file or a zip")
    detectors = [_file("--detector", path, "name a TorchScript file") for path in options["detectors"] or [DETECTOR]]
    inputs = (teacher, train_source, test_source)
    settings = {
        "gamma": options["gamma"],
        "kimg": options["kimg"],
        "sha256": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in inputs},
    }
    try:
        with execution.Workshop(out.absolute(), settings, teacher, detectors, options["num_gen"], deadline) as shop:
            train_data, test_data = shop.data("train", train_source), shop.data("test", test_source)
            for number, (run, seed) in enumerate(todo, 1):
                click.secho(f"[{number}/{len(todo)}] {run.name}, seed {seed}", bold=True)
                for kimg, network in shop.network(run, seed, train_data).items():
                    shop.score(run, seed, kimg, network, test_data)
    except execution.OutOfTime:
        click.echo("Stopped; the same command resumes from here.")
        return
    click.echo("All runs are done.")


if __name__ == "__main__":
    main()
