"""Data loaders whose worker processes outlive the signals that are sent to a whole job."""
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_CAN_WAIT = hasattr(signal, "sigwaitinfo")


def batches(dataset: torch.utils.data.Dataset, **options: Any) -> Iterator[Any]:
    """Starts a torch.utils.data.DataLoader of these options and returns its iterator.

    Terminals and schedulers send SIGINT and SIGTERM to all processes of a job. A worker that dies of one takes the main
    process along before that has saved its state; these workers leave both to the main process, from their first
    moment on. Where the sender of a signal cannot be told (macOS), any SIGTERM ends a worker.
    """
    loader = torch.utils.data.DataLoader(dataset, **{"worker_init_fn": leave_signals_to_parent, **options})
    with _blocked_signals():
        return iter(loader)


def leave_signals_to_parent(worker_id: int) -> None:
    """`worker_init_fn` of the loaders: ignores SIGINT, and SIGTERM unless the main process sends it.

    The main process must be obeyed, as it would wait for the worker at its own end otherwise.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if _CAN_WAIT:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey, args=[os.getppid()], daemon=True).start()


def _obey(sender: int) -> None:
    """Ends this process as soon as that one asks for it."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != sender:
        pass
    os._exit(0)


@contextmanager
def _blocked_signals() -> Iterator[None]:
    """In here signals wait, for this thread and for processes started from it, until these let them through."""
    if not _CAN_WAIT:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
