"""An overview of the work, and the table, plot and data of the results that go into the documents."""
import json
import math
import statistics
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy.special import stdtrit  # quantiles of the t distribution; scipy.stats takes a second to import

from dnnlib.files import open_atomic

from . import plot
from .execution import read_rows, run_dir, statistics_at
from .table import EXPLORATORY_KIMG, HEADLINE_KIMG, Run, runs

Row = dict[str, Any]
Value = tuple[float, float | None, int]  # mean, standard error (None of a single seed), seeds
PAIRS = (("half-l1-lambda0", "half-l1-lambda0.1", HEADLINE_KIMG),
         ("half-scratch-lambda0", "half-scratch-lambda0.1", HEADLINE_KIMG),
         ("half-scratch-lambda0", "half-l1-lambda0", HEADLINE_KIMG),
         ("full-continued", "full-boosted", HEADLINE_KIMG),
         ("half-l1-lambda0", "half-l1-kd-feature", EXPLORATORY_KIMG),
         ("half-l1-lambda0.1", "half-l1-kd-feature", EXPLORATORY_KIMG),
         *(("half-diversity-lambda0", f"half-diversity-{other}", EXPLORATORY_KIMG)
           for other in ("lambda0.1", "kd-feature-lambda0", "kd-feature-lambda0.1")),
         ("quarter-diversity-lambda0", "quarter-diversity-lambda0.1", EXPLORATORY_KIMG))
ALPHA, POWER = 0.05, 0.8  # of the smallest effect that could have been found
GRID_STARTS = ("scratch", "first", "l1", "content", "diversity")
GRID_COLUMNS = tuple((f"width {share}, {label}", f"{width}-{{}}-{end}")
                     for width, share in (("half", "1/2"), ("quarter", "1/4"))
                     for label, end in (("λ 0", "lambda0"), ("λ 0.1", "lambda0.1"),
                                        ("λ 0.1, two stages", "two-stages")))
DIAGNOSTICS = {
    "D on reals": "Loss/signs/real",
    "D on fakes": "Loss/signs/fake",
    "teacher on reals": "Loss/teacher/signs/real",
    "teacher on fakes": "Loss/teacher/signs/fake",
    "teacher's logit, fakes": "Loss/teacher/scores/fake",
    "gradient share": "Loss/teacher/gradient_share",
}


def overview(todo: Sequence[tuple[Run, int]], out: Path) -> str:
    """One line for every row and seed: length, what is done; then the time left at the speed measured so far."""
    scored = {(row["name"], row["seed"], row["kimg"]) for row in read_rows(out / "results.jsonl")}
    lines, kimg_left, speeds = [], 0.0, []
    for run, seed in todo:
        done, speed = progress(out / "runs" / f"{run.name}-seed{seed}", run)
        if speed:
            speeds.append(speed)
        kimg_left += run.kimg - done
        state = "scored" if (run.name, seed, run.kimg) in scored else f"{done:g} of {run.kimg} kimg"
        lines.append(f"{run.group:12} {run.name:28} seed {seed}  {run.kimg:4} kimg  {state:18} "
                     + " ".join(run.arguments))
    lines.append(f"{len(todo)} runs, {kimg_left:g} kimg to train"
                 + (f", about {kimg_left * statistics.mean(speeds) / 3600:.1f} hours at "
                    f"{statistics.mean(speeds):.1f} s/kimg" if speeds else ""))
    return "\n".join(lines)


def progress(folder: Path, run: Run) -> tuple[float, float | None]:
    """Thousands of images that a run has been trained on by its last status line, and its seconds per thousand."""
    begun = run_dir(folder)
    if begun is None:
        return 0, None
    last = statistics_at(begun / "stats.jsonl", run.kimg)
    done = min(round(last.get("Progress/kimg", 0)), run.kimg)
    return done, last.get("Timing/sec_per_kimg") if done else None


def summary(values: Sequence[float]) -> Value:
    """Mean and its standard error over seeds."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return statistics.mean(values), error, len(values)


def smallest_effect(differences: Sequence[float]) -> float | None:
    """The smallest mean difference that a two-sided paired t-test of as many pairs, equally scattered, would find.

    At a level of 5 %, in 80 % of the cases; by the normal approximation of the power with Student's quantiles. None of
    fewer than two pairs.
    """
    count = len(differences)
    if count < 2:
        return None
    error = statistics.stdev(differences) / count**0.5
    return float((stdtrit(count - 1, 1 - ALPHA / 2) + stdtrit(count - 1, POWER)) * error)


def text_of(value: Value | None, digits: int) -> str:
    """mean ± standard error."""
    if value is None:
        return ""
    mean, error, _ = value
    return f"{mean:.{digits}f}" if error is None else f"{mean:.{digits}f} ± {error:.{digits}f}"


def by_seed(rows: Sequence[Row], name: str, kimg: int, metric: str) -> dict[int, float]:
    """Seed → value of a metric; of a row that was trained more than once, the last."""
    return {row["seed"]: row["results"][metric] for row in rows
            if row["name"] == name and row["kimg"] == kimg and metric in row["results"]}


def metrics_of(rows: Sequence[Row]) -> list[str]:
    """All metrics in the order of the table: distances, precision, recall."""
    names = {metric for row in rows for metric in row["results"]}
    rank = ("fd", "precision", "recall")
    return sorted(names, key=lambda m: (rank.index(m.split("@")[0]) if m.split("@")[0] in rank else len(rank), m))


def _markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines]) + "\n"


def _results(rows: Sequence[Row], keep: Any) -> str:
    metrics = metrics_of(rows)
    lines = []
    for name, title, kimg in dict.fromkeys((row["name"], row["title"], row["kimg"]) for row in rows if keep(row)):
        values = {metric: by_seed(rows, name, kimg, metric) for metric in metrics}
        seeds = max(len(of_seeds) for of_seeds in values.values())
        lines.append([title, str(kimg), str(seeds), *(text_of(summary(list(v.values())) if v else None,
                     2 if metric.startswith("fd") else 3) for metric, v in values.items())])
    arrows = [f"{metric} {'↓' if metric.startswith('fd') else '↑'}" for metric in metrics]
    return _markdown(["run", "kimg", "seeds", *arrows], lines) if lines else "None yet.\n"


def _differences(rows: Sequence[Row]) -> str:
    """B - A over the seeds that both have, for each pair (A, B, length)."""
    titles = {row["name"]: row["title"] for row in rows}
    lines = []
    for a, b, kimg in PAIRS:
        cells, shared = [], 0
        for metric in metrics_of(rows):
            left, right = (by_seed(rows, name, kimg, metric) for name in (a, b))
            both = sorted(left.keys() & right.keys())
            shared = max(shared, len(both))
            digits = 2 if metric.startswith("fd") else 3
            differences = [right[seed] - left[seed] for seed in both]
            effect = smallest_effect(differences)
            cells.append(text_of(summary(differences) if differences else None, digits)
                         + ("" if effect is None else f" ({effect:.{digits}f})"))
        if shared:
            lines.append([f"{titles[b]} against {titles[a]}", str(kimg), str(shared), *cells])
    return _markdown(["difference", "kimg", "seeds", *metrics_of(rows)], lines) if lines else "None yet.\n"


def _grid(rows: Sequence[Row], metric: str) -> str:
    """Starts of students against kinds of training: one metric of seed 0 after the exploratory length."""
    lines = []
    for start in GRID_STARTS:
        distances = [by_seed(rows, name.format(start), EXPLORATORY_KIMG, metric).get(0) for _, name in GRID_COLUMNS]
        lines.append([start, *("" if value is None else f"{value:.2f}" for value in distances)])
    return _markdown(["start", *(title for title, _ in GRID_COLUMNS)], lines)


def _repeats(rows: Sequence[Row]) -> str:
    """Rows of the same command and seed: every training's distances, in the order of work."""
    distances: dict[tuple[str, int, str], list[str]] = {}
    for row in rows:
        for metric, value in row["results"].items():
            if metric.startswith("fd@"):
                key = (f"{row['title']}, seed {row['seed']}", row["kimg"], metric)
                distances.setdefault(key, []).append(f"{value:.2f}")
    lines = [[title, str(kimg), metric, ", ".join(values)]
             for (title, kimg, metric), values in distances.items() if len(values) > 1]
    return _markdown(["run", "kimg", "distance", "values"], lines) if lines else "None.\n"


def _diagnostics(rows: Sequence[Row]) -> str:
    lines = []
    trained = [row for row in rows if row.get("training")]
    last = {name: max(r["kimg"] for r in trained if r["name"] == name) for name in {r["name"] for r in trained}}
    for name, title in dict.fromkeys((row["name"], row["title"]) for row in trained):
        statistics = {
            row["seed"]: row["training"] for row in trained if row["name"] == name and row["kimg"] == last[name]
        }
        cells = []
        for key in DIAGNOSTICS.values():
            values = [t[key] for t in statistics.values() if key in t]
            cells.append(text_of(summary(values), 2) if values else "")
        lines.append([title, str(last[name]), *cells])
    return _markdown(["run", "kimg", *DIAGNOSTICS], lines) if lines else "None yet.\n"


def markdown(rows: Sequence[Row]) -> str:
    """The whole document."""
    reals = sorted({row["protocol"].get("num_real", 0) for row in rows})
    short = {HEADLINE_KIMG, 0}
    distances = [metric for metric in metrics_of(rows) if metric.startswith("fd@")]
    made_by = ("Made by `python -m benchmarks.compress_fmnist --report --rows=docs/results/compress_fmnist.jsonl "
               "--dest=docs/results`; the file holds every row with its arguments and protocol.")
    scored = (f"Trained on the 60,000 training images, scored against {_list(reals)} test images with "
              f"{generated(rows)}. Rows are mean ± standard error over seeds. `fd@NAME` is the Fréchet distance "
              "in the features of the detector NAME; it is not FID and compares only with rows made with the same "
              "file. Lengths are equal numbers of images; λ is the weight of the teacher's term.")
    return f"""# Compression of the demo's teacher on Fashion-MNIST, 32 px, CPU

{wrapped(made_by)}

{wrapped(scored)}

![Distances](compress_fmnist.svg)

## Headline

{_results(rows, lambda r: r["group"] in ("headline", "boost") and r["kimg"] not in {EXPLORATORY_KIMG})}
Differences, paired by seed (negative distances are better). In brackets the smallest effect that a paired t-test of
as many equally scattered pairs would find (5 %, power 80 %); what is smaller could not have been seen:

{_differences(rows)}
## Without training

{_results(rows, lambda r: r["group"] == "reference")}
## Exploratory

One seed unless the column says otherwise: a hint where to look, no evidence. The headline's runs at the same length
are listed for comparison.

{_results(rows, lambda r: r["kimg"] not in short or (r["group"] == "exploratory"))}
{distances[0] if distances else "Distances"} at a glance, of seed 0 after {EXPLORATORY_KIMG} kimg:

{_grid(rows, distances[0]) if distances else "None yet."}
## Trained more than once

The same command and seed again, with another commit or on another machine, where sums are rounded differently: what a
difference between two single runs is worth. The tables above show the last.

{_repeats(rows)}
## Diagnostics

Mean signs and logits of the discriminators and the teacher's share of the gradient of the generated images, in the
last thousands of images of training.

{_diagnostics(rows)}"""


def in_order(rows: Sequence[Row]) -> list[Row]:
    """Rows in the order of the table of experiments, whatever the order of work was; others behind them."""
    rank = {run.name: i for i, run in enumerate(runs())}
    return sorted(rows, key=lambda row: (rank.get(row["name"], len(rank)), row["seed"], row["kimg"]))


def generated(rows: Sequence[Row]) -> str:
    """How many images were generated for the scores, by detector unless all had as many."""
    numbers = sorted({(row["detector"], row["protocol"].get("num_gen", 0)) for row in rows})
    if len({number for _, number in numbers}) == 1:
        return f"{numbers[0][1]:,} generated ones"
    return " or ".join(f"{number:,} generated ones ({name})" for name, number in numbers)


def wrapped(text: str) -> str:
    """A paragraph in lines of at most 100 characters."""
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def _list(numbers: Sequence[int]) -> str:
    return " or ".join(f"{number:,}" for number in numbers)


def write(rows: Sequence[Row], dest: Path) -> list[Path]:
    """Writes table, plot and data."""
    rows = in_order(rows)
    dest.mkdir(parents=True, exist_ok=True)
    bars = {}
    for metric in (m for m in metrics_of(rows) if m.startswith("fd@")):
        shown = [(name, title, kimg) for name, title, kimg in
                 dict.fromkeys((r["name"], r["title"], r["kimg"]) for r in rows)
                 if any(r["name"] == name and r["group"] != "exploratory" for r in rows)
                 and kimg == max(r["kimg"] for r in rows if r["name"] == name)]
        bars[metric] = [(title, summary(list(by_seed(rows, name, kimg, metric).values())))
                        for name, title, kimg in shown if by_seed(rows, name, kimg, metric)]
    contents = {
        "compress_fmnist.jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        "compress_fmnist.md": markdown(rows),
        "compress_fmnist.svg": plot.dots(bars),
    }
    for name, text in contents.items():
        with open_atomic(dest / name, "w") as file:
            file.write(text)
    return [dest / name for name in contents]
