"""Sections of numbers: costs, kept channels, and what the files of a run say."""
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dnnlib import strict_json
from torch_utils.network_types import Generator

from .. import cost
from ..architectures import plan_of
from . import drawing

# Heading of a group of curves → which statistics of a run it shows; the first that matches has it.
GROUPS = {
    "The teacher in adversarial training": r"Loss/teacher/(weight|gradient_share)",
    "Signs of the discriminators' logits": r"Loss/(teacher/)?signs/",
    "Logits": r"Loss/(teacher/)?scores/",
    "Distillation": r"Loss/distil/",
    "Losses": r"Loss/",
    "Augmentation": r"Progress/augment",
}
NAMES = {
    "Loss/teacher/weight": "λ, the weight of the teacher's term",
    "Loss/teacher/gradient_share": "the teacher's share of the images' gradient",
    "Progress/augment": "probability of augmentation",
}


def costs(generators: Mapping[str, Generator], device: str = "cpu") -> str:
    """Parameters, multiply-accumulates, file sizes and milliseconds; networks of one shape are measured once."""
    rows = []
    by_shape: dict[Any, cost.Cost] = {}
    for name, G in generators.items():
        shape = tuple((key, tuple(p.shape)) for key, p in G.named_parameters())
        if shape not in by_shape:
            by_shape[shape] = cost.measure(name, G, device)
        own = by_shape[shape]
        rows.append([name, f"{own.params:,}", f"{own.macs_in / 1e6:,.1f} M", f"{own.file_bytes / 2**20:.2f} MiB",
                     *("-" if ms is None else f"{ms:.2f}" for ms in (own.ms_batch1, own.ms_batch8))])
    head = ["network", "parameters", "MACs", "file", "ms per image, batch 1", "batch 8"]
    return drawing.table(head, rows) + f"<p>Milliseconds on this machine ({device}).</p>"


def channels(teacher: Generator, student: Generator) -> str:
    """Channels of every layer's output, of teacher and student."""
    sets = [plan_of(G).sets for G in (teacher, student)]
    rows = {name: (float(whole), float(sets[1][name])) for name, whole in sets[0].items() if name in sets[1]}
    return drawing.bars(rows, ("teacher", "student"))


def _rows(path: Path) -> list[dict[str, Any]]:
    """The complete JSON lines of a file; a run may be writing it."""
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = strict_json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _kimg(row: Mapping[str, Any], otherwise: int) -> float:
    """Thousands of images that a snapshot's name states."""
    match = re.search(r"(\d+)\.pkl$", str(row.get("snapshot_pkl")))
    return float(match[1]) if match else float(otherwise)


def scores(run_dir: Path) -> str:
    """The metrics of a run, the last row of each, with protocol; and their curves."""
    table, curves = [], []
    for path in sorted(run_dir.glob("metric-*.jsonl")):
        rows = [row for row in _rows(path) if isinstance(row.get("results"), dict)]
        for name in dict.fromkeys(name for row in rows for name in row["results"]):  # of several detectors
            own = [row for row in rows if name in row["results"]]
            points = [(_kimg(row, i), float(row["results"][name])) for i, row in enumerate(own)
                      if isinstance(row["results"][name], int | float)]
            values = [y for _, y in points]
            if not values:
                continue
            table.append([name, f"{values[-1]:.4g}", f"{min(values):.4g}", json.dumps(own[-1].get("protocol", {}))])
            curves.append(drawing.curve(name, points))
    if not table:
        return "<p>This run has no metrics.</p>"
    return drawing.table(["metric", "last", "smallest", "protocol of the last"], table) + "".join(curves)


def curves(run_dir: Path) -> str:
    """Losses, signs, λ and the teacher's share of the gradient against thousands of images, in groups."""
    groups: dict[str, dict[str, list[tuple[float, float]]]] = {heading: {} for heading in GROUPS}
    path = run_dir / "stats.jsonl"
    for row in _rows(path) if path.is_file() else []:
        x = _mean(row, "Progress/kimg")
        for name in row:
            heading = next((heading for heading, pattern in GROUPS.items() if re.match(pattern, name)), None)
            y = _mean(row, name)
            if heading is not None and x is not None and y is not None:
                groups[heading].setdefault(name, []).append((x, y))
    parts = []
    for heading, series in groups.items():
        drawn = "".join(drawing.curve(NAMES.get(name, name), points) for name, points in sorted(series.items()))
        if drawn:
            parts.append(f"<h3>{heading}</h3>{drawn}")
    return "".join(parts) or "<p>This run has no statistics of two ticks.</p>"


def _mean(row: Mapping[str, Any], name: str) -> float | None:
    """The mean of a statistic of a tick, if it has one."""
    value = row.get(name)
    mean = value.get("mean") if isinstance(value, dict) else None
    return float(mean) if isinstance(mean, int | float) else None
