"""Workers of data loaders leave signals to the main process."""
import multiprocessing
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.helpers import is_alive, wait_until
from torch_utils.loader_workers import batches, leave_signals_to_parent

pytestmark = pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="the sender of a signal is unknown here")


class PidsOf:
    """A data set of the processes that read it."""

    def __init__(self, items: range) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> int:
        return os.getpid()


def workers() -> list[int]:
    return [child.pid for child in psutil.Process().children()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_before_a_worker_is_ready(tmp_path: Path, number: signal.Signals) -> None:
    def start_late(worker_id: int) -> None:
        (tmp_path / "started").touch()
        while not (tmp_path / "sent").exists():
            time.sleep(0.01)
        leave_signals_to_parent(worker_id)

    before = workers()
    result = batches(range(3), num_workers=1, worker_init_fn=start_late, multiprocessing_context="fork")
    (pid,) = set(workers()) - set(before)
    wait_until((tmp_path / "started").exists)
    subprocess.run(["kill", f"-{number.value}", str(pid)], check=True)  # by somebody else than the main process
    (tmp_path / "sent").touch()
    assert [batch.tolist() for batch in result] == [[0], [1], [2]]
    wait_until(lambda: not is_alive(pid))


def test_the_main_process_stays_interruptible() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert [batch.tolist() for batch in batches(range(3), batch_size=2)] == [[0, 1], [2]]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
    with pytest.raises(ValueError, match="num_workers"):
        batches(range(3), num_workers=-1)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_worker_obeys_the_main_process(method: str) -> None:
    result = batches(PidsOf(range(3)), num_workers=1, multiprocessing_context=method)
    pid = int(next(result))
    assert is_alive(pid)
    assert pid != os.getpid()
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not is_alive(pid))
    del result
