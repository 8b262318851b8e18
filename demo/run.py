"""The demo: a trained network is sliced to half its width, refitted, distilled without data, scored, and drawn.

    python -m demo.run

Runs the command lines of this project as a user would, and prints each. What an earlier call has finished is not done
again; interrupted training resumes.
"""
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import click

from dnnlib.cli import Command
from dnnlib.errors import UserError
from dnnlib.files import write_json_atomic
from dnnlib.util import format_time

ROOT = Path(__file__).resolve().parent.parent
DATA = Path("demo/data/t10k-images-idx3-ubyte.gz")
TEACHER = Path("demo/teacher/fmnist32.pkl")
DETECTOR = Path("metrics/detectors/clothing32.pt")
TEST_RANGE = "8000:"  # of the images, to score against
SEEDS = "0-11"
WIDTH = "--width=0.5"
SLICES = {  # network → options of prune_init.py; both keep the same channels
    "sliced": ("--score=reconstruct", "--no-refit"),
    "refitted": (),
}


@dataclass
class Demo:
    """One output folder and what has been done in it."""

    out: Path
    kimg: int
    num_gen: int
    seconds: dict[str, float] = field(default_factory=dict)  # step → how long it took

    def open(self) -> None:
        """Makes the folder, or resumes in that of an earlier call with the same settings.

        Raises:
            UserError: the folder holds something else.
        """
        settings = {
            "kimg": self.kimg,
            "num_gen": self.num_gen,
            "slices": {name: list(options) for name, options in SLICES.items()},
            "sha256": {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in (DATA, TEACHER, DETECTOR)},
        }
        record = self.out / "settings.json"
        if record.is_file() and json.loads(record.read_text()) != settings:
            click.echo(f"{self.out} was made with other settings or inputs: starting over.")
            shutil.rmtree(self.out)
        elif self.out.is_dir() and any(self.out.iterdir()) and not record.is_file():
            raise UserError(f"--out: {self.out} holds files that are not the demo's; name a new folder")
        self.out.mkdir(parents=True, exist_ok=True)
        write_json_atomic(record, settings)
        if (self.out / "seconds.json").is_file():
            self.seconds = json.loads((self.out / "seconds.json").read_text())

    def step(self, name: str, title: str, result: Path, work: Callable[[], object]) -> None:
        """Does one step and notes how long it took, unless its result is there."""
        click.secho(f"\n== {title}", bold=True)
        if name in self.seconds and result.exists():
            click.echo(f"{result} is there already.")
            return
        start = time.monotonic()
        work()
        self.seconds[name] = round(time.monotonic() - start, 1)
        write_json_atomic(self.out / "seconds.json", self.seconds)

    def run(self, *command: str) -> str:
        """Prints and runs one command line; returns what it wrote to stdout, which is shown as well.

        Raises:
            UserError: it failed; it has said why.
        """
        click.echo(f"$ python {shlex.join(command)}")
        env = {**os.environ, "DNNLIB_CACHE_DIR": str(self.out.resolve() / "cache"), "PYTHONUNBUFFERED": "1"}
        lines = []
        with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True, env=env) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    click.echo(line, nl=False)
                    lines.append(line)
            except KeyboardInterrupt:  # the command receives it too and may have work to save
                process.wait()
                raise
        if process.returncode != 0:
            raise UserError(f"{command[0]} ended with exit status {process.returncode}")
        return "".join(lines)


def make_data(demo: Demo) -> Path:
    """Converts the part of the embedded images that the scores compare with; nothing is trained on any."""
    dest = demo.out / "test.zip"
    demo.step(
        "data",
        f"Data: images {TEST_RANGE} for the scores",
        dest,
        lambda: demo.run("dataset_tool.py", f"--source={DATA}", f"--range={TEST_RANGE}", f"--dest={dest}"),
    )
    return dest


def make_slice(demo: Demo, name: str) -> Path:
    """Slices the teacher, plainly or with a refit."""
    dest = demo.out / f"{name}.pkl"
    demo.step(
        name,
        f"Student: half of the teacher's channels, {name}",
        dest,
        lambda: demo.run("prune_init.py", f"--teacher={TEACHER}", WIDTH, *SLICES[name], f"--dest={dest}"),
    )
    return dest


def train_student(demo: Demo) -> Path:
    """Distils the teacher into a refitted slice, without data."""
    runs = demo.out / "runs"
    begun = sorted(runs.glob("*/training_options.json"))
    name = f"network-snapshot-{demo.kimg:06d}.pkl"

    def work() -> None:
        if begun:
            demo.run("train.py", f"--resume={begun[-1].parent}")
        else:
            demo.run("train.py", "--cfg=dgl", f"--teacher={TEACHER}", WIDTH, f"--outdir={runs}", f"--kimg={demo.kimg}")

    expected = begun[-1].parent / name if begun else runs / name
    demo.step("train", f"Distillation: {demo.kimg},000 images of the teacher", expected, work)
    return sorted(runs.glob(f"*/{name}"))[-1]


def score(demo: Demo, who: str, network: Path, data: Path) -> dict[str, float]:
    """Scores one network against the images that no network was trained on."""
    dest = demo.out / f"scores-{who}.json"

    def work() -> None:
        output = demo.run(
            "calc_metrics.py", f"--network={network}", "--metrics=fid50k_full,pr50k3_full,agreement", f"--data={data}",
            f"--detector={DETECTOR}", f"--teacher={TEACHER}", f"--num-gen={demo.num_gen}",
        )  # fmt: skip
        results = [json.loads(line)["results"] for line in output.splitlines() if line.startswith("{")]
        write_json_atomic(dest, {key.split("@")[0]: value for row in results for key, value in row.items()})

    demo.step(f"score_{who}", f"Scores: {who}", dest, work)
    return json.loads(dest.read_text())


def draw_samples(demo: Demo, who: str, network: Path) -> Path:
    """Generates the images of the same seeds with one network."""
    dest = demo.out / "images" / who
    demo.step(
        f"images_{who}",
        f"Images: {who}",
        dest,
        lambda: demo.run("generate.py", f"--network={network}", f"--seeds={SEEDS}", "--batch=12", f"--outdir={dest}"),
    )
    return dest


@click.command(cls=Command)
@click.option("--out", help="Output folder.", default="demo-out", show_default=True, metavar="DIR")
@click.option("--kimg", help="Length of distillation in thousands of images.", type=click.IntRange(min=1), default=25,
              show_default=True, metavar="INT")
@click.option("--num-gen", help="Images to score each network with.", type=click.IntRange(min=2), default=2000,
              show_default=True, metavar="INT")
def main(out: str, kimg: int, num_gen: int) -> None:
    """Compress the embedded network to half its width: slice, refit, distil, score, draw."""
    from demo import report

    folder = Path(out).absolute()
    os.chdir(ROOT)
    start = time.monotonic()
    demo = Demo(folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder, kimg, num_gen)
    try:
        demo.open()
        test_data = make_data(demo)
        slices = {name: make_slice(demo, name) for name in SLICES}
        networks = {"teacher": TEACHER, **slices, "distilled": train_student(demo)}
        scores = {who: score(demo, who, path, test_data) for who, path in networks.items()}
        folders = {who: draw_samples(demo, who, path) for who, path in networks.items()}
    except KeyboardInterrupt:
        raise UserError("interrupted; the same command resumes from here") from None
    costs = json.loads((demo.out / "sliced.cost.json").read_text())["costs"]
    rows = report.rows(costs, scores)
    text = report.table(rows, num_gen, kimg)
    report.draw(folders, {row["network"]: row["params"] for row in rows}, demo.out / "images.png")
    write_json_atomic(demo.out / "results.json", {"networks": rows, "kimg": kimg, "num_gen": num_gen,
                                                  "seconds": demo.seconds})
    (demo.out / "results.md").write_text(text, encoding="utf-8")
    click.secho("\n== Result", bold=True)
    click.echo(text)
    click.echo(f"{demo.out}/images.png, results.md, results.json; this call took "
               f"{format_time(time.monotonic() - start)}.")


if __name__ == "__main__":
    main()
