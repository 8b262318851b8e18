"""Starting and ending local processes: mistakes, exit statuses, signals."""
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dnnlib.errors import UserError
from tests.helpers import is_alive, wait_until
from tests.torch_utils import light_jobs
from torch_utils.launch import RankError, default_timeout, launch


def test_users_mistake_stays_one():
    with pytest.raises(UserError, match=r"^data.zip: no such file \(rank [01]\)$"):
        launch(light_jobs.user_error, num_procs=2)


def test_exit_status():
    with pytest.raises(RankError, match=r"^rank [01] exited with status 3$"):
        launch(light_jobs.exit_with_3, num_procs=2)


@pytest.mark.parametrize("text", ["soon", "nan", "0", "-3", "inf"])
def test_timeout_of_the_environment(monkeypatch, text):
    monkeypatch.setenv("SG_DIST_TIMEOUT_SEC", "7.5")
    assert default_timeout() == 7.5
    monkeypatch.setenv("SG_DIST_TIMEOUT_SEC", text)
    with pytest.raises(UserError, match=f"SG_DIST_TIMEOUT_SEC: expected a number of seconds above 0, found '{text}'"):
        default_timeout()


def start_waiting(folder, is_polite):
    """A launcher in a process of its own, with both ranks running."""
    code = (
        "import sys; from torch_utils.launch import launch; from tests.torch_utils import light_jobs\n"
        "if __name__ == '__main__':\n"
        "    launch(light_jobs.wait_for_signal, (sys.argv[1], sys.argv[2] == '1'), 2, 60)\n"
        "    print('in peace')\n"
    )
    script = folder / "script.py"
    script.write_text(code)
    root = str(Path(__file__).parents[2])
    launcher = subprocess.Popen(
        [sys.executable, str(script), str(folder), str(int(is_polite))],
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: len(pids(folder)) == 2)
    return launcher


def pids(folder):
    return [int(text) for path in folder.glob("*.pid") if (text := path.read_text())]


def test_sigterm_lets_the_ranks_finish(tmp_path):
    launcher = start_waiting(tmp_path, is_polite=True)
    launcher.send_signal(signal.SIGTERM)
    out, err = launcher.communicate(timeout=60)
    assert (launcher.returncode, out, err) == (0, "in peace\n", "")
    assert len(list(tmp_path.glob("*.saved"))) == 2


@pytest.mark.parametrize(
    ("signum", "status"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, -signal.SIGINT)]
)
def test_signal_ends_ranks_that_do_not_listen(tmp_path, signum, status):
    launcher = start_waiting(tmp_path, is_polite=False)
    launcher.send_signal(signum)
    launcher.communicate(timeout=60)
    assert launcher.returncode == status
    assert not any(is_alive(pid) for pid in pids(tmp_path))


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_killed_launcher_leaves_no_ranks(tmp_path):
    launcher = start_waiting(tmp_path, is_polite=True)
    launcher.kill()
    launcher.communicate(timeout=60)
    wait_until(lambda: not any(is_alive(pid) for pid in pids(tmp_path)))
    assert len(list(tmp_path.glob("*.saved"))) == 0
