"""Commands that are killed at random moments leave nothing half-written, and work when they are started again."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.robustness import record

ROOT = Path(__file__).parents[2]
NUM_KILLS = int(os.environ.get("KILLS", "2"))  # of every command


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs fork")
def test_killed_commands(tmp_path):
    seed = os.environ.get("FUZZ_SEED", "0")
    command = [sys.executable, "-m", "tests.cli.kill_loop", tmp_path, str(NUM_KILLS), seed]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=max(120 * NUM_KILLS, 280))
    assert done.returncode == 0, done.stderr
    for name, counts in json.loads(done.stdout).items():
        record("kills", [{"command": name, **counts, "wrong": len(counts["wrong"])}])
        assert counts["wrong"] == [], name
        assert counts["killed"] == NUM_KILLS, name
