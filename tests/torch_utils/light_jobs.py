"""What the processes of test_launch.py do: nothing that needs torch, whose import takes longer than they do."""
import os
import signal
import time
from pathlib import Path

from dnnlib.errors import FileError


def user_error():
    """All ranks find the same mistake."""
    raise FileError("data.zip: no such file")


def exit_with_3():
    """Leaves with an exit status."""
    raise SystemExit(3)


def wait_for_signal(folder, is_polite):
    """Waits to be ended; the polite one then finishes by itself."""
    caught = []
    if is_polite:
        signal.signal(signal.SIGTERM, lambda *args: caught.append(1))
    Path(folder, f"{os.environ['RANK']}.pid").write_text(str(os.getpid()))
    while not caught:
        time.sleep(0.02)
    Path(folder, f"{os.environ['RANK']}.saved").write_text("")
