"""SIGTERM and SIGINT to all processes of a training at once, as schedulers and terminals send them, or to one."""
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

import train
from tests import tiny
from tests.helpers import forget_statistics, is_alive, wait_until

ROOT = Path(train.__file__).parent
TIMEOUT_SEC = 200
SMALL = ["--cfg=stylegan2", "--cbase=64", "--cmax=8", "--z-dim=8", "--w-dim=8", "--map-depth=1", "--device=cpu",
         "--metrics=none", "--batch=4", "--mbstd-group=2", "--aug=noaug", "--kimg=10000"]


def command(folder, gpus, workers):
    """The words of a training that does not end by itself."""
    data = tiny.write_data(folder / "data", num=8, side=8)
    return ["train.py", f"--data={data}", f"--outdir={folder}/runs", f"--workers={workers}", f"--gpus={gpus}", *SMALL]


def has_state(folder):
    """Whether the first tick is over."""
    return bool(list(folder.glob("runs/*/state/*.pt")))


def descendants(pid):
    """All processes that a process and its children started."""
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def assert_saved(folder, output, gpus):
    """The run says where it stopped and how to resume it, and its state is there."""
    (run_dir,) = (folder / "runs").iterdir()
    assert "Traceback" not in output
    assert "exited unexpectedly" not in output
    last = [line for line in output.splitlines() if line.startswith("Interrupted at image ")]
    assert [line.endswith("; the state is saved") for line in last] == [True]
    assert f"To resume this run: python train.py --resume={run_dir}\n" in output
    image = int(last[0].split(";")[0].removeprefix("Interrupted at image ").replace(",", ""))
    assert (run_dir / "state" / f"training-state-{image:09d}.pt").exists()
    assert json.loads((run_dir / "training_options.json").read_text())["num_gpus"] == gpus


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize(
    ("number", "gpus", "workers"),
    [(signal.SIGINT, 1, 2), pytest.param(signal.SIGTERM, 2, 1, marks=pytest.mark.slow)],
)
def test_the_state_is_saved(tmp_path, number, gpus, workers):
    words = [sys.executable, *command(tmp_path, gpus, workers)]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        wait_until(lambda: process.poll() is not None or has_state(tmp_path), TIMEOUT_SEC)
        assert process.poll() is None, process.communicate()[0]
        started = descendants(process.pid)
        assert len(started) >= 2 * gpus
        for pid in [*started, process.pid]:
            os.kill(pid, number)
        output = process.communicate(timeout=TIMEOUT_SEC)[0]
    finally:
        process.kill()
    assert process.returncode == 128 + number, output
    assert_saved(tmp_path, output, gpus)
    wait_until(lambda: not any(map(is_alive, started)))


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_a_signal_to_one_rank_ends_the_others_with_it(tmp_path):
    started = []

    def send():
        wait_until(lambda: has_state(tmp_path), TIMEOUT_SEC)
        ranks = {process.name: process.pid for process in multiprocessing.active_children()}
        started.extend(descendants(psutil.Process(ranks["rank0"]).parent().pid))  # it starts the workers as well
        os.kill(ranks["rank1"], signal.SIGTERM)

    sender = threading.Thread(target=send)
    sender.start()
    forget_statistics()
    result = CliRunner().invoke(train.main, command(tmp_path, gpus=2, workers=1)[1:])
    sender.join()
    assert result.exit_code == 128 + signal.SIGTERM, result.output
    (log,) = (tmp_path / "runs").glob("*/log.txt")
    assert_saved(tmp_path, log.read_text(), gpus=2)
    assert len(started) >= 4
    wait_until(lambda: not any(map(is_alive, started)))
