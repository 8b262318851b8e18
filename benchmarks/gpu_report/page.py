"""The report as one JSON file and one Markdown page."""
import json
from pathlib import Path
from typing import Any

from dnnlib.files import open_atomic

from .section import Section


def verdict(section: Section) -> str:
    """One line: ok, skipped or wrong, and why."""
    if section.skipped is not None:
        return f"skipped: {section.skipped}"
    if section.error is not None:
        return f"FAILED: {section.error}"
    wrong = sum(not row.get("ok", True) for row in section.rows)
    return f"FAILED: {wrong} of {len(section.rows)} rows" if wrong else "ok"


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "ok" if value else "**FAILED**"
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value).replace("|", "\\|")


def _table(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    keys = list(rows[0])
    lines = [f"| {' | '.join(keys)} |", "|" + "---|" * len(keys)]
    return [*lines, *[f"| {' | '.join(_cell(row.get(key, '')) for key in keys)} |" for row in rows]]


def markdown(sections: list[Section], title: str) -> str:
    """The page: a summary, then one table per section."""
    lines = [f"# {title}", "", "Written by `make gpu-report`.", "", "| section | result | seconds |", "|---|---|---|"]
    lines += [f"| {section.title} | {_cell(verdict(section))} | {section.seconds:.0f} |" for section in sections]
    for section in sections:
        lines += ["", f"## {section.title}", "", verdict(section), "", *_table(section.rows)]
    return "\n".join(lines).rstrip() + "\n"


def write(sections: list[Section], title: str, folder: Path) -> tuple[Path, Path]:
    """Writes report.json and report.md into a folder; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    data = {
        "title": title,
        "sections": {
            section.key: {"title": section.title, "result": verdict(section), "seconds": section.seconds,
                          "rows": section.rows}
            for section in sections
        },
    }  # fmt: skip
    paths = folder / "report.json", folder / "report.md"
    for path, text in zip(paths, (json.dumps(data, indent=1) + "\n", markdown(sections, title))):
        with open_atomic(path) as file:
            file.write(text.encode())
    return paths
