"""SIGTERM and SIGINT to all processes of a training at once, as schedulers and terminals send them, or to one."""
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import train
from tests import tiny
from tests.helpers import is_alive, wait_until

ROOT = Path(train.__file__).parent
TIMEOUT_SEC = 200
SMALL = ["--cfg=stylegan2", "--cbase=64", "--cmax=8", "--z-dim=8", "--w-dim=8", "--map-depth=1", "--device=cpu",
         "--metrics=none", "--batch=4", "--mbstd-group=2", "--aug=noaug", "--kimg=10000"]


def descendants(process):
    """All processes that a process and its children started."""
    return [child.pid for child in psutil.Process(process.pid).children(recursive=True)]


def rank_of(process):
    """One of the processes that train."""
    ranks = [child.pid for child in psutil.Process(process.pid).children()
             if "resource_tracker" not in " ".join(child.cmdline())]
    return ranks[1]


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize(
    ("number", "gpus", "is_alone"),
    [(signal.SIGINT, 1, False), pytest.param(signal.SIGTERM, 2, False, marks=pytest.mark.slow),
     pytest.param(signal.SIGTERM, 2, True, marks=pytest.mark.slow)],
)  # fmt: skip
def test_the_state_is_saved(tmp_path, number, gpus, is_alone):
    """With `is_alone`, the signal reaches one of the ranks only, and the others end with it."""
    data = tiny.write_data(tmp_path / "data", num=8, side=8)
    command = [sys.executable, "train.py", f"--data={data}", f"--outdir={tmp_path}/runs", "--workers=2",
               f"--gpus={gpus}", *SMALL]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        wait_until(lambda: process.poll() is not None or bool(list(tmp_path.glob("runs/*/state/*.pt"))), TIMEOUT_SEC)
        assert process.poll() is None, process.communicate()[0]
        started = descendants(process)
        assert len(started) >= 2 * gpus
        for pid in [rank_of(process)] if is_alone else [*started, process.pid]:
            os.kill(pid, number)
        output = process.communicate(timeout=TIMEOUT_SEC)[0]
    finally:
        process.kill()
    assert process.returncode == 128 + number, output
    (run_dir,) = (tmp_path / "runs").iterdir()
    assert "Traceback" not in output
    assert "exited unexpectedly" not in output
    last = [line for line in output.splitlines() if line.startswith("Interrupted at image ")]
    assert [line.endswith("; the state is saved") for line in last] == [True]
    assert f"To resume this run: python train.py --resume={run_dir}\n" in output
    image = int(last[0].split(";")[0].removeprefix("Interrupted at image ").replace(",", ""))
    assert (run_dir / "state" / f"training-state-{image:09d}.pt").exists()
    assert json.loads((run_dir / "training_options.json").read_text())["num_gpus"] == gpus
    wait_until(lambda: not any(map(is_alive, started)))
