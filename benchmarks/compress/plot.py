"""A plot of means with error bars as SVG."""
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

LABELS, PANEL, MARGIN, LINE, HEAD = 290, 330, 30, 24, 46  # px
_FONT = 'font-family="sans-serif" font-size="12"'


def dots(panels: Mapping[str, Sequence[tuple[str, tuple[float, float | None, int]]]]) -> str:
    """One panel beside the other, a line for every label, a dot at its mean, a bar of ± one standard error.

    Args:
        panels: title → (label, (mean, standard error or None, number of values)); the labels of the first are shown.
    """
    labels = list(dict.fromkeys(label for values in panels.values() for label, _ in values))
    width, height = LABELS + len(panels) * (PANEL + MARGIN) + MARGIN, HEAD + LINE * len(labels) + 2 * MARGIN
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
             f'viewBox="0 0 {width} {height}">', f'<rect width="{width}" height="{height}" fill="white"/>']
    ys = {label: HEAD + LINE * number + LINE / 2 for number, label in enumerate(labels)}
    for label, y in ys.items():
        parts.append(f'<text x="{LABELS - 10}" y="{y + 4:.1f}" text-anchor="end" {_FONT}>{escape(label)}</text>')
    for number, (title, values) in enumerate(panels.items()):
        left = LABELS + number * (PANEL + MARGIN)
        top = max((mean + (error or 0) for _, (mean, error, _) in values), default=1) * 1.05 or 1
        scale = PANEL / top
        bottom = HEAD + LINE * len(labels)
        parts.append(f'<text x="{left}" y="{HEAD - 20}" {_FONT} font-weight="bold">{escape(title)} '
                     '(lower is better)</text>')
        for tick in ticks(top):
            x = left + tick * scale
            parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{HEAD}" y2="{bottom}" stroke="#ddd"/>')
            parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle" {_FONT}>{tick:g}</text>')
        for label, (mean, error, _) in values:
            x, y, half = left + mean * scale, ys[label], (error or 0) * scale
            parts.append(f'<line x1="{x - half:.1f}" x2="{x + half:.1f}" y1="{y:.1f}" y2="{y:.1f}" '
                         'stroke="#1f5fa8" stroke-width="2"/>')
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#1f5fa8"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def ticks(top: float) -> list[float]:
    """Round numbers from 0 to `top`, about five."""
    step = 10.0 ** len(str(int(top)))
    while top / step < 4:
        step /= 2 if str(step)[0] != "5" else 2.5
    return [round(step * number, 6) for number in range(int(top / step) + 1)]
