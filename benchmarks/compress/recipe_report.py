"""The document on the study of recipes."""
import json
from collections.abc import Collection, Sequence
from pathlib import Path

from dnnlib.files import open_atomic

from . import recipe_pictures, tables
from .recipe_table import EMA_SHARE, GAME_SHARE, OURS, groups, order, pairs
from .report import generated, wrapped
from .tables import Column, Columns, Row

FINDINGS = "## Findings\n"  # what stands below, in a document that is written again, is kept
_EMPTY = "\nNot written yet.\n\n"


def columns(rows: Sequence[Row]) -> Columns:
    """What the rows were measured by: distances, precision, recall, agreement, distances within classes."""
    detectors = list(dict.fromkeys(row["detector"] for row in rows))
    possible = {f"fd@{name}": Column(f"fd@{name} ↓", 2 if number == 0 else 1) for number, name in enumerate(detectors)}
    for name in detectors:
        possible |= {f"intra_fd@{name}": Column(f"fd within classes, {name} ↓", 2)}
    for name in detectors[:1]:
        possible |= {f"precision@{name}": Column("precision ↑", 3), f"recall@{name}": Column("recall ↑", 3)}
    possible |= {"agreement_psnr": Column("PSNR, dB ↑", 2), "agreement_ssim": Column("SSIM ↑", 3),
                 "agreement_distance@D": Column("distance by D ↓", 3)}
    measured = {metric for row in rows for metric in row["results"]}
    return {metric: column for metric, column in possible.items() if metric in measured}


def _lengths(rows: Sequence[Row]) -> str:
    """The training lengths of one name."""
    return " or ".join(str(kimg) for kimg in sorted({row["kimg"] for row in rows}))


def markdown(rows: Sequence[Row], name: str, findings: str = _EMPTY, drawn: Collection[str] = ()) -> str:
    """The whole document.

    Args:
        rows: in order.
        name: of the document.
        findings: the text below that heading.
        drawn: the groups that have a picture.
    """
    settings = rows[-1]["settings"]
    reals = max(row["protocol"].get("num_real", 0) for row in rows)
    shown = columns(rows)
    paired = {metric: column for metric, column in shown.items()
              if metric.startswith(("fd@", "intra_fd@")) or metric in ("agreement_psnr", "agreement_distance@D")}
    extra = {"kimg": _lengths, "processor s": tables.median_of(lambda row: row.get("cpu_sec"))}
    pictures = {group: f"![{heading}]({recipe_pictures.file_name(name, group)})\n\n"
                       f"{wrapped(recipe_pictures.caption(rows, group))}\n\n"
                for group, heading in groups().items() if group in drawn}
    sections = "\n".join(f"## {heading}\n\n{pictures.get(group, '')}{tables.results(rows, group, shown, extra)}"
                         for group, heading in groups().items() if any(row["group"] == group for row in rows))
    made_by = (f"Made by `python -m benchmarks.emoji64_recipes --report --name={name} "
               f"--rows=docs/results/{name}.jsonl --dest=docs/results`; the file holds every row with its arguments "
               "and protocol. All recipes run in this code base, with the same networks and batches. Games "
               "(adversarial training) have the preset's learning rates, but for the rows that name a tenth of the "
               f"rates and for ours with a short game: the last {100 * GAME_SHARE:g} % of its length, but at least 1 "
               "kimg, are a game at a tenth of the rates. [recipes.md](../recipes.md) says where recipes differ from "
               "their papers.")
    budgets = (f"Every training has {settings['kimg']} thousand images where images are equal. Where processor time is "
               f"equal, it is that of the row \"{OURS}\" with as many images, scores of channels and start of the "
               "program included; if that budget ends before a training's first step, its length is 1 kimg. "
               "Lengths are whole kimg, chosen by seed 0, so what was used differs from the budget: the last column "
               "has it. What begins with a game is then a snapshot of the longer run with equal images; of DGL from "
               "random weights, whose teacher joins after half of that run, it has next to nothing of the teacher. "
               "The moving average of a game has a half-life of "
               f"{100 * EMA_SHARE:g} % of the length with equal images, for the preset's would hardly move in so short "
               "a time; that of distillation has the usual 50 steps.")
    scored = (f"Scored against {reals:,} test images with {generated(rows)}; agreement compares 1,000 pairs of images "
              "of student and teacher on the same latents. Rows are mean ± standard error over seeds of the training. "
              "`fd@NAME` is the Fréchet distance in the features of the detector NAME; it is not FID. Precision "
              "and recall depend on the number of images: they compare only within a table. A PSNR of 100 dB is the "
              "cap, for equal images. Processor seconds are the median over seeds, of one thread on a machine that may "
              "have done other work too.")
    paired_by = ("Ours less the other; elastic less separate. Paired by seed; negative distances are better. Beside "
                 "each stands the smallest effect that a paired t-test of as many equally scattered pairs would find "
                 "(5 %, power 80 %): what is smaller than that could not have been seen.")
    title = f"# Recipes in one table: {settings['teacher']}, {settings['resolution']} px"
    return "\n\n".join([
        title, *map(wrapped, (made_by, budgets, scored)), f"{FINDINGS}{findings}{sections}\n## Differences",
        wrapped(paired_by), _differences(rows, paired)])


def _differences(rows: Sequence[Row], columns: Columns) -> str:
    """The paired differences, one table per table of results that has both sides of some pair."""
    parts = []
    for group, heading in groups().items():
        names = {row["name"] for row in rows if row["group"] == group}
        own = [pair for pair in pairs() if names.issuperset(pair)]
        if own:
            parts.append(f"### {heading}\n\n{tables.differences(rows, own, columns)}")
    return "\n".join(parts or [tables.differences(rows, (), columns)])


def findings_in(path: Path) -> str:
    """What stands below the heading of findings in an earlier document; a placeholder if there is none."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return text.split(FINDINGS)[1].split("## ")[0] if FINDINGS in text else _EMPTY


def write(rows: Sequence[Row], dest: Path, name: str) -> list[Path]:
    """Writes the document and the rows; findings that people have written into the document stay."""
    rows = order(rows)
    dest.mkdir(parents=True, exist_ok=True)
    findings = findings_in(dest / f"{name}.md")
    drawn = [group for group in groups() if (dest / recipe_pictures.file_name(name, group)).is_file()]
    contents = {f"{name}.md": markdown(rows, name, findings, drawn),
                f"{name}.jsonl": "".join(json.dumps(row) + "\n" for row in rows)}
    for file_name, text in contents.items():
        with open_atomic(dest / file_name, "w") as file:
            file.write(text)
    return [dest / file_name for file_name in contents]
