"""Small files that ask for much memory take no more of it than docs/checkpoints.md says."""
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bombs import BOMBS

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"\| (.+) \| ([\d,]+) \| (\d+) \| ([\d.]+) \| (read|refused|FAILED)(.*) \|")


@pytest.mark.slow
def test_peak_memory() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.bombs"], cwd=ROOT, capture_output=True, text=True, timeout=280)
    print(done.stdout)  # noqa: T201, shown by make fuzz
    rows = [ROW.fullmatch(line) for line in done.stdout.splitlines()[2:]]
    assert len(rows) == len(BOMBS), done.stderr
    for row in rows:
        assert row is not None
        name, size, peak, _, outcome, _ = row.groups()
        assert outcome != "FAILED", name
        # Objects are counted by estimates, and the readers' own code takes some MiB.
        assert int(peak) << 20 <= 8 * int(size.replace(",", "")) + (128 << 20), name
