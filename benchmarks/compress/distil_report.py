"""The document on the experiments with distillation."""
import json
from collections.abc import Sequence
from pathlib import Path

from dnnlib.files import open_atomic

from . import tables
from .distil_table import DISTIL_KIMG, FEW, GAME_KIMG, GROUPS, GUIDED_BASE, SCORES, jobs
from .report import generated, wrapped
from .tables import Column, Row

COLUMNS = {  # key of a row's results → column
    "fd@clothing32": Column("fd@clothing32 ↓", 2),
    "fd@efficientnet-lite0": Column("fd@efficientnet-lite0 ↓", 1),
    "precision@clothing32": Column("precision ↑", 3),
    "recall@clothing32": Column("recall ↑", 3),
    "agreement_psnr": Column("PSNR, dB ↑", 2),
    "agreement_ssim": Column("SSIM ↑", 3),
    "agreement_distance@D": Column("distance by D ↓", 3),
}
PAIRED = ("fd@clothing32", "fd@efficientnet-lite0", "agreement_psnr")  # metrics of the table of differences
HEADINGS = {
    "reference": "Teacher",
    "untrained": "Untrained slices",
    "length": "Distillation by its length, width 1/2",
    "quarter": "Width 1/4",
    "start": "Distillation from other slices",
    "game": f"A game after distillation of {DISTIL_KIMG} kimg or as long as is said",
    "guidance": f"Other guidance in a game of {GAME_KIMG} kimg after {DISTIL_KIMG} of distillation, real images",
    "few": f"Games of {GAME_KIMG} kimg with few real images, from the refitted slice of width 1/2",
}


def _seconds(row: Row) -> float | None:
    """Seconds of a training, by its speed in the last tick."""
    speed = row.get("training", {}).get("Timing/sec_per_kimg")
    return speed * row["kimg"] if speed else None


def _usual_start(name: str) -> str:
    """The run as long as `name`, WIDTH-SCORE-HOW-distilKIMG, from the slice that is the default."""
    share, *_, length = name.split("-")
    return f"{share}-{length}" if length[-1].isdigit() else f"{share}-{length}{DISTIL_KIMG}"


def pairs() -> list[tuple[str, str]]:
    """(A, B): rows whose difference B - A the document shows."""
    base = f"half-distil{DISTIL_KIMG}"
    named = {group: dict.fromkeys(job.name for job in jobs() if job.group == group) for group in GROUPS}
    few = [(f"few{number}-lambda0", name) for number in FEW for name in named["few"]
           if name.startswith(f"few{number}-") and name != f"few{number}-lambda0"]
    narrow = f"quarter-distil{DISTIL_KIMG}"
    quarter = [(_usual_start(name) if name.split("-")[1] in SCORES else narrow, name) for name in named["quarter"]
               if name != narrow]
    return [(base, "half-distil50"), *quarter,
            *((f"half-distil{name.partition('-after')[2] or DISTIL_KIMG}", name) for name in named["game"]),
            *((_usual_start(name), name) for name in named["start"]),
            *((GUIDED_BASE, name) for name in named["guidance"]), *few]


def markdown(rows: Sequence[Row]) -> str:
    """The whole document."""
    reals = max(row["protocol"].get("num_real", 0) for row in rows)
    extra = {"seconds": tables.median_of(_seconds)}
    sections = "\n".join(f"## {HEADINGS[group]}\n\n{tables.results(rows, group, COLUMNS, extra)}" for group in GROUPS
                         if any(row["group"] == group for row in rows))
    made_by = ("Made by `python -m benchmarks.distil_fmnist --report --rows=docs/results/distil_fmnist.jsonl "
               "--dest=docs/results`; the file holds every row with its arguments and protocol. No real image takes "
               "part in the training, but in games (adversarial training) whose title says so.")
    scored = (f"Scored against {reals:,} test images with {generated(rows)}; agreement compares 1,000 pairs of images "
              "of student and teacher on the same latents. Rows are mean ± standard error over seeds of the training. "
              "Slices keep the channels chosen by `reconstruct` unless another score is named. `fd@NAME` is the "
              "Fréchet distance in the features of the detector NAME; it is not FID. Precision and recall depend on "
              "the number of images: they compare only within this page. A PSNR of 100 dB is the cap, for equal "
              "images. The seconds are those of the training, the median over seeds, of one thread on a machine that "
              "did other work too: they compare rows, not machines.")
    return f"""# Distillation of the demo's teacher without data, 32 px, CPU

{wrapped(made_by)}

{wrapped(scored)}

{sections}
## Differences

Paired by seed; negative distances are better. Beside each stands the smallest effect that a paired t-test of as many
equally scattered pairs would find (5 %, power 80 %): what is smaller than that could not have been seen.

{tables.differences(rows, pairs(), {metric: COLUMNS[metric] for metric in PAIRED})}"""


def in_order(rows: Sequence[Row]) -> list[Row]:
    """Rows in the order of the table of experiments, whatever the order of work was; others behind them."""
    rank = {(job.name, job.seed): i for i, job in enumerate(jobs())}
    return sorted(rows, key=lambda row: rank.get((row["name"], row["seed"]), len(rank)))


def write(rows: Sequence[Row], dest: Path) -> list[Path]:
    """Writes the document and the rows."""
    rows = in_order(rows)
    dest.mkdir(parents=True, exist_ok=True)
    contents = {"distil_fmnist.md": markdown(rows),
                "distil_fmnist.jsonl": "".join(json.dumps(row) + "\n" for row in rows)}
    for name, text in contents.items():
        with open_atomic(dest / name, "w") as file:
            file.write(text)
    return [dest / name for name in contents]
