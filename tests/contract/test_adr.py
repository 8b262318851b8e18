"""Decisions in docs/adr: numbered without holes, dated, and listed in the index."""
import re
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs" / "adr"
PAGES = sorted(path for path in FOLDER.glob("*.md") if path.name != "README.md")


def test_numbers_have_no_holes() -> None:
    numbers = [path.name[:4] for path in PAGES]
    assert numbers == [f"{number:04d}" for number in range(1, len(PAGES) + 1)], "take the next free number"


def test_the_index_lists_every_page_with_its_date_and_title() -> None:
    rows = []
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        title = re.match(rf"# {path.name[:4]}: (.+)\n", text)
        date = re.search(r"^Dates?: (\d{4}-\d{2}-\d{2})\b", text, re.MULTILINE)
        assert title is not None, f"{path.name}: expected the first line '# NNNN: title'"
        assert date is not None, f"{path.name}: expected a line 'Date: YYYY-MM-DD.'"
        rows.append(f"| [{path.name[:4]}]({path.name}) | {date[1]} | {title[1]} |")
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [line for line in index.splitlines() if line.startswith("| [")] == rows


def test_sections() -> None:
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        for section in ("Context", "Decision", "Consequence"):
            assert f"**{section}.**" in text, f"{path.name}: no section {section}"
