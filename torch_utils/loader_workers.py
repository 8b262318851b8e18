"""Data loaders whose worker processes outlive the signals that are sent to a whole job."""
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

_CAN_WAIT = hasattr(signal, "sigwaitinfo")


def batches(dataset: torch.utils.data.Dataset, **options: Any) -> Iterator[Any]:
    """Starts a torch.utils.data.DataLoader of these options and returns its iterator.

    Terminals and schedulers send SIGINT and SIGTERM to all processes of a job. A worker that dies of one takes the main
    process along before that has saved its state; these workers leave both to the main process, from their first
    moment on, or if a fork server starts them, as soon as they are ready. Where the sender of a signal is not known
    (macOS), any SIGTERM ends a worker.
    """
    loader = torch.utils.data.DataLoader(dataset, **{"worker_init_fn": leave_signals_to_parent, **options})
    with _blocked_signals() if _workers_inherit_mask(loader) else nullcontext():
        return iter(loader)


def leave_signals_to_parent(worker_id: int) -> None:
    """`worker_init_fn` of the loaders: ignores SIGINT, and SIGTERM unless the main process sends it.

    The main process waits for its workers when it ends, so its own SIGTERM must end them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if _CAN_WAIT:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        main_process = multiprocessing.parent_process()
        assert main_process is not None
        threading.Thread(target=_end_on_signal_of, args=[main_process.pid], daemon=True).start()


def _end_on_signal_of(sender: int | None) -> None:
    """Ends this process as soon as process `sender` sends SIGTERM."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != sender:
        pass
    os._exit(0)


def _workers_inherit_mask(loader: torch.utils.data.DataLoader) -> bool:
    """Whether the loader's workers start with this thread's signal mask, which those of a fork server do not."""
    if not _CAN_WAIT or loader.num_workers == 0:
        return False
    return (loader.multiprocessing_context or multiprocessing).get_start_method() != "forkserver"


@contextmanager
def _blocked_signals() -> Iterator[None]:
    """Blocks SIGINT and SIGTERM for this thread and for processes started from it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
