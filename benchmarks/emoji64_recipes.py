"""Every published recipe of compression and ours in one table, with one teacher, on the CPU.

    nohup python -m benchmarks.emoji64_recipes --out=recipes-out --teacher=emoji64.pkl --data=emoji64.zip \\
        --test-data=emoji64-test.zip --mirror > recipes.log &
    python -m benchmarks.emoji64_recipes --out=recipes-out --teacher=emoji64.pkl --list
    python -m benchmarks.emoji64_recipes --out=recipes-out --teacher=emoji64.pkl --pictures
    python -m benchmarks.emoji64_recipes --out=recipes-out --report

The same with the demo's grey teacher of 32 px:

    python -m benchmarks.emoji64_recipes --out=recipes-fmnist --teacher=demo/teacher/fmnist32.pkl \\
        --data=/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz \\
        --test-data=demo/data/t10k-images-idx3-ubyte.gz --detector=metrics/detectors/clothing32.pt --kimg=5 --seeds=1,1

It can be stopped at any moment (Ctrl-C, SIGTERM, --time-budget) and given again: what is done is not done again, and a
training that was interrupted resumes bit-exactly. A teacher that knows classes is distilled with them, and distances
within classes are scored too. The order of work is by seed, so that a table of one seed is complete first.
"""
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.compress import execution, jobs, recipe_pictures, recipe_report, recipe_table
from benchmarks.compress.recipe_table import CUTS, OURS, Study
from dnnlib.cli import CommaList, Command
from dnnlib.errors import UserError
from dnnlib.files import write_json_atomic

DETECTORS = ("efficientnet-lite0.pt", "open-nsfw.pt")
NAME = "emoji64_recipes"


class Seeds(click.ParamType):
    """Option type: seeds of the rows that are claimed, and of the others."""

    name = "list"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """The two numbers."""
        if isinstance(value, tuple):
            return value
        words = str(value).split(",")
        if len(words) != 2 or not all(word.isdigit() and int(word) > 0 for word in words):
            self.fail(f"expected two numbers of seeds such as 5,2, found {value!r}", param, ctx)
        return int(words[0]), int(words[1])


@click.command(cls=Command)
@click.option("--out", help="Folder of runs and results.", default="recipes-out", show_default=True, metavar="DIR")
@click.option("--teacher", help="Network pickle.", default="emoji64.pkl", show_default=True, metavar="PKL")
@click.option("--data", help="Training images of the games: a zip of dataset_tool.py, or an IDX file (.gz).",
              default="emoji64.zip", show_default=True, metavar="PATH")
@click.option("--test-data", help="Images to score against, likewise.", default="emoji64-test.zip", show_default=True,
              metavar="PATH")
@click.option("--detector", "detectors", help="Feature detector; repeatable. Precision and recall are those of the "
              "first.", show_default=" and ".join(DETECTORS), multiple=True, metavar="PATH")
@click.option("--kimg", help="Length of every training in thousands of images.", type=click.IntRange(min=2),
              default=50, show_default=True)
@click.option("--seeds", help="Seeds of the rows that are claimed, and of the others.", type=Seeds(), default="5,2",
              show_default=True, metavar="INT,INT")
@click.option("--gamma", help="R1 weight of the games.", type=float, default=0.05, show_default=True)
@click.option("--mirror", help="Games see mirrored copies of the images too.", is_flag=True)
@click.option("--num-gen", help="Images to score each network with.", type=click.IntRange(min=2), default=10000,
              show_default=True)
@click.option("--only", help="Runs or groups by name, with * and ?, and commas between them.", type=CommaList(),
              default="none", metavar="LIST")
@click.option("--time-budget", help="Stop after that many minutes.", type=click.FloatRange(min=0), metavar="MIN")
@click.option("--list", "show", help="Show the runs and how far they are.", is_flag=True)
@click.option("--pictures", help="Draw teacher and students of the tables with equal processor time on the same "
              "latents; --report shows what is drawn.", is_flag=True)
@click.option("--report", "make_report", help="Write tables and data of what is done.", is_flag=True)
@click.option("--rows", help="Rows to report on; repeatable.", show_default="results.jsonl in --out", multiple=True,
              metavar="JSONL")
@click.option("--name", help="Name of the report.", default=NAME, show_default=True, metavar="STR")
@click.option("--dest", help="Where the report goes.", show_default="the folder of --out", metavar="DIR")
def main(**options: Any) -> None:
    """Compare all recipes, or resume; list the runs; report on them."""
    out = Path(options["out"]).absolute()
    study = Study(options["kimg"], *options["seeds"])
    if options["show"]:
        click.echo(jobs.overview(jobs.selected(known_jobs(study, read_lengths(out)), options["only"]), out))
    elif options["make_report"]:
        rows = execution.rows_to_report(options["rows"], out)
        for path in recipe_report.write(rows, Path(options["dest"] or out), options["name"]):
            click.echo(path)
    elif options["pictures"]:
        rows = recipe_table.order(execution.rows_to_report(options["rows"], out))
        for path in recipe_pictures.draw(rows, out, Path(options["teacher"]), Path(options["dest"] or out),
                                         options["name"]):
            click.echo(path)
    else:
        _work(study, out, options)


def known_jobs(study: Study, lengths: Mapping[str, Mapping[str, int]]) -> list[jobs.Job]:
    """All jobs in the order of work; those within a budget of time as far as its lengths (cut → row → kimg) are known.
    """
    order = [study.teacher]
    for seed in range(study.claimed):
        for cut in CUTS:
            order += [*study.by_images(cut, seed), *study.by_time(cut, seed, lengths.get(cut, {}))]
        order += study.elastic(seed)
    return order


def read_lengths(out: Path) -> dict[str, dict[str, int]]:
    """Cut → row → length within the budget of time, as chosen in an output folder; empty before that."""
    path = out / "lengths.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def chosen_lengths(study: Study, cut: str, out: Path) -> dict[str, int]:
    """Row → length in kimg within the processor time of our recipe, by the trainings of seed 0; empty without them."""
    used = {job.name: _processor_time(out / "runs" / job.key) for job in study.by_images(cut, 0)}
    ours = used[f"{cut}-{OURS}-images"]
    if not ours or ours[-1][0] < study.kimg:
        return {}
    lengths = {OURS: study.kimg}
    for row in recipe_table.ROWS[1:]:
        points = used[f"{cut}-{row.name}-images"]
        if points and points[-1][0] >= study.kimg:
            lengths[row.name] = recipe_table.length_within(ours[-1][1], points, study.kimg)
    return lengths


def _processor_time(folder: Path) -> list[tuple[float, float]]:
    """(kimg, processor seconds) at the ends of a run's ticks; empty of one that has not begun."""
    begun = execution.run_dir(folder)
    if begun is None:
        return []
    path = begun / "stats.jsonl"
    ticks = [row["Progress/kimg"]["mean"] for row in execution.read_rows(path)]
    return [(kimg, seconds) for kimg in ticks if (seconds := execution.processor_seconds(path, kimg)) is not None]


def _work(study: Study, out: Path, options: dict[str, Any]) -> None:
    deadline = None if options["time_budget"] is None else time.monotonic() + 60 * options["time_budget"]
    detectors = [Path(path).absolute() for path in options["detectors"] or DETECTORS]
    files = [Path(options[name]).absolute() for name in ("teacher", "data", "test_data")]
    flags = ("--teacher", "--data", "--test-data", *["--detector"] * len(detectors))
    for flag, path in zip(flags, [*files, *detectors]):
        if not path.is_file():
            raise UserError(f"{flag}: {path}: no such file")
    from dgl import teacher as teachers

    G = teachers.load(str(files[0])).G_ema
    has_classes = G.c_dim > 0
    settings = {
        "teacher": files[0].name, "resolution": G.img_resolution, "classes": G.c_dim, "kimg": study.kimg,
        "gamma": options["gamma"], "mirror": options["mirror"],
        "sha256": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
    }
    of_reals = [f"--cond={str(has_classes).lower()}", f"--mirror={str(options['mirror']).lower()}"]
    try:
        with execution.Workshop(out, settings, files[0], detectors, options["num_gen"], deadline) as shop:
            train, test = (shop.data(name, path) for name, path in zip(("train", "test"), files[1:]))
            bench = jobs.Bench(shop, train, test, ([f"--gamma={options['gamma']}"], of_reals), 1, has_classes)
            for job in _in_turn(study, out, options["only"]):
                click.secho(f"{job.name}, seed {job.seed}", bold=True)
                bench.score(job, bench.network(job))
    except execution.OutOfTime:
        click.echo("Stopped; the same command resumes from here.")
        return
    click.echo("All runs are done.")


def _in_turn(study: Study, out: Path, only: Sequence[str]) -> Iterator[jobs.Job]:
    """The jobs that match, each when its turn comes: lengths within the budget of time follow from earlier ones."""
    jobs.selected([*known_jobs(study, read_lengths(out)), *_assumed(study)], only)  # says which pattern matches nothing

    def chosen(candidates: Sequence[jobs.Job]) -> list[jobs.Job]:
        return [job for job in candidates if not only or jobs.matches(job, only)]

    yield from chosen([study.teacher])
    for seed in range(study.claimed):
        for cut in CUTS:
            yield from chosen(study.by_images(cut, seed))
            lengths = read_lengths(out)
            lengths[cut] = {**chosen_lengths(study, cut, out), **lengths.get(cut, {})}  # what was chosen stays
            write_json_atomic(out / "lengths.json", lengths)
            for job in chosen(study.by_time(cut, seed, lengths[cut])):
                yield job
                _thin(out / "runs" / job.key, {study.kimg, job.kimg})
        yield from chosen(study.elastic(seed))


def _assumed(study: Study) -> list[jobs.Job]:
    """The jobs within the budget of time as if all lengths were equal, for their names."""
    lengths = {row.name: study.kimg for row in recipe_table.ROWS}
    return [job for cut in CUTS for job in study.by_time(cut, 0, lengths)]


def _thin(folder: Path, kept: set[int]) -> None:
    """Removes the snapshots and sample images of a run whose lengths are not wanted."""
    begun = execution.run_dir(folder)
    for path in [] if begun is None else begun.glob("*[0-9].p[kn][lg]"):
        if int(path.stem[-6:]) not in kept:
            path.unlink()


if __name__ == "__main__":
    main()
