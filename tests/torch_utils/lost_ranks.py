"""A program that starts jobs of several processes, without a launcher that would end them, and disturbs one of each.

Run as `python -m tests.torch_utils.lost_ranks FOLDER`. The processes are forks of one that has imported everything.
Prints one JSON object: job → for each rank its exit status and what it printed.
"""
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from torch_utils import distributed

TIMEOUT_SEC = 5.0  # of an operation


def rank_of_job(folder: Path) -> None:
    """Waits for the others again and again, until one does not come."""
    distributed.init(timeout_sec=TIMEOUT_SEC)
    (folder / f"joined{distributed.rank()}").write_text("")
    with distributed.naming_lost_ranks():
        while True:
            if distributed.rank() == 1 and (folder / "fail").exists():
                raise ValueError("a bug")
            distributed.any_rank(False)
            time.sleep(0.01)


def start(folder: Path, rank: int, num_procs: int, port: int) -> int:
    """Forks; returns the number of the new process."""
    pid = os.fork()
    if pid == 0:
        os.environ.update(WORLD_SIZE=str(num_procs), RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
                          GLOO_SOCKET_IFNAME="lo")
        try:
            rank_of_job(folder)
        except Exception as error:
            (folder / f"said{rank}").write_text(str(error))
        finally:
            os._exit(1)
    return pid


def job(folder: Path, num_procs: int, disturb: Callable[[Path, list[int]], None]) -> Callable[[], list[object]]:
    """Starts one and disturbs it; returns a function that waits for the ranks that end."""
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pids = [start(folder, rank, num_procs, port) for rank in range(num_procs)]
    while len(list(folder.glob("joined*"))) < num_procs:
        time.sleep(0.02)
    disturb(folder, pids)

    def results() -> list[object]:
        outcomes: list[object] = []
        for rank, pid in enumerate(pids):
            said = folder / f"said{rank}"
            _, status = os.waitpid(pid, os.WUNTRACED)
            if os.WIFSTOPPED(status):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                outcomes.append(["stopped", ""])
            else:
                outcomes.append([os.waitstatus_to_exitcode(status), said.read_text() if said.exists() else ""])
        return outcomes

    return results


def main(folder: Path) -> None:
    jobs = {
        "killed": job(folder / "killed", 3, lambda _, pids: os.kill(pids[1], signal.SIGKILL)),
        "stopped": job(folder / "stopped", 2, lambda _, pids: os.kill(pids[1], signal.SIGSTOP)),
        "masterless": job(folder / "masterless", 2, lambda _, pids: os.kill(pids[0], signal.SIGKILL)),
        "failing": job(folder / "failing", 2, lambda place, _: (place / "fail").write_text("") and None),
    }
    sys.stdout.write(json.dumps({name: results() for name, results in jobs.items()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
