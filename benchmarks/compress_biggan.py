"""Trains a class-conditional BigGAN on Fashion-MNIST at 32 px and compresses it, on the CPU.

    nohup python -m benchmarks.compress_biggan --out=biggan-out > biggan.log &
    python -m benchmarks.compress_biggan --out=biggan-out --list
    python -m benchmarks.compress_biggan --out=biggan-out --report

The teacher first, then students of half its width by seed: distilled without data, with a game of real images or the
teacher's afterwards, and by the published game with and without the teacher's term. It can be stopped at any moment
(Ctrl-C, SIGTERM, --time-budget) and given again: what is done is not done again, and a training that was interrupted
resumes bit-exactly. Trained on the 60,000 training images (Debian's package dataset-fashion-mnist), scored on the
10,000 test images that come with the demo.
"""
import dataclasses
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.compress import execution
from benchmarks.compress.jobs import selected
from benchmarks.compress.report import summary, text_of
from benchmarks.compress_fmnist import DEBIAN, DETECTOR, TEST_DATA
from dnnlib.cli import CommaList, Command
from dnnlib.errors import UserError
from dnnlib.files import open_atomic

# Of every training. One step of D and four times the rate, as for ImageNet; short runs need small batches and a short
# average.
COMMON = ("--d-steps=1", "--batch=16", "--glr=0.0001", "--dlr=0.0004", "--ema-kimg=3", "--ema-start=0", "--cond=true",
          "--metrics=none", "--workers=0", "--snap=5")
TEACHER = ("--cfg=biggan", "--ch=16", "--z-dim=64")
STUDENT = ("--cfg=dgl-biggan", "--width=0.5", "--init=slice", "--score=l1", "--recipe=paper", "--stage1-kimg=0")
DISTILLED = ("--cfg=dgl-biggan", "--width=0.5", "--metrics=none", "--workers=0")
LENGTHS = (5, 10, 25)  # of distillation, besides the usual one
GAME_KIMG = 10  # after the longest of them
# Of a game after distillation: its rates are a tenth of the published game's.
GAME = (f"--game-kimg={GAME_KIMG}", "--d-steps=1", "--batch=16", "--glr=0.00001", "--dlr=0.00004", "--cond=true")
COLUMNS = {  # key of a row's results → heading, digits
    "fd@clothing32": ("fd@clothing32 ↓", 2),
    "intra_fd": ("intra-class fd ↓", 2),
    "is@clothing32_mean": ("is@clothing32 ↑", 3),
    "accuracy": ("accuracy ↑", 3),
    "precision@clothing32": ("precision ↑", 3),
    "recall@clothing32": ("recall ↑", 3),
    "agreement_psnr": ("PSNR, dB ↑", 2),
}


@dataclasses.dataclass(frozen=True)
class Job:
    """One network that is made or trained, and scored."""

    name: str
    title: str
    seed: int
    kimg: int  # 0 is a slice as prune_init.py makes it
    arguments: tuple[str, ...]
    data: str = ""  # images that training gets: none, real or teacher

    @property
    def group(self) -> str:
        """What --only may call it, too."""
        return "adversarial" if "lambda" in self.name else "distilled"

    @property
    def key(self) -> str:
        """Name of its folder."""
        return f"{self.name}-seed{self.seed}"


def jobs(teacher_kimg: int, student_kimg: int, seeds: int) -> list[Job]:
    """In the order of work: every student of a seed before those of the next."""
    order = [
        Job("teacher", "teacher, ch 16", 0, teacher_kimg, (*TEACHER, f"--kimg={teacher_kimg}", *COMMON), "real"),
        Job("half-untrained", "width 1/2, slice (l1), untrained", 0, 0, ("--width=0.5", "--score=l1", "--no-refit")),
        Job("half-refitted", "width 1/2, refitted, untrained", 0, 0, ("--width=0.5", "--refit")),
    ]
    short = min(LENGTHS[-1], student_kimg)
    for seed in range(seeds):
        for kimg in dict.fromkeys((student_kimg, *(min(kimg, student_kimg) for kimg in reversed(LENGTHS)))):
            order.append(Job(f"half-distil{kimg}", f"width 1/2, refitted, distilled {kimg} kimg without data", seed,
                             kimg, (*DISTILLED, f"--kimg={kimg}")))
        order.append(Job(f"half-plain-distil{short}", f"width 1/2, slice (l1), distilled {short} kimg without data",
                         seed, short, (*DISTILLED, "--score=l1", "--no-refit", f"--kimg={short}")))
        for name, whose, data in (("half-game", "the real images", "real"),
                                  ("half-game-teacher", "the teacher's images", "teacher")):
            order.append(Job(name, f"after {short} kimg a game of {GAME_KIMG} kimg with {whose}", seed,
                             short + GAME_KIMG, (*DISTILLED, f"--kimg={short}", *GAME), data))
    for seed in range(seeds):
        order += [
            Job(f"half-lambda{weight}", f"width 1/2, slice (l1), λ {weight}", seed, student_kimg,
                (*STUDENT, f"--dgl-weight={weight}", f"--kimg={student_kimg}", *COMMON), "real")
            for weight in ("0", "0.1")
        ]
    return order


class Bench:
    """Makes and scores networks in a folder.

    Args:
        shop: runs the commands.
        num_gen: generated images per score.
    """

    def __init__(self, shop: execution.Workshop, num_gen: int) -> None:
        self.shop = shop
        self.num_gen = num_gen
        self.teacher: Path | None = None

    def network(self, job: Job, data: Path) -> Path:
        """The network of a job, trained as far as it is not yet."""
        folder = self.shop.out / "runs" / job.key
        if job.kimg == 0:
            dest = folder / "slice.pkl"
            if not dest.with_suffix(".cost.json").is_file():
                folder.mkdir(parents=True, exist_ok=True)
                self.shop.command("prune_init.py", f"--teacher={self.teacher}", *job.arguments, f"--seed={job.seed}",
                                  f"--dest={dest}")
            return dest
        begun = execution.run_dir(folder)
        last = f"network-snapshot-{job.kimg:06d}.pkl"
        if begun is None:
            guide = [f"--teacher={self.teacher}"] if job.name != "teacher" else []
            images = {"": [], "real": [f"--data={data}"], "teacher": ["--data=teacher"]}[job.data]
            self.shop.command("train.py", *job.arguments, *guide, *images,
                              f"--tick={min(execution.TICK_KIMG, job.kimg)}", f"--seed={job.seed}",
                              f"--outdir={folder}")
        elif not (begun / last).is_file():
            self.shop.command("train.py", f"--resume={begun}")
        run_folder = execution.run_dir(folder)
        assert run_folder is not None
        return run_folder / last

    def score(self, job: Job, network: Path, data: Path) -> None:
        """Adds the row of a network unless it is there."""
        if any((row["name"], row["seed"]) == (job.name, job.seed) for row in self.shop.rows()):
            return
        detector = self.shop.detectors[0]
        common = [f"--network={network}", f"--data={data}", f"--detector={detector}", f"--num-gen={self.num_gen}"]
        output = self.shop.command("calc_metrics.py", *common, "--metrics=fid50k_full,is50k,pr50k3_full",
                                   "--verbose=false")
        records = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        if job.name != "teacher":
            output = self.shop.command("calc_metrics.py", f"--network={network}", f"--teacher={self.teacher}",
                                       "--metrics=agreement", "--verbose=false")
            records += [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        classes = json.loads(self.shop.command("-m", "benchmarks.compress.classes", *common))
        row = {
            "name": job.name, "title": job.title, "seed": job.seed, "kimg": job.kimg,
            "results": {k: v for f in records for k, v in f["results"].items()}
            | {name: classes[name] for name in ("accuracy", "intra_fd")},
            "per_class": classes["per_class"],
            "classifier_accuracy_on_reals": classes["real_accuracy"],
            "protocol": records[0]["protocol"],
            "arguments": list(job.arguments),
            "settings": self.shop.settings,
        }
        options = network.parent / "training_options.json"
        if options.is_file():
            provenance = json.loads(options.read_text()).get("provenance", {})
            row["provenance"] = {key: value for key, value in provenance.items() if key != "command"}
            row["training"] = execution.statistics_at(network.parent / "stats.jsonl", job.kimg)
        else:
            row["costs"] = json.loads(network.with_suffix(".cost.json").read_text())["costs"]
        with self.shop.results.open("a") as file:
            file.write(json.dumps(row) + "\n")


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The document of the results."""
    titles = dict.fromkeys((row["name"], row["title"], row["kimg"]) for row in rows)
    table, per_class = [], []
    for name, title, kimg in titles:
        of_run = [row for row in rows if row["name"] == name]
        values = [[row["results"][key] for row in of_run if key in row["results"]] for key in COLUMNS]
        cells = [text_of(summary(of_seeds), digits) if of_seeds else ""
                 for of_seeds, (_, digits) in zip(values, COLUMNS.values())]
        table.append([title, str(kimg), str(len(of_run)), *cells])
        for label, digits in (("accuracy", 3), ("intra_fd", 1)):
            by_class = zip(*(row["per_class"][label] for row in of_run))
            per_class.append([title, label, *(text_of(summary(of_seeds), digits) for of_seeds in by_class)])
    costs = next((row["costs"] for row in rows if "costs" in row), [])
    num_classes = len(rows[0]["per_class"]["accuracy"])
    protocol = rows[0]["protocol"]
    real = rows[0]["classifier_accuracy_on_reals"]
    return f"""# Compression of a BigGAN on labelled Fashion-MNIST, 32 px, CPU

Made by `python -m benchmarks.compress_biggan --report --rows=docs/results/compress_biggan.jsonl --dest=docs/results`;
the file holds every row with its arguments and protocol. Trained on the 60,000 training images,
scored with {protocol["num_gen"]:,} generated
images against {protocol["num_real"]:,} test images. Rows are mean ± standard error over seeds of the training;
the teacher of a student is the last one above it. `fd@clothing32` is the Fréchet distance in
the features of the detector clothing32, a small classifier of the same training images: no FID. Its class
probabilities make the inception score, and its decisions the accuracy (of the requested class; on the test
images it is {real:.3f}). Intra-class distances are means over the classes. PSNR compares images of student and
teacher on the same latents and labels.

{_table(["generator", "kimg", "seeds", *(heading for heading, _ in COLUMNS.values())], table)}
## By class

{_table(["generator", "score", *map(str, range(num_classes))], per_class)}
## Cost

{_table(["network", "parameters", "MACs"], [[c["name"], f"{c['params']:,}", f"{c['macs_in']:,}"] for c in costs])}
## Arguments

{_arguments(rows)}"""


def _arguments(rows: Sequence[dict[str, Any]]) -> str:
    by_title = {row["title"]: " ".join(row["arguments"]) for row in rows}
    return "\n".join(f"- {title}: `{text}`" for title, text in by_title.items()) + "\n"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    if not lines:
        return "None yet.\n"
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines]) + "\n"


def in_order(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in the order of `jobs`, whatever the order of work was; those of other networks behind them."""
    settings = rows[0]["settings"]
    names = [job.name for job in jobs(settings["teacher_kimg"], settings["student_kimg"], 1)]
    rank = {name: i for i, name in enumerate(names)}
    return sorted(rows, key=lambda row: (rank[row["name"]], row["seed"]) if row["name"] in rank else (len(rank), 0))


def write(rows: Sequence[dict[str, Any]], dest: Path) -> list[Path]:
    """Writes the document and the rows."""
    rows = in_order(rows)
    dest.mkdir(parents=True, exist_ok=True)
    contents = {"compress_biggan.md": markdown(rows), "compress_biggan.jsonl": "".join(json.dumps(r) + "\n"
                                                                                       for r in rows)}
    for name, content in contents.items():
        with open_atomic(dest / name, "w") as f:
            f.write(content)
    return [dest / name for name in contents]


def overview(todo: Sequence[Job], out: Path) -> str:
    """One line per job: how far it is."""
    scored = {(row["name"], row["seed"]) for row in execution.read_rows(out / "results.jsonl")}
    lines = []
    for job in todo:
        begun = execution.run_dir(out / "runs" / job.key)
        last = execution.statistics_at(begun / "stats.jsonl", job.kimg) if begun and job.kimg else {}
        speed = f"{last['Timing/sec_per_kimg']:.1f} s/kimg" if last else ""
        state = "scored" if (job.name, job.seed) in scored else f"{last.get('Progress/kimg', 0):g} of {job.kimg} kimg"
        lines.append(f"{job.key:24} {state:18} {speed}")
    return "\n".join(lines)


@click.command(cls=Command)
@click.option("--out", help="Folder of runs and results.", default="biggan-out", show_default=True, metavar="DIR")
@click.option("--train-data", help="Training images: an IDX file (.gz) beside its labels, or a zip of dataset_tool.py.",
              default=DEBIAN, show_default=True, metavar="PATH")
@click.option("--test-data", help="Images to score against, likewise.", default=TEST_DATA, show_default=True,
              metavar="PATH")
@click.option("--detector", help="Feature detector and classifier.", default=DETECTOR, show_default=True,
              metavar="PATH")
@click.option("--teacher-kimg", help="Length of the teacher's training.", type=click.IntRange(min=1), default=100,
              show_default=True)
@click.option("--student-kimg", help="Length of every student's training.", type=click.IntRange(min=1), default=50,
              show_default=True)
@click.option("--seeds", help="Number of seeds of every student.", type=click.IntRange(min=1), default=2,
              show_default=True)
@click.option("--num-gen", help="Images to score each network with.", type=click.IntRange(min=20), default=10000,
              show_default=True)
@click.option("--only", help="Students by name or folder, with * and ?, and commas between them.", type=CommaList(),
              default="none", metavar="LIST")
@click.option("--time-budget", help="Stop after that many minutes.", type=click.FloatRange(min=0), metavar="MIN")
@click.option("--list", "show", help="Show the runs and how far they are.", is_flag=True)
@click.option("--report", "make_report", help="Write table and data of what is done.", is_flag=True)
@click.option("--rows", help="Rows to report on; repeatable.", show_default="results.jsonl in --out", multiple=True,
              metavar="JSONL")
@click.option("--dest", help="Where the report goes.", show_default="the folder of --out", metavar="DIR")
def main(**options: Any) -> None:
    """Train and compress a BigGAN on Fashion-MNIST, or resume; list the runs; report on them."""
    teacher, *students = jobs(options["teacher_kimg"], options["student_kimg"], options["seeds"])
    todo = [teacher, *selected(students, options["only"])]
    out = Path(options["out"]).absolute()
    if options["show"]:
        click.echo(overview(todo, out))
    elif options["make_report"]:
        for path in write(execution.rows_to_report(options["rows"], out), Path(options["dest"] or out)):
            click.echo(path)
    else:
        _work(todo, out, options)


def _work(todo: Sequence[Job], out: Path, options: dict[str, Any]) -> None:
    deadline = None if options["time_budget"] is None else time.monotonic() + 60 * options["time_budget"]
    inputs = {}
    for name in ("train_data", "test_data", "detector"):
        inputs[name] = Path(options[name]).absolute()
        if not inputs[name].is_file():
            raise UserError(f"--{name.replace('_', '-')}: {options[name]}: no such file")
    settings = {
        "teacher_kimg": options["teacher_kimg"],
        "student_kimg": options["student_kimg"],
        "sha256": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in inputs.values()},
    }
    detectors = [inputs["detector"]]
    try:
        with execution.Workshop(out, settings, out, detectors, options["num_gen"], deadline) as shop:
            bench = Bench(shop, options["num_gen"])
            train, test = (shop.data(name, inputs[f"{name}_data"]) for name in ("train", "test"))
            for number, job in enumerate(todo, 1):
                click.secho(f"[{number}/{len(todo)}] {job.key}", bold=True)
                network = bench.network(job, train)
                bench.teacher = bench.teacher or network
                bench.score(job, network, test)
    except execution.OutOfTime:
        click.echo("Stopped; the same command resumes from here.")
        return
    click.echo("All runs are done.")


if __name__ == "__main__":
    main()
