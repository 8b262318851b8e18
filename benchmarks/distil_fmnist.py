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
import fnmatch
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.compress import distil_report, execution
from benchmarks.compress.distil_table import GROUPS, Job, jobs
from benchmarks.compress_fmnist import DEBIAN, DETECTOR, GAMMA, TEACHER, TEST_DATA
from dnnlib.cli import CommaList, Command
from dnnlib.errors import UserError

SECOND_NUM_GEN = 5000  # generated images for every detector but the first, which are slow


def network(shop: execution.Workshop, job: Job, train_data: Path) -> Path:
    """The network of a job, trained as far as it is not yet."""
    if not job.arguments:
        return shop.teacher
    folder = shop.out / "runs" / job.key
    if job.kimg == 0:
        dest = folder / "slice.pkl"
        if not dest.with_suffix(".cost.json").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            shop.command("prune_init.py", f"--teacher={shop.teacher}", *job.arguments, f"--seed={job.seed}",
                         "--no-latency", f"--dest={dest}")
        return dest
    begun = execution.run_dir(folder)
    last = f"network-snapshot-{job.kimg:06d}.pkl"
    if begun is None:
        images = {"none": (), "teacher": ("--data=teacher",), "train": (f"--data={train_data}", "--cond=false")}
        game = () if job.data == "none" else (f"--gamma={GAMMA}",)
        shop.command("train.py", "--cfg=dgl", f"--teacher={shop.teacher}", *job.arguments, *images[job.data], *game,
                     f"--seed={job.seed}", "--tick=1", "--snap=25", "--metrics=none", "--workers=0",
                     f"--outdir={folder}")
    elif not (begun / last).is_file():
        shop.command("train.py", f"--resume={begun}")
    run_folder = execution.run_dir(folder)
    assert run_folder is not None
    return run_folder / last


def score(shop: execution.Workshop, job: Job, path: Path, data: Path) -> None:
    """Adds a row for every detector that has none for this network; the first one's holds the agreement too."""
    done = {(row["name"], row["seed"], row["detector"]) for row in shop.rows()}
    for number, detector in enumerate(shop.detectors if job.all_detectors else shop.detectors[:1]):
        if (job.name, job.seed, detector.stem) in done:
            continue
        first = number == 0
        measured = ("--metrics=fid50k_full,pr50k3_full", f"--num-gen={shop.num_gen}") if first else (
            "--metrics=fid50k_full", f"--num-gen={min(SECOND_NUM_GEN, shop.num_gen)}")
        outputs = [shop.command("calc_metrics.py", f"--network={path}", f"--data={data}", f"--detector={detector}",
                                *measured, "--verbose=false")]
        if first:
            outputs.append(shop.command("calc_metrics.py", f"--network={path}", f"--teacher={shop.teacher}",
                                        "--metrics=agreement", "--verbose=false"))
        records = [json.loads(line) for output in outputs for line in output.splitlines() if line.startswith("{")]
        row = {"name": job.name, "group": job.group, "title": job.title, "seed": job.seed, "kimg": job.kimg,
               "detector": detector.stem, "results": {k: v for f in records for k, v in f["results"].items()},
               "protocol": records[0]["protocol"], **provenance(shop, job, path)}
        with shop.results.open("a") as file:
            file.write(json.dumps(row) + "\n")


def provenance(shop: execution.Workshop, job: Job, path: Path) -> dict[str, Any]:
    """How a network came about: arguments, versions, seconds of training."""
    facts: dict[str, Any] = {"arguments": list(job.arguments), "settings": shop.settings}
    options = path.parent / "training_options.json"
    if options.is_file():
        made = json.loads(options.read_text()).get("provenance", {})
        facts["provenance"] = {key: value for key, value in made.items() if key != "command"}
        facts["training"] = execution.statistics_at(path.parent / "stats.jsonl", job.kimg)
    return facts


def overview(todo: Sequence[Job], out: Path) -> str:
    """One line per job: how far it is."""
    scored = {(row["name"], row["seed"]) for row in execution.read_rows(out / "results.jsonl")}
    lines = []
    for job in todo:
        begun = execution.run_dir(out / "runs" / job.key)
        last = execution.statistics_at(begun / "stats.jsonl", job.kimg) if begun and job.kimg else {}
        state = "scored" if (job.name, job.seed) in scored else f"{last.get('Progress/kimg', 0):g} of {job.kimg} kimg"
        lines.append(f"{job.group:10} {job.key:36} {state:18} {' '.join(job.arguments)}")
    return "\n".join(lines)


@click.command(cls=Command)
@click.option("--out", help="Folder of runs and results.", default="distil-out", show_default=True, metavar="DIR")
@click.option("--train-data", help="Training images of the games with real ones: an IDX file (.gz) or a zip of "
              "dataset_tool.py.", default=DEBIAN, show_default=True, metavar="PATH")
@click.option("--test-data", help="Images to score against, likewise.", default=TEST_DATA, show_default=True,
              metavar="PATH")
@click.option("--detector", "detectors", help="Feature detector; repeatable. Precision and recall are those of the "
              f"first.  [default: {DETECTOR}]", multiple=True, metavar="PATH")
@click.option("--num-gen", help="Images to score each network with.", type=click.IntRange(min=2), default=10000,
              show_default=True)
@click.option("--only", help=f"Runs or groups ({', '.join(GROUPS)}) by name, with * and ?, and commas between them.",
              type=CommaList(), default="none", metavar="LIST")
@click.option("--time-budget", help="Stop after that many minutes.", type=click.FloatRange(min=0), metavar="MIN")
@click.option("--list", "show", help="Show the runs and how far they are.", is_flag=True)
@click.option("--report", "make_report", help="Write tables and data of what is done.", is_flag=True)
@click.option("--rows", help="Rows to report on; repeatable.  [default: results.jsonl in --out]", multiple=True,
              metavar="JSONL")
@click.option("--dest", help="Where the report goes.  [default: the folder of --out]", metavar="DIR")
def main(**options: Any) -> None:
    """Distil the demo's teacher without data, or resume; list the runs; report on them."""
    todo = _selected(options["only"])
    out = Path(options["out"]).absolute()
    if options["show"]:
        click.echo(overview(todo, out))
    elif options["make_report"]:
        for path in distil_report.write(execution.rows_to_report(options["rows"], out), Path(options["dest"] or out)):
            click.echo(path)
    else:
        _work(todo, out, options)


def _selected(patterns: list[str]) -> list[Job]:
    """The jobs whose key, name or group matches a pattern; all without patterns."""
    def matches(job: Job, pattern: str) -> bool:
        return any(fnmatch.fnmatch(name, pattern) for name in (job.key, job.name, job.group))

    for pattern in patterns:
        if not any(matches(job, pattern) for job in jobs()):
            raise UserError(f"--only: no run or group is called {pattern!r}; --list shows them")
    return [job for job in jobs() if not patterns or any(matches(job, pattern) for pattern in patterns)]


def _work(todo: Sequence[Job], out: Path, options: dict[str, Any]) -> None:
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
            for number, job in enumerate(todo, 1):
                click.secho(f"[{number}/{len(todo)}] {job.key}", bold=True)
                score(shop, job, network(shop, job, train), test)
    except execution.OutOfTime:
        click.echo("Stopped; the same command resumes from here.")
        return
    click.echo("All runs are done.")


if __name__ == "__main__":
    main()
