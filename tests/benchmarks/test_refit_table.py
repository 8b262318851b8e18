"""benchmarks/refit_table.py: what it makes, that nothing is done twice, and its table."""
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks import refit_table
from tests import tiny
from tests.metrics.toys import write_detector


def test_rows_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = Path(tiny.write_teacher(tmp_path / "teacher.pkl", channels=1))
    images = tiny.write_data(tmp_path / "images", num=8, channels=1)
    detector = write_detector(tmp_path / "toy.pt")
    monkeypatch.setattr(refit_table, "TEACHER", teacher)
    monkeypatch.setattr(refit_table, "TEST_DATA", Path(images))
    monkeypatch.setattr(refit_table, "TEST_RANGE", ":")
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "cache"))
    args = [f"--out={tmp_path / 'out'}", f"--detector={detector}", "--num-gen=6", "--score=first"]

    def call(*more: str, code: int = 0) -> Any:
        result = CliRunner().invoke(refit_table.main, [*args, *more])
        assert result.exit_code == code, result.output
        return result

    call()
    rows = [json.loads(line) for line in (tmp_path / "out/results.jsonl").read_text().splitlines()]
    assert [(row["network"], row["measure"]) for row in rows] == [
        (network, measure)
        for measure in (detector, "agreement") for network in ("teacher", "first", "first, refitted")
    ]
    assert rows[3]["results"]["agreement_psnr"] == 100
    facts = json.loads((tmp_path / "out/first.json").read_text())
    assert facts["refit"]["psnr_after"] > facts["refit"]["psnr_before"]
    table = (tmp_path / "out/table.md").read_text().splitlines()
    assert table[0] == "| network | fd@toy ↓ | PSNR, dB ↑ | SSIM ↑ | distance by D ↓ |"
    assert [line.split(" | ")[0] for line in table[2:]] == ["| teacher", "| first", "| first, refitted"]
    before = (tmp_path / "out/results.jsonl").read_bytes()
    call()
    assert (tmp_path / "out/results.jsonl").read_bytes() == before
    result = call("--width=1/4", code=1)
    assert result.output == f"Error: --out: {tmp_path / 'out'} was made with other settings; name a new folder\n"


def test_a_number_that_is_missing_is_left_blank() -> None:
    rows: list[dict[str, Any]] = [{"network": "a", "results": {"fd@x": 1.234}}, {"network": "b", "results": {}}]
    assert refit_table.document(rows).splitlines()[2:] == ["| a | 1.23 |", "| b |  |"]
