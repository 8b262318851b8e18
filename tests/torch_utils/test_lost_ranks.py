"""Processes that wait for one that was killed or stopped, as on several machines: each ends, and names it."""
import json
import os

import pytest

from tests import forks

GONE = "gives no sign of life: it was killed or stopped, or its machine or network is gone"


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_every_survivor_ends_and_names_the_lost_rank(tmp_path):
    done = forks.run_module("tests.torch_utils.lost_ranks", tmp_path)
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)
    assert outcomes["killed"] == [[1, f"rank 1 {GONE} (noticed by rank 0)"], [-9, ""],
                               [1, f"rank 1 {GONE} (noticed by rank 2)"]]
    assert outcomes["stopped"] == [[1, f"rank 1 {GONE} (noticed by rank 0)"], ["stopped", ""]]
    assert outcomes["masterless"] == [[-9, ""], [1, f"rank 0 {GONE} (noticed by rank 1)"]]
    assert outcomes["failing"] == [[1, "rank 1 failed: ValueError: a bug (noticed by rank 0)"], [1, "a bug"]]
