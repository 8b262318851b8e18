"""The progress bar, on a terminal and off."""
import io
import sys

import pytest

from dnnlib import progress
from dnnlib.progress import Progress
from dnnlib.util import Logger


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests move."""

    class Clock:
        now = 100.0

    monkeypatch.setattr(progress.time, "monotonic", lambda: Clock.now)
    return Clock


def test_terminal_redraws_one_line_ten_times_a_second(clock):
    out = Terminal()
    with Progress(1000, "Work", stream=out) as bar:
        for _ in range(1000):
            clock.now += 0.01
            bar.update()
    text = out.getvalue()
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert 95 <= text.count("\r") <= 103
    assert "Work: 100% [####################] 1000/1000 it, 0:10, 100 it/s" in text


def test_remaining_time_and_rate(clock):
    out = Terminal()
    bar = Progress(100, "Work", unit="img", stream=out)
    clock.now += 50
    bar.set(25)
    assert out.getvalue().endswith("Work:  25% [#####...............] 25/100 img, 2:30 left, 2 s/img")
    clock.now += 4000
    bar.set(26)
    assert "26/100 img, 3:12:" in out.getvalue()


def test_steps_of_an_earlier_process_do_not_count_for_the_rate(clock):
    out = Terminal()
    bar = Progress(100, "Work", unit="img", stream=out, initial=60)
    clock.now += 50
    bar.set(70)
    assert out.getvalue().endswith("Work:  70% [##############......] 70/100 img, 2:30 left, 5 s/img")


def test_log_gets_a_line_every_half_minute_and_the_last(clock):
    out = io.StringIO()
    with Progress(100, "Work", stream=out) as bar:
        for _ in range(100):
            clock.now += 1
            bar.update()
    lines = out.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["30%", "60%", "90%", "100%"]
    assert "\r" not in out.getvalue()


@pytest.mark.parametrize(("enabled", "num_lines"), [(None, 0), (True, 1), (False, 0)])
def test_short_job_in_a_log(clock, enabled, num_lines):
    out = io.StringIO()
    with Progress(2, "Work", stream=out, enabled=enabled) as bar:
        clock.now += 1
        bar.update(2)
    assert len(out.getvalue().splitlines()) == num_lines


def test_disabled_is_silent_on_a_terminal_too(clock):
    out = Terminal()
    with Progress(2, "Work", stream=out, enabled=False) as bar:
        clock.now += 100
        bar.update()
        bar.clear()
    assert out.getvalue() == ""
    assert bar.done == 1


def test_unknown_total_and_fractions(clock):
    out = io.StringIO()
    bar = Progress(None, "Fetch", unit="MB", stream=out, enabled=True)
    clock.now += 2
    bar.update(2.5)
    bar.close()
    bar.close()
    assert out.getvalue() == "Fetch: 2.5 MB, 0:02, 1.25 MB/s\n"


def test_clear_makes_room_for_other_output(clock):
    out = Terminal()
    bar = Progress(10, "Work", stream=out)
    bar.update()
    bar.clear()
    assert out.getvalue().endswith("\r\x1b[K")
    size = len(out.getvalue())
    bar.clear()
    assert len(out.getvalue()) == size


def test_error_in_the_body_ends_the_line(clock):
    out = Terminal()

    def work():
        with Progress(10, "Work", stream=out) as bar:
            bar.update()
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        work()
    assert out.getvalue().endswith("\n")
    assert "100%" not in out.getvalue()


def test_closed_stream_does_not_end_the_job(clock):
    out = Terminal()
    bar = Progress(10, "Work", stream=out)
    out.close()
    bar.update()
    bar.close()
    assert bar.done == 1


def test_bar_stays_out_of_the_log_file(clock, tmp_path, monkeypatch):
    console = Terminal()
    monkeypatch.setattr(sys, "stdout", console)
    with Logger(tmp_path / "log.txt") as logger:
        with Progress(1, "Work", enabled=True) as bar:
            bar.update()
        logger.write("done\n")
    assert "Work: 100%" in console.getvalue()
    assert (tmp_path / "log.txt").read_text() == "done\n"
