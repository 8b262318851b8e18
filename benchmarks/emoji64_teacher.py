"""Trains the teacher of emoji64, a StyleGAN2 of 64 px, on the CPU, and scores it by two detectors.

    python -m benchmarks.emoji64 --dest=emoji64.zip
    nohup python -m benchmarks.emoji64_teacher --out=emoji64-out --data=emoji64.zip --test-data=emoji64-test.zip \\
        --detector=efficientnet-lite0.pt --detector=open-nsfw.pt > emoji64.log &
    python -m benchmarks.emoji64_teacher --out=emoji64-out --list

The network that the first 95 kimg gave is kept: --start=benchmarks/emoji64/teacher.safetensors --start-kimg=95
continues from its weights.

It can be stopped at any moment (Ctrl-C, SIGTERM, --time-budget) and given again: what is done is not done again, and a
training that was interrupted resumes bit-exactly (unless --gpus has changed). Every 100 kimg the first detector scores
the network; training ends at 400 kimg, or when the distance has fallen by less than 2 % since the stage before. Then
the other detectors score it. With --labels a second network that knows the vendors is trained for 50 kimg, from the
weights of the first, and its distances within classes are scored too.
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
from dnnlib.cli import Command
from dnnlib.errors import UserError
from dnnlib.files import append_line

STAGE_KIMG, STAGES = 100, 4
LABELS_KIMG = 50  # of the network that knows the vendors; it starts as the teacher, whose images it makes at first
LEAST_GAIN = 0.02  # of the distance per stage
# Widths min(2048 / resolution, 128). Small batches make more steps of the images that a CPU has time for: by the
# first detector, 95 kimg in batches of 8 came further than 200 kimg in batches of 16. Gamma is the preset's for this
# batch, 0.0002 * 64**2 / 8.
ARGUMENTS = ("--cfg=auto", "--cbase=2048", "--cmax=128", "--z-dim=128", "--w-dim=128", "--batch=8", "--gamma=0.1",
             "--mirror=true", "--aug=ada", "--metrics=none", "--workers=0", "--tick=1")


@dataclasses.dataclass(frozen=True)
class Job:
    """One network that is trained and scored.

    Args:
        name: of its folder and rows.
        cond: whether it knows the vendors.
        start_kimg: thousands of images that the network it starts from has seen; they count as its own.
    """

    name: str
    cond: bool
    start_kimg: int = 0

    @property
    def stages(self) -> tuple[int, ...]:
        """Lengths in kimg at which it is scored."""
        ends = (LABELS_KIMG,) if self.cond else tuple(STAGE_KIMG * (stage + 1) for stage in range(STAGES))
        return tuple(end for end in ends if end > self.start_kimg)

    @property
    def arguments(self) -> tuple[str, ...]:
        """What train.py is given, besides files, length and snapshots."""
        return *ARGUMENTS, f"--cond={str(self.cond).lower()}"


def jobs(labels: bool, start_kimg: int = 0) -> list[Job]:
    """In the order of work. `start_kimg`: of the teacher."""
    return [Job("teacher", cond=False, start_kimg=start_kimg), *([Job("teacher-labels", cond=True)] if labels else [])]


def gained_little(distances: Sequence[float]) -> bool:
    """Whether the last of the stages with these distances gained too little for another."""
    return len(distances) > 1 and distances[-1] > (1 - LEAST_GAIN) * distances[-2]


class Bench:
    """Trains and scores in a folder.

    Args:
        shop: runs the commands.
        data: images to train on.
        test_data: images to score against.
        snap: thousands of images between snapshots; the state is saved as often.
        gpus: processes that share a batch.
    """

    def __init__(self, shop: execution.Workshop, data: Path, test_data: Path, snap: int, gpus: int) -> None:
        self.shop, self.data, self.test_data = shop, data, test_data
        self.free = (f"--snap={snap}", f"--gpus={gpus}")

    def run(self, job: Job, start: Path | None = None) -> Path:
        """Stage by stage until the last or until `gained_little`, then the scores of the last network, which is
        returned. `start`: network whose weights it starts from, or None for random ones.
        """
        distances: list[float] = []
        for kimg in job.stages:
            network = self.train(job, kimg, start)
            distances.append(self.score(job, network, kimg, self.shop.detectors[0]))
            if gained_little(distances):
                break
        for detector in self.shop.detectors[1:]:
            self.score(job, network, kimg, detector)
        return network

    def train(self, job: Job, kimg: int, start: Path | None) -> Path:
        """The network after a stage, trained as far as it is not yet."""
        folder = self.shop.out / "runs" / job.name
        length = kimg - job.start_kimg
        last = f"network-snapshot-{length:06d}.pkl"
        begun = execution.run_dir(folder)
        if begun is None:
            self.shop.command("train.py", *job.arguments, f"--data={self.data}", f"--kimg={length}", *self.free,
                              *([] if start is None else [f"--resume={start}"]), f"--outdir={folder}")
        elif not (begun / last).is_file():
            self.shop.command("train.py", f"--resume={begun}", f"--kimg={length}", *self.free)
        run_dir = execution.run_dir(folder)
        assert run_dir is not None
        return run_dir / last

    def score(self, job: Job, network: Path, kimg: int, detector: Path) -> float:
        """The Fréchet distance of a network; adds its row unless it is there."""
        key = f"fd@{detector.stem}"
        for row in self.shop.rows():
            if (row["name"], row["kimg"], row["detector"]) == (job.name, kimg, detector.stem):
                return float(row["results"][key])
        common = [f"--network={network}", f"--data={self.test_data}", f"--detector={detector}",
                  f"--num-gen={self.shop.num_gen}"]
        output = self.shop.command("calc_metrics.py", *common, "--metrics=fid50k_full,pr50k3_full", "--verbose=false")
        records = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        results = {name: value for line in records for name, value in line["results"].items()}
        if job.cond:
            classes = json.loads(self.shop.command("-m", "benchmarks.compress.classes", *common))
            results |= {"intra_fd": classes["intra_fd"], "intra_fd_by_class": classes["per_class"]["intra_fd"]}
        provenance = json.loads((network.parent / "training_options.json").read_text()).get("provenance", {})
        row = {
            "name": job.name, "kimg": kimg, "detector": detector.stem, "results": results,
            "protocol": records[0]["protocol"], "arguments": list(job.arguments), "settings": self.shop.settings,
            "provenance": {name: value for name, value in provenance.items() if name != "command"},
            "training": execution.statistics_at(network.parent / "stats.jsonl", kimg - job.start_kimg),
        }
        append_line(self.shop.results, json.dumps(row))
        return float(results[key])


def recorded_start_kimg(out: Path) -> int:
    """What `start_kimg` was when the folder was made; 0 if there is none yet."""
    record = out / "settings.json"
    return int(json.loads(record.read_text()).get("start_kimg", 0)) if record.is_file() else 0


def overview(todo: Sequence[Job], out: Path) -> str:
    """Per network how far it is, and its scores."""
    rows = execution.read_rows(out / "results.jsonl")
    lines = []
    for job in todo:
        begun = execution.run_dir(out / "runs" / job.name)
        last = execution.statistics_at(begun / "stats.jsonl", job.stages[-1] - job.start_kimg) if begun else {}
        speed = f"{last['Timing/sec_per_kimg']:.1f} s/kimg" if last else ""
        at = f"{job.start_kimg + last.get('Progress/kimg', 0):g} of at most {job.stages[-1]} kimg"
        lines.append(f"{job.name:16} {at:26} {speed}".rstrip())
        lines += [f"    {row['kimg']} kimg  fd@{row['detector']} {row['results']['fd@' + row['detector']]:.2f}"
                  for row in rows if row["name"] == job.name]
    return "\n".join(lines)


@click.command(cls=Command)
@click.option("--out", help="Folder of runs and results.", default="emoji64-out", show_default=True, metavar="DIR")
@click.option("--data", help="Images to train on, made by benchmarks/emoji64.", default="emoji64.zip",
              show_default=True, metavar="PATH")
@click.option("--test-data", help="Images to score against, likewise.", default="emoji64-test.zip", show_default=True,
              metavar="PATH")
@click.option("--detector", "detectors", help="Feature detector; repeatable. The first decides when training ends.",
              show_default="efficientnet-lite0.pt and open-nsfw.pt", multiple=True, metavar="PATH")
@click.option("--start", help="Network to start from, such as one that a lost training left.",
              show_default="random weights", metavar="PATH")
@click.option("--start-kimg", help="Thousands of images that --start has seen; they count.",
              type=click.IntRange(min=0, max=STAGE_KIMG * STAGES - 1), default=0, show_default=True)
@click.option("--num-gen", help="Images to score each network with.", type=click.IntRange(min=2), default=10000,
              show_default=True)
@click.option("--snap", help="Thousands of images between saved states; may change when resuming.",
              type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--gpus", help="Processes that share a batch, on the CPU too; may change when resuming.",
              type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--labels", help="Train a network that knows the vendors afterwards.", is_flag=True)
@click.option("--time-budget", help="Stop after that many minutes.", type=click.FloatRange(min=0), metavar="MIN")
@click.option("--list", "show", help="Show the networks and how far they are.", is_flag=True)
def main(**options: Any) -> None:
    """Train and score the teacher of emoji64, or resume; list what is done."""
    out = Path(options["out"]).absolute()
    if options["show"]:
        click.echo(overview(jobs(options["labels"], recorded_start_kimg(out)), out))
        return
    if options["start_kimg"] and options["start"] is None:
        raise UserError("--start-kimg: name the network that has seen them with --start")
    todo = jobs(options["labels"], options["start_kimg"])
    deadline = None if options["time_budget"] is None else time.monotonic() + 60 * options["time_budget"]
    data, test_data = Path(options["data"]).absolute(), Path(options["test_data"]).absolute()
    names = options["detectors"] or ["efficientnet-lite0.pt", "open-nsfw.pt"]
    detectors = [Path(name).absolute() for name in names]
    start = None if options["start"] is None else Path(options["start"]).absolute()
    kept = [] if start is None else [("start", start)]
    for flag, path in (("data", data), ("test-data", test_data), *kept, *(("detector", path) for path in detectors)):
        if not path.is_file():
            raise UserError(f"--{flag}: {path}: no such file")
    files = {"data": data, "test_data": test_data, **dict(kept)}
    settings: dict[str, Any] = {"sha256": {name: hashlib.sha256(path.read_bytes()).hexdigest()
                                           for name, path in files.items()}}
    if start is not None:
        settings["start_kimg"] = options["start_kimg"]
    try:
        with execution.Workshop(out, settings, out, detectors, options["num_gen"], deadline) as shop:
            bench = Bench(shop, data, test_data, options["snap"], options["gpus"])
            network = start
            for number, job in enumerate(todo, 1):
                click.secho(f"[{number}/{len(todo)}] {job.name}", bold=True)
                network = bench.run(job, network)
    except execution.OutOfTime:
        click.echo("Stopped; the same command resumes from here.")
        return
    click.echo("All runs are done.")


if __name__ == "__main__":
    main()
