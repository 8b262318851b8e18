"""Copies the demo's teacher into narrow students without data, at 32 px on the CPU, and plays games afterwards.

    nohup python -m benchmarks.distil_fmnist --out=distil-out --detector=metrics/detectors/clothing32.pt \\
        --detector=efficientnet-lite0.pt > distil.log &
    python -m benchmarks.distil_fmnist --out=distil-out --list
    python -m benchmarks.distil_fmnist --out=distil-out --report

It can be stopped at any moment (Ctrl-C, SIGTERM, --time-budget) and given again: what is done is not done again, and a
training that was interrupted resumes bit-exactly. No real image takes part in the training, but in games whose title
says so, which see the 60,000 training images (Debian's package dataset-fashion-mnist). Scored on the 10,000 test images
that come with the demo. The second detector is made by benchmarks/efficientnet_detector.py.
"""
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.compress import distil_report, distil_table, execution, jobs
from benchmarks.compress.distil_table import GROUPS
from benchmarks.compress_fmnist import DEBIAN, DETECTOR, GAMMA, TEACHER, TEST_DATA
from dnnlib.cli import CommaList, Command
from dnnlib.errors import UserError


@click.command(cls=Command)
@click.option("--out", help="Folder of runs and results.", default="distil-out", show_default=True, metavar="DIR")
@click.option("--train-data", help="Training images of the games with real ones: an IDX file (.gz) or a zip of "
              "dataset_tool.py.", default=DEBIAN, show_default=True, metavar="PATH")
@click.option("--test-data", help="Images to score against, likewise.", default=TEST_DATA, show_default=True,
              metavar="PATH")
@click.option("--detector", "detectors", help="Feature detector; repeatable. Precision and recall are those of the "
              "first.", show_default=str(DETECTOR), multiple=True, metavar="PATH")
@click.option("--num-gen", help="Images to score each network with.", type=click.IntRange(min=2), default=10000,
              show_default=True)
@click.option("--only", help=f"Runs or groups ({', '.join(GROUPS)}) by name, with * and ?, and commas between them.",
              type=CommaList(), default="none", metavar="LIST")
@click.option("--time-budget", help="Stop after that many minutes.", type=click.FloatRange(min=0), metavar="MIN")
@click.option("--list", "show", help="Show the runs and how far they are.", is_flag=True)
@click.option("--report", "make_report", help="Write tables and data of what is done.", is_flag=True)
@click.option("--rows", help="Rows to report on; repeatable.", show_default="results.jsonl in --out", multiple=True,
              metavar="JSONL")
@click.option("--dest", help="Where the report goes.", show_default="the folder of --out", metavar="DIR")
def main(**options: Any) -> None:
    """Distil the demo's teacher without data, or resume; list the runs; report on them."""
    todo = jobs.selected(distil_table.jobs(), options["only"])
    out = Path(options["out"]).absolute()
    if options["show"]:
        click.echo(jobs.overview(todo, out))
    elif options["make_report"]:
        for path in distil_report.write(execution.rows_to_report(options["rows"], out), Path(options["dest"] or out)):
            click.echo(path)
    else:
        _work(todo, out, options)


def _work(todo: Sequence[jobs.Job], out: Path, options: dict[str, Any]) -> None:
    deadline = None if options["time_budget"] is None else time.monotonic() + 60 * options["time_budget"]
    detectors = [Path(path).absolute() for path in options["detectors"] or [DETECTOR]]
    files = [Path(path).absolute() for path in (TEACHER, options["train_data"], options["test_data"])]
    flags = ("--teacher", "--train-data", "--test-data", *["--detector"] * len(detectors))
    for flag, path in zip(flags, [*files, *detectors]):
        if not path.is_file():
            raise UserError(f"{flag}: {path}: no such file")
    settings = {"gamma": GAMMA, "sha256": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}}
    try:
        with execution.Workshop(out, settings, files[0], detectors, options["num_gen"], deadline) as shop:
            train, test = (shop.data(name, path) for name, path in zip(("train", "test"), files[1:]))
            bench = jobs.Bench(shop, train, test, ([f"--gamma={GAMMA}"], ["--cond=false"]))
            for number, job in enumerate(todo, 1):
                click.secho(f"[{number}/{len(todo)}] {job.key}", bold=True)
                bench.score(job, bench.network(job))
    except execution.OutOfTime:
        click.echo("Stopped; the same command resumes from here.")
        return
    click.echo("All runs are done.")


if __name__ == "__main__":
    main()
