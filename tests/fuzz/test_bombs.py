"""Small files that ask for much memory take no more of it than docs/checkpoints.md says."""
import json

import pytest

from tests import forks
from tests.bombs import BOMBS
from tests.robustness import record


@pytest.mark.slow
def test_peak_memory() -> None:
    done = forks.run_module("tests.bombs", timeout=1200)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    record("bombs", rows)
    assert [row["bomb"] for row in rows] == list(BOMBS), done.stderr
    for row in rows:
        assert row["outcome"].startswith(("read", "refused")), row
        assert row["peak"] <= row["allowed"], row
        assert row["seconds"] < 20, row  # of processor time
