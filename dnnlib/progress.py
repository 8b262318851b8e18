"""A progress bar with rate and remaining time: one line on a terminal, a line now and then in a log."""
import shutil
import sys
import time
from types import TracebackType
from typing import IO

_REDRAW_SEC = 0.1
_LOG_SEC = 30.0
_BAR_WIDTH = 20  # characters
_ERASE = "\r\x1b[K"


def _duration(seconds: float) -> str:
    minutes, secs = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{secs:02d}" if minutes >= 60 else f"{minutes}:{secs:02d}"


def _count(value: float) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)


class Progress:
    """Counts steps of a job and shows how far it is, its rate and the time that remains.

    On a terminal one line is redrawn, at most ten times a second, and ended when the job ends. Elsewhere a line is
    written at most every 30 seconds, and the last one. Behind a `dnnlib.util.Logger` it shows on the console only.

    Args:
        total: number of steps; None if unknown.
        desc: what is being done.
        unit: name of a step.
        stream: where to write; stderr by default.
        enabled: False is silent; None (auto) is silent off a terminal for jobs that take less than 30 seconds.
        initial: steps that an earlier process did; they do not count for the rate.
    """

    def __init__(
        self,
        total: float | None,
        desc: str,
        unit: str = "it",
        stream: IO[str] | None = None,
        enabled: bool | None = None,
        initial: float = 0,
    ):
        self.total = total
        self.desc = desc
        self.unit = unit
        self.done: float = initial
        self._initial = initial
        stream = sys.stderr if stream is None else stream
        self._stream = getattr(stream, "console", stream)
        self._enabled = enabled is not False and self._stream is not None
        self._is_terminal = self._enabled and bool(getattr(self._stream, "isatty", lambda: False)())
        self._always_last = enabled is True
        self._start = self._last_shown = time.monotonic()
        self._num_shown = 0
        self._bar_visible = False

    def __enter__(self) -> "Progress":
        self._start = self._last_shown = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def update(self, n: float = 1) -> None:
        """Counts n further steps."""
        self.set(self.done + n)

    def set(self, n: float) -> None:
        """Sets the number of steps that are done."""
        self.done = n
        wait = _REDRAW_SEC if self._is_terminal else _LOG_SEC
        if self._enabled and (self._now() - self._last_shown >= wait or (self._is_terminal and not self._num_shown)):
            self._show()

    def clear(self) -> None:
        """Removes the line from the terminal, so that other output can be written; the next step redraws it."""
        if self._bar_visible:
            self._write(_ERASE)
            self._bar_visible = False

    def close(self) -> None:
        """Shows the last state and ends the line. Later calls do nothing."""
        if self._enabled:
            if self._is_terminal or self._num_shown or self._always_last:
                self._show()
            if self._bar_visible:
                self._write("\n")
            self._enabled = self._bar_visible = False

    def _now(self) -> float:
        return time.monotonic()

    def _show(self) -> None:
        self._last_shown = self._now()
        self._num_shown += 1
        line = self._line(self._last_shown - self._start)
        if self._is_terminal:
            width = shutil.get_terminal_size().columns - 1
            self._write(_ERASE + line[:width])
            self._bar_visible = True
        else:
            self._write(line + "\n")

    def _line(self, elapsed: float) -> str:
        rate = (self.done - self._initial) / elapsed if elapsed > 0 else 0.0
        speed = f"{rate:.3g} {self.unit}/s" if rate >= 1 or rate == 0 else f"{1 / rate:.3g} s/{self.unit}"
        if not self.total:
            return f"{self.desc}: {_count(self.done)} {self.unit}, {_duration(elapsed)}, {speed}"
        part = min(max(self.done / self.total, 0.0), 1.0)
        filled = int(part * _BAR_WIDTH)
        bar = f"[{'#' * filled}{'.' * (_BAR_WIDTH - filled)}] " if self._is_terminal else ""
        left = f"{_duration((self.total - self.done) / rate)} left" if rate > 0 and part < 1 else _duration(elapsed)
        return f"{self.desc}: {part:4.0%} {bar}{_count(self.done)}/{_count(self.total)} {self.unit}, {left}, {speed}"

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # a closed terminal must not end the job
            self._enabled = False
