"""The table of kinds of files and commands: complete, without failures, and true where that is cheap to see."""
from pathlib import Path

from benchmarks import file_kinds

PAGE = Path(__file__).parents[2] / "docs" / "results" / "file_kinds.md"
REFUSED = "lucidrains (refused)"


def test_the_committed_table_is_that_of_the_command(tmp_path: Path) -> None:
    text = PAGE.read_text()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [cell.strip("`") for cell in cells[0][1:]] == list(file_kinds.commands(tmp_path))
    assert "FAILS" not in text
    ((kind, answers),) = file_kinds.rows({REFUSED})
    assert kind == REFUSED
    (reason,) = set(answers.values())
    (row,) = [row for row in cells if row[0] == REFUSED]
    assert f"{row[1]}  {reason}" in text
    assert set(row[1:]) == {row[1]}
