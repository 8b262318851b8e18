"""A program that starts train.py again and again, kills it at random moments, and lets it finish at last.

Run as `python -m tests.training.kill_loop FOLDER DATA NUM_KILLS`. The processes are forks of one that has imported
everything and computed nothing, so that most of their life is training. Prints one JSON object.
"""
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import train
from tests.training import tiny_runs
from training import maintenance, run_config, training_loop
from training.data import image_grid

assert training_loop
assert maintenance


def child(args: list[str], log: Path) -> None:
    """The life of a process that is going to be killed."""
    original = train._configured

    def configured(*given: Any) -> Any:
        config, description = original(*given)
        values = {**config.to_dict(), **tiny_runs.SHORT, "network_snapshot_ticks": 1}
        return run_config.from_dict(values), description

    train._configured = configured
    image_grid.MAX_PIXELS = (1, 1)
    with open(log, "a") as f:
        os.dup2(f.fileno(), 1)
        os.dup2(f.fileno(), 2)
    train.main(args, standalone_mode=False)


def start(args: list[str], log: Path) -> int:
    """Forks; returns the number of the new process."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            child(args, log)
            status = 0
        except BaseException as error:
            with open(log, "a") as f:
                f.write(f"FAILED {type(error).__name__}: {error}\n")
        finally:
            os._exit(status)
    return pid


def run_to_its_end(args: list[str], log: Path) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(start(args, log), 0)[1])


def arguments(outdir: Path, fresh: list[str]) -> list[str]:
    """The command line of a user whose run has vanished: resumes if there is one, otherwise begins."""
    return [f"--outdir={outdir}", *(["--resume=latest"] if any(outdir.glob("[0-9]*/")) else fresh)]


def main(folder: Path, data: str, num_kills: int) -> None:
    rng = random.Random(0)
    fresh = [f"--data={data}", *tiny_runs.STYLEGAN2, "--aug=ada", "--metrics=none"]
    began = time.monotonic()
    statuses = [run_to_its_end([f"--outdir={folder / 'unbroken'}", *fresh], folder / "unbroken.txt")]
    longest = time.monotonic() - began
    log = folder / "log.txt"
    finished = killed = 0
    outdir = folder / "broken0"
    while killed < num_kills:
        pid = start(arguments(outdir, fresh), log)
        time.sleep(rng.uniform(0, longest))
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended == pid:  # it was done before
            statuses.append(os.waitstatus_to_exitcode(status))
            finished += 1
            outdir = folder / f"broken{finished}"
        else:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            killed += 1
    statuses.append(run_to_its_end(arguments(outdir, fresh), log))
    sys.stdout.write(json.dumps({"killed": killed, "finished": finished, "statuses": statuses, "longest": longest}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
