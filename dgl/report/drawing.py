"""Pieces of the page: pictures as data, tables, bars and curves as SVG."""
import base64
import html
import io
from collections.abc import Mapping, Sequence

import numpy as np
import PIL.Image

_WIDTH, _HEIGHT = 320, 120  # of a curve, in px
_COLOURS = ("#36c", "#c63")
_LOSSLESS_PX = 64  # larger images are embedded as JPEG


def picture(pixels: np.ndarray, text: str, side: int = 0, **attributes: str) -> str:
    """An <img> inside the page.

    Args:
        pixels: uint8 [H, W, C] of 1 or 3 channels.
        text: its description.
        side: of the images that it is made of, in px; PNG up to 64, JPEG above.
        attributes: further ones of the element; an underscore stands for a dash.
    """
    buffer = io.BytesIO()
    kind, options = ("png", {}) if side <= _LOSSLESS_PX else ("jpeg", {"quality": 92})
    PIL.Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(buffer, format=kind, **options)
    data = base64.b64encode(buffer.getvalue()).decode()
    more = "".join(f' {name.replace("_", "-")}="{html.escape(value)}"' for name, value in attributes.items())
    return f'<img alt="{html.escape(text)}"{more} src="data:image/{kind};base64,{data}">'


def figure(caption: str, content: str) -> str:
    """A <figure> of HTML content under a caption."""
    return f"<figure><figcaption>{html.escape(caption)}</figcaption>{content}</figure>"


def heat_map(differences: np.ndarray) -> np.ndarray:
    """Differences [H, W], 0 to 1, as uint8 [H, W, 3] from black over red to white."""
    steps = np.clip(differences[..., None] * 3 - np.arange(3), 0, 1)
    return (steps * 255).astype(np.uint8)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """An HTML table; the first column names the rows."""
    lines = ["<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in head) + "</tr>"]
    for first, *rest in rows:
        cells = "".join(f"<td>{html.escape(str(cell))}</td>" for cell in rest)
        lines.append(f"<tr><th>{html.escape(str(first))}</th>{cells}</tr>")
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def bars(
    rows: Mapping[str, tuple[float, float]], labels: tuple[str, str], pictures: Mapping[str, str] | None = None
) -> str:
    """Two bars per row, scaled to the largest number.

    Args:
        rows: name → the numbers of both bars.
        labels: of both.
        pictures: name → HTML at the end of its row.
    """
    largest = max((max(pair) for pair in rows.values()), default=1) or 1
    parts = [f"<p>{_key(labels)}</p>"]
    for name, (first, second) in rows.items():
        text = f"{labels[0]} {first:g}, {labels[1]} {second:g}"
        parts.append(
            f'<div class="bar"><span>{html.escape(name)}</span><svg width="220" height="16" role="img" '
            f'aria-label="{html.escape(name)}: {html.escape(text)}">'
            f'<rect width="{200 * first / largest:.1f}" height="7" fill="{_COLOURS[0]}"/>'
            f'<rect y="8" width="{200 * second / largest:.1f}" height="7" fill="{_COLOURS[1]}"/></svg>'
            f"<span>{first:g} / {second:g}</span>{(pictures or {}).get(name, '')}</div>"
        )
    return "".join(parts)


def _key(labels: Sequence[str]) -> str:
    return ", ".join(f'<span style="color:{colour}">■</span> {html.escape(label)}'
                     for colour, label in zip(_COLOURS, labels))


def curve(name: str, points: Sequence[tuple[float, float]], unit: str = "kimg") -> str:
    """A curve of (x, y) as an SVG with the ranges of both; fewer than two points make none.

    Args:
        name: of the curve.
        points: (x, y); those that are not finite are left out.
        unit: of x.
    """
    finite = [(x, y) for x, y in points if np.isfinite(x) and np.isfinite(y)]
    if len(finite) < 2:
        return ""
    (x0, y0), (x1, y1) = np.min(finite, axis=0), np.max(finite, axis=0)
    width, height = max(x1 - x0, 1e-12), max(y1 - y0, 1e-12)
    line = " ".join(f"{(x - x0) / width * _WIDTH:.1f},{(1 - (y - y0) / height) * _HEIGHT:.1f}" for x, y in finite)
    return (f'<figure class="curve"><figcaption>{html.escape(name)}</figcaption>'
            f'<svg viewBox="-4 -4 {_WIDTH + 8} {_HEIGHT + 8}" role="img" aria-label="{html.escape(name)}">'
            f'<polyline points="{line}" fill="none" stroke="{_COLOURS[0]}" stroke-width="2"/></svg>'
            f"<small>{y0:.3g} to {y1:.3g}; {x0:g} to {x1:g} {html.escape(unit)}</small></figure>")
