"""Commands that are killed at random moments leave nothing half-written, and work when they are started again."""
import json
import os

import pytest

from tests import forks
from tests.robustness import record

NUM_KILLS = int(os.environ.get("KILLS", "2"))  # of every command


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs fork")
def test_killed_commands(tmp_path):
    seed = os.environ.get("FUZZ_SEED", "0")
    done = forks.run_module("tests.cli.kill_loop", tmp_path, NUM_KILLS, seed, timeout=max(120 * NUM_KILLS, 280))
    assert done.returncode == 0, done.stderr
    for name, counts in json.loads(done.stdout).items():
        record("kills", [{"command": name, **counts, "wrong": len(counts["wrong"])}])
        assert counts["wrong"] == [], name
        assert counts["killed"] == NUM_KILLS, name
