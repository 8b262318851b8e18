"""What the processes of a data loader do when they start."""
import signal


def ignore_signals(worker_id: int) -> None:
    """`worker_init_fn` of every data loader: SIGTERM and SIGINT are the main process's business.

    Terminals and schedulers send them to all processes of a job. A worker that dies of one takes the main process along
    before that has saved its state; one that goes on ends when the main process closes the loader, or is gone.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
