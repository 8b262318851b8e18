"""The table of differences covers every reference file and can fail."""
import pytest
from click.testing import CliRunner

from tests import golden_report
from tests.helpers import GOLDEN

OTHERS = {"clothing320"}  # images, not reference numbers


def test_every_reference_file_is_reported() -> None:
    assert {path.stem for path in GOLDEN.glob("*.npz")} - OTHERS == set(golden_report.REPORTS)


def test_report_of_the_ops() -> None:
    result = CliRunner().invoke(golden_report.main, ["ops"])
    assert result.exit_code == 0
    assert "6 quantities, 0 above what is allowed" in result.output


def test_a_large_difference_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    row = golden_report.Row("ops", "sums", difference=2e-5, allowed=1e-5)
    monkeypatch.setitem(golden_report.REPORTS, "ops", (lambda file: iter([row]),))
    result = CliRunner().invoke(golden_report.main, ["ops"])
    assert result.exit_code == 1
    assert "| ops  | sums     | 2.0e-05        | 1.0e-05 | TOO LARGE |" in result.output
    assert "1 quantities, 1 above" in result.output
