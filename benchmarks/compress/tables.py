"""Markdown tables of results: means over seeds, paired differences and the effects they could see."""
import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .report import smallest_effect, summary, text_of

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Column:
    """One metric: its heading and how many digits are shown."""

    heading: str
    digits: int


Columns = Mapping[str, Column]  # key of a row's results → column
Extra = Mapping[str, Callable[[Sequence[Row]], str]]  # heading → text of the rows of one name


def by_seed(rows: Sequence[Row], name: str, metric: str) -> dict[int, float]:
    """Seed → value of a metric; of a row that was made more than once, the last."""
    return {row["seed"]: row["results"][metric] for row in rows if row["name"] == name and metric in row["results"]}


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table; a sentence if it has no lines."""
    if not lines:
        return "None yet.\n"
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines]) + "\n"


def median_of(value: Callable[[Row], float | None]) -> Callable[[Sequence[Row]], str]:
    """What shows the median of a number over rows, those without it left out."""
    def text(rows: Sequence[Row]) -> str:
        values = [number for row in rows if (number := value(row)) is not None]
        return f"{statistics.median(values):.0f}" if values else ""

    return text


def results(rows: Sequence[Row], group: str, columns: Columns, extra: Extra) -> str:
    """One line per name of a group: mean ± standard error over seeds of every column, then the extra ones."""
    lines = []
    for name, title in dict.fromkeys((row["name"], row["title"]) for row in rows if row["group"] == group):
        values = {metric: list(by_seed(rows, name, metric).values()) for metric in columns}
        cells = [text_of(summary(of_seeds) if of_seeds else None, columns[metric].digits)
                 for metric, of_seeds in values.items()]
        own = [row for row in rows if row["name"] == name]
        lines.append([title, str(max(map(len, values.values()))), *cells, *(show(own) for show in extra.values())])
    return markdown(["network", "seeds", *(column.heading for column in columns.values()), *extra], lines)


def differences(rows: Sequence[Row], pairs: Sequence[tuple[str, str]], columns: Columns) -> str:
    """B - A over the seeds that both have, for each pair (A, B) that shares some, and the smallest effects."""
    titles = {row["name"]: row["title"] for row in rows}
    lines = []
    for a, b in pairs:
        cells, seeds = [], 0
        for metric, column in columns.items():
            left, right = (by_seed(rows, name, metric) for name in (a, b))
            of_seeds = [right[seed] - left[seed] for seed in sorted(left.keys() & right.keys())]
            seeds = max(seeds, len(of_seeds))
            effect = smallest_effect(of_seeds)
            cells += [text_of(summary(of_seeds) if of_seeds else None, column.digits),
                      "" if effect is None else f"{effect:.{column.digits}f}"]
        if seeds:
            lines.append([f"{titles[b]} against {titles[a]}", str(seeds), *cells])
    head = ["difference", "seeds"]
    for column in columns.values():
        head += [column.heading[:-2], "smallest effect"]
    return markdown(head, lines)
