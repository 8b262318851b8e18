"""Lines, a table and a drawing of the figures of benchmarks/cpu.py."""
import math
import re
from typing import Any

Figure = dict[str, Any]


def line(figure: Figure) -> str:
    """One figure, for people."""
    if "share" in figure:
        return f"{figure['work']}: {figure['share']:.2f}"
    if figure["work"] == "conv peak":
        return f"conv peak: {figure['gmacs']:.0f} GMAC/s, {figure['gmacs_per_cpu_s']:.0f} per second of a processor"
    ratio = f", {figure['wall_ratio']:.2f}x (cpu {figure['cpu_ratio']:.2f}x)" if "wall_ratio" in figure else ""
    if "wall_peer_ratio" in figure:
        ratio += f", of peer {figure['wall_peer_ratio']:.2f}x (cpu {figure['cpu_peer_ratio']:.2f}x)"
    if "cpu_share" in figure:
        ratio += f", {figure['wall_share']:.2f} of the direct peak (cpu {figure['cpu_share']:.2f})"
    return (f"{figure['work']} [{figure['variant']}, {figure['threads']} threads]: wall {figure['wall']:.3f} s, "
            f"cpu {figure['cpu']:.3f} s, {figure['peak_mb']:.0f} MB{ratio}")  # fmt: skip


TITLES = {"plain": "plain", "torch": "torch path", "direct": "native, direct convolution", "native": "native",
          "peer": "peer"}  # fmt: skip


def table(figures: list[Figure]) -> str:
    """The works that the plain variant has done, as Markdown: seconds, ratio to it, share of the direct peak."""
    compared = [f for f in figures if "wall_ratio" in f]
    variants = [name for name in TITLES if any(f["variant"] == name for f in compared)]
    rows = [f"| work | | {' | '.join(TITLES[name] for name in variants)} |", "|---|---" + "|---" * len(variants) + "|"]
    for work in dict.fromkeys(f["work"] for f in compared):
        have = [next(f for f in compared if (f["work"], f["variant"]) == (work, name)) for name in variants]
        for clock in ("wall", "cpu"):
            cells = []
            for figure in have:
                share = f", {figure[f'{clock}_share']:.2f} of peak" if f"{clock}_share" in figure else ""
                cells.append(f"{figure[clock]:.3f} s ({figure[f'{clock}_ratio']:.2f}x{share})")
            rows.append(f"| {work} | {clock} | {' | '.join(cells)} |")
        memory = " | ".join(f"{figure['peak_mb']:.0f} MB" for figure in have)
        rows.append(f"| | peak memory | {memory} |")
    return "\n".join(rows)


def _growth(figures: list[Figure], pattern: str) -> list[tuple[float, float]]:
    """(first number in the name, processor seconds) of the native figures whose name matches."""
    points = {}
    for figure in figures:
        match = re.fullmatch(pattern, figure["work"])
        if match and figure["variant"] == "native":
            points[float(match[1])] = figure["cpu"]
    return sorted(points.items())


def plot(figures: list[Figure]) -> str:
    """Processor seconds of the native path against resolution and batch, both axes logarithmic, as SVG."""
    series = {
        "resolution (px), batch 1": _growth(figures, r"generator (\d+) px, batch 1"),
        "batch, 128 px": _growth(figures, r"generator 128 px, batch (\d+) \(base 16384\)"),
    }
    size = 'width="720" height="300"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">',
             f'<rect {size} fill="white"/>']  # fmt: skip
    for index, (title, points) in enumerate(series.items()):
        if len(points) >= 2:
            parts += _panel(title, points, left=60 + 350 * index)
    return "\n".join([*parts, "</svg>", ""])


def _panel(title: str, points: list[tuple[float, float]], left: int) -> list[str]:
    xs, ys = ([math.log2(value) for value in axis] for axis in zip(*points))

    def place(x: float, y: float) -> tuple[float, float]:
        return (left + 270 * (x - min(xs)) / (max(xs) - min(xs)),
                250 - 200 * (y - min(ys)) / max(max(ys) - min(ys), 1e-9))  # fmt: skip

    spots = [place(x, y) for x, y in zip(xs, ys)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    parts = [f'<text x="{left}" y="20" font-size="13">seconds by {title}</text>',
             f'<polyline points="{path}" fill="none" stroke="#06c" stroke-width="2"/>']  # fmt: skip
    for (value, seconds), (x, y) in zip(points, spots):
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#06c"/>')
        parts.append(f'<text x="{x:.1f}" y="{y - 8:.1f}" text-anchor="middle">{seconds:.2f}</text>')
        parts.append(f'<text x="{x:.1f}" y="280" text-anchor="middle">{value:g}</text>')
    return parts
