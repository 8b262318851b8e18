"""What the processes of a data loader do when they start."""
import os
import signal
import threading


def ignore_signals(worker_id: int) -> None:
    """`worker_init_fn` of every data loader: SIGTERM and SIGINT are the main process's business.

    Terminals and schedulers send them to all processes of a job. A worker that dies of one takes the main process along
    before that has saved its state. A SIGTERM of the main process itself still ends the worker: otherwise the main
    process would wait for it at its own end. Where the sender cannot be told (macOS), any SIGTERM does.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey, args=[os.getppid()], daemon=True).start()


def _obey(sender: int) -> None:
    """Ends this process as soon as that one asks for it."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != sender:
        pass
    os._exit(0)
