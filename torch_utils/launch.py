"""Starts local processes that work as one job, and ends all of them as soon as one fails."""
import math
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from dnnlib.errors import UserError

TIMEOUT_ENV = "SG_DIST_TIMEOUT_SEC"

_DEFAULT_TIMEOUT_SEC = 600.0
_POLL_SEC = 0.2
_REPORT_SEC = 0.5  # time for processes that fail together to report why
_LEAST_ALLOWED = 16  # processes, however few CPUs there are
_GRACE_SEC = 3.0  # between asking a process to end and killing it
_ENDED_BY_SIGNAL = {128 + signal.SIGTERM, 128 + signal.SIGINT}  # exit statuses of processes that saved their work
_MAX_REPORT = 20_000  # characters; must fit into a pipe that is not read yet


class RankError(RuntimeError):
    """One of the processes of a job failed; `rank` is its number."""

    def __init__(self, rank: int, reason: str, child_traceback: str = ""):
        super().__init__(f"rank {rank} {reason}" + (f"\n\n{child_traceback}" if child_traceback else ""))
        self.rank, self.reason = rank, reason


@dataclass(frozen=True)
class _Report:
    """What a failing process reports about itself."""

    reason: str
    traceback: str
    is_user_error: bool
    is_network_error: bool
    monotonic_sec: float
    field: str | None = None  # of a UserError
    about_rank: int | None = None  # the rank that is the cause, if it is another one


@dataclass
class _Worker:
    """A process of the job, as the launcher sees it."""

    rank: int
    process: Any
    pipe: Connection
    report: _Report | None = None

    def failed(self) -> bool:
        """Whether the process has ended in failure; its report is read then."""
        with suppress(EOFError, OSError):
            if self.report is None and self.pipe.poll():
                self.report = self.pipe.recv()
        return self.process.exitcode not in (None, 0, *_ENDED_BY_SIGNAL)

    def error(self) -> Exception:
        """The failure as an exception."""
        code = self.process.exitcode
        if self.report is not None and self.report.is_user_error:
            return UserError(f"{self.report.reason} (rank {self.rank})", self.report.field)
        if self.report is not None:
            rank = self.rank if self.report.about_rank is None else self.report.about_rank
            return RankError(rank, self.report.reason, self.report.traceback)
        if code >= 0:
            return RankError(self.rank, f"exited with status {code}")
        hint = " (the system does so when memory runs out)" if code == -signal.SIGKILL else ""
        return RankError(self.rank, f"was killed by {signal.Signals(-code).name}{hint}")

    def blame(self) -> tuple[int, float]:
        """Sorts the cause of a job's end before the failures that it caused in the other processes."""
        if self.report is not None:
            return (2 if self.report.is_network_error else 1), self.report.monotonic_sec
        # NCCL aborts the processes that wait for a dead one.
        return (3 if self.process.exitcode == -signal.SIGABRT else 0), 0.0


def default_timeout() -> float:
    """How long an operation waits for the other processes, in seconds: $SG_DIST_TIMEOUT_SEC, else 600.

    Raises:
        UserError: the variable holds no number above 0.
    """
    text = os.environ.get(TIMEOUT_ENV, str(_DEFAULT_TIMEOUT_SEC))
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise UserError(f"environment variable {TIMEOUT_ENV}: expected a number of seconds above 0, found {text!r}")
    return seconds


@contextmanager
def _reserved_port() -> Iterator[int]:
    """A free port of the loopback device, which Linux gives to nobody who asks for any port while this lasts.

    Rank 0 can listen at it nevertheless: both sockets allow the address to be reused, and this one does not listen.
    """
    with socket.socket() as reservation:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reservation.bind(("127.0.0.1", 0))
        port = reservation.getsockname()[1]
        if sys.platform != "linux":
            reservation.close()
        yield port


def _rank_env(rank: int, num_procs: int, port: int, timeout_sec: float) -> dict[str, str]:
    env = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": num_procs,
        "LOCAL_WORLD_SIZE": num_procs,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        TIMEOUT_ENV: timeout_sec,
    }
    if sys.platform == "linux":
        # Otherwise gloo asks for the address of the host's name, which need not lead anywhere.
        env["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
    return {name: str(value) for name, value in env.items()}


def _lead_own_group() -> None:
    """Makes this process and its children (a data loader's) a group, so that they can be ended together."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)


def _end_group(pid: int) -> None:
    """Ends what is left of a process's group; a child whose parent was killed may run forever otherwise."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    _end_group(os.getpid())
    os._exit(1)


def _share_cores(num_procs: int) -> None:
    if "OMP_NUM_THREADS" not in os.environ:
        import torch

        torch.set_num_threads(max(1, (os.cpu_count() or 1) // num_procs))


def is_network_error(error: Exception) -> bool:
    """Whether an exception only says that another process is gone."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or any(word in str(error) for word in ("gloo", "NCCL"))


def _run_rank(fn: Callable[..., Any], args: Sequence[Any], env: dict[str, str], pipe: Connection) -> None:
    """The body of each process."""
    _lead_own_group()
    os.environ.update(env)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _share_cores(int(env["WORLD_SIZE"]))
    try:
        fn(*args)
        return
    except UserError as error:
        report = _Report(error.message, "", True, False, time.monotonic(), error.field)
    except RankError as error:  # another rank is the cause
        report = _Report(error.reason, "", False, True, time.monotonic(), about_rank=error.rank)
    except Exception as error:
        reason = f"raised {type(error).__name__}: {str(error)[:_MAX_REPORT]}"
        text = traceback.format_exc()[-_MAX_REPORT:]
        report = _Report(reason, text, False, is_network_error(error), time.monotonic())
    except KeyboardInterrupt:
        os._exit(128 + signal.SIGINT)
    pipe.send(report)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)  # the usual clean-up may wait for processes that are about to be ended


@contextmanager
def _noted_signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM in a list instead of acting on them (only the main thread can)."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    previous = {num: signal.signal(num, lambda num, _: received.append(num)) for num in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for num, handler in previous.items():
            signal.signal(num, handler)


def _watch(workers: list[_Worker], received: list[int], timeout_sec: float) -> None:
    """Returns when all processes have ended well; raises as soon as one has failed or a signal has ended them."""
    num_passed_on, deadline = 0, float("inf")
    while any(worker.process.exitcode is None for worker in workers):
        if len(received) > num_passed_on:
            deadline = min(deadline, time.monotonic() + timeout_sec) if not num_passed_on else 0.0
            num_passed_on = len(received)
            _signal_all(workers)
        elif deadline == float("inf") and any(worker.process.exitcode in _ENDED_BY_SIGNAL for worker in workers):
            deadline = time.monotonic() + timeout_sec  # a signal reached the processes alone
        if time.monotonic() > deadline:
            break
        if not received and any([worker.failed() for worker in workers]):
            time.sleep(_REPORT_SEC)
            break
        # With a limit: the sentinel of a dead process stays silent while grandchildren hold on to it.
        wait([worker.process.sentinel for worker in workers if worker.process.exitcode is None], _POLL_SEC)
    failed = [worker for worker in workers if worker.failed()]
    if received and (failed or any(worker.process.exitcode is None for worker in workers)):
        if received[0] == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + received[0])
    if failed:
        raise min(failed, key=_Worker.blame).error()
    statuses = {worker.process.exitcode for worker in workers} & _ENDED_BY_SIGNAL
    if statuses:
        raise SystemExit(128 + received[0] if received else max(statuses))


def _signal_all(workers: list[_Worker]) -> None:
    for worker in workers:
        if worker.process.exitcode is None:
            worker.process.terminate()


def _end(workers: list[_Worker]) -> None:
    """Ends what still runs, children of the processes included: asks, waits a moment, kills."""
    _signal_all(workers)
    deadline = time.monotonic() + _GRACE_SEC
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        if worker.process.exitcode is None:
            worker.process.kill()
            worker.process.join()
        _end_group(worker.process.pid)
        worker.pipe.close()


def launch(
    fn: Callable[..., Any], args: Sequence[Any] = (), num_procs: int = 1, timeout_sec: float | None = None
) -> None:
    """Runs `fn(*args)` in several processes of this machine and waits for them.

    Each has $RANK, $WORLD_SIZE, $LOCAL_RANK, $MASTER_ADDR and $MASTER_PORT (a free port of the loopback device) set, so
    that `distributed.init` finds the others. With one process, `fn` is called right here.

    If a process fails, the rest is ended at once, children of the processes included; the same happens if this process
    is killed. SIGINT and SIGTERM are passed on as SIGTERM, and the processes have `timeout_sec` to end by themselves; a
    second signal ends them at once. A process that ends by itself because of a signal says so by the exit status 143
    (SIGTERM) or 130 (SIGINT), which is then that of the job.

    Args:
        fn: a function at the top level of a module.
        args: its arguments; it must be possible to pickle them.
        num_procs: number of processes.
        timeout_sec: how long a collective operation waits in them before it fails; None is `default_timeout`.

    Raises:
        RankError: names the process that failed first and shows its traceback.
        UserError: a process raised it, and the message names its rank; or there are far more processes than CPUs.
        SystemExit: a signal ended the job.
        KeyboardInterrupt: SIGINT did, and not every process ended by itself.
    """
    assert num_procs >= 1, num_procs
    most = max(_LEAST_ALLOWED, os.cpu_count() or 1)
    if num_procs > most:
        raise UserError(f"expected at most {most} processes on this machine of {os.cpu_count()} CPUs, "
                        f"found {num_procs:,}", field="num_gpus")
    timeout_sec = default_timeout() if timeout_sec is None else timeout_sec
    if num_procs == 1:
        fn(*args)
        return
    context = multiprocessing.get_context("spawn")
    workers: list[_Worker] = []
    with _reserved_port() as port:
        try:
            for rank in range(num_procs):
                receiver, sender = context.Pipe(duplex=False)
                body = (fn, args, _rank_env(rank, num_procs, port, timeout_sec), sender)
                process = context.Process(target=_run_rank, args=body, name=f"rank{rank}")
                process.start()
                sender.close()
                workers.append(_Worker(rank, process, receiver))
            with _noted_signals() as received:
                _watch(workers, received, timeout_sec)
        finally:
            _end(workers)
