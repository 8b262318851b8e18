"""Small files that ask for much memory take no more of it than docs/checkpoints.md says."""
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bombs import BOMBS
from tests.robustness import record

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_peak_memory() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.bombs"], cwd=ROOT, capture_output=True, text=True, timeout=1200)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    record("bombs", rows)
    assert [row["bomb"] for row in rows] == list(BOMBS), done.stderr
    for row in rows:
        assert row["outcome"].startswith(("read", "refused")), row
        assert row["peak"] <= row["allowed"], row
        assert row["seconds"] < 20, row  # of processor time
