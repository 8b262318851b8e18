"""The page of results is that of its committed rows, and of what dataset_tool.py says today."""
from pathlib import Path

from tests import robustness

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def test_the_committed_page_is_that_of_its_rows() -> None:
    rows = robustness.read_rows([RESULTS / "robustness.jsonl"])
    assert robustness.page(rows) == (RESULTS / "robustness.md").read_text(encoding="utf-8")
    assert {row["table"] for row in rows} == {"fuzz", "bombs", "kills"}
    assert not [row for row in rows if row.get("failed") or row.get("wrong")]
