"""Python programs in forks of a process that has imported torch: processes of their own that start seconds earlier.

Each has an environment, a folder, output and an end of its own, but finds most modules of this project imported.
"""
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from torch_utils import launch

ROOT = Path(launch.__file__).parents[1]
TIMEOUT_SEC = 250.0
OUTPUTS = ("stdout", "stderr")


def _live(code: str, args: list[str], cwd: str, env: dict[str, str], folder: str) -> None:
    for number, name in enumerate(OUTPUTS, 1):
        file = os.open(Path(folder, name), os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["-c", *args]
    exec(code, {"__name__": "__main__"})


class Program:
    """A program that runs, like `subprocess.Popen` of `python -c`.

    Args:
        code: its text.
        args: the words after its name.
        cwd: where it runs.
        env: its environment; None is that of this process.
    """

    def __init__(self, code: str, *args: object, cwd: Path = ROOT, env: Mapping[str, str] | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory()
        given = (code, [str(arg) for arg in args], str(cwd), dict(os.environ if env is None else env))
        self._process = multiprocessing.get_context("forkserver").Process(
            target=_live, args=(*given, self._folder.name))
        self._process.start()

    def poll(self) -> int | None:
        """The exit status; None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        """Sends a signal."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def finish(self, timeout: float = TIMEOUT_SEC) -> subprocess.CompletedProcess[str]:
        """Waits for the end, or brings it after some seconds; what was printed, at the first call."""
        self._process.join(timeout)
        self._process.kill()
        self._process.join()
        printed = [path.read_text() if (path := Path(self._folder.name, name)).exists() else "" for name in OUTPUTS]
        status = self._process.exitcode
        assert status is not None
        self._folder.cleanup()
        return subprocess.CompletedProcess("-c", status, *printed)


def run(code: str, *args: object, cwd: Path = ROOT, env: Mapping[str, str] | None = None) -> (
        subprocess.CompletedProcess[str]):
    """Runs a program to its end, like `subprocess.run`."""
    return Program(code, *args, cwd=cwd, env=env).finish()


def run_module(name: str, *args: object, timeout: float = TIMEOUT_SEC) -> subprocess.CompletedProcess[str]:
    """Runs `python -m NAME` to its end."""
    code = f"import runpy; runpy.run_module({name!r}, run_name='__main__', alter_sys=True)"
    return Program(code, *args).finish(timeout)
