"""benchmarks/refit_cost.py on a small network."""
import json

from click.testing import CliRunner

from benchmarks import refit_cost


def test_one_line_with_time_and_memory() -> None:
    result = CliRunner().invoke(refit_cost.main, ["--resolution=8", "--channel-base=64", "--threads=1"])
    assert result.exit_code == 0, result.output
    row = json.loads(result.stdout)
    assert (row["resolution"], row["channel_base"], row["width"], row["threads"]) == (8, 64, "1/2", 1)
    assert 0 < row["cpu_seconds"]
    assert 0 < row["peak_gib_before"] <= row["peak_gib"]
    assert row["summary"].startswith("relative error of a layer ")
