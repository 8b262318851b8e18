"""Run directories of strangers: damaged options and states are refused in one line, or the run is resumed."""
import contextlib
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tests.fuzz.mutations import Count, damaged, fuzz, tried
from tests.fuzz.structures import mutations
from tests.fuzz.test_readers import CASES, SEED, check
from tests.training import tiny_runs
from torch_utils import training_stats
from training import run_config
from training.training_loop import training_loop

SMALL = ["--cfg=stylegan2", "--cbase=16", "--cmax=4", "--z-dim=4", "--w-dim=4", "--map-depth=1", "--batch=2",
         "--mbstd-group=2", "--workers=0", "--aug=ada"]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run of two images that is complete, and its options."""
    folder = tmp_path_factory.mktemp("runs")
    data = tiny.write_data(folder / "data", num=4, side=8)
    options = tiny_runs.options(data, *SMALL, total_kimg=0.002)
    run_dir = tiny_runs.run(folder / "run", options)
    (run_dir / run_config.FILE_NAME).write_text(json.dumps({**options, "num_gpus": 1}))
    return run_dir, options


def resume(run_dir: Path) -> None:
    """What `--resume` does, in a process that has trained before."""
    training_stats._counters = training_stats._Counters()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        training_loop(run_config.read(run_dir), str(run_dir), resume=True, abort_fn=lambda: True)


def test_bytes_of_options(run: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    content = (run[0] / run_config.FILE_NAME).read_bytes()
    path = tmp_path / run_config.FILE_NAME
    check(fuzz(path, damaged(content, SEED, 3 * CASES), lambda path: run_config.read(path.parent)), "options, bytes")


def copied(run_dir: Path, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return shutil.copytree(run_dir, folder)


def test_values_of_options(run: tuple[Path, dict[str, Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run_dir, options = run
    count, folder = Count(), tmp_path / "run"
    for changed in mutations(options, SEED, max(CASES // 3, 1), plain=True):
        if os.path.lexists(str(changed.get("run_dir", ""))):
            continue
        if isinstance(changed.get("total_kimg"), (int, float)) and changed["total_kimg"] > 0.002:
            changed["total_kimg"] = 0.002  # otherwise it would train for long
        copied(run_dir, folder)
        (folder / run_config.FILE_NAME).write_text(json.dumps(changed))
        tried(count, lambda: resume(folder))
    check(count, "options, values")


def test_values_of_states(run: tuple[Path, dict[str, Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run_dir, _ = run
    newest = max((run_dir / "state").iterdir())
    state = torch.load(newest, weights_only=True)
    count, folder = Count(), copied(run_dir, tmp_path / "run")
    for changed in mutations(state, SEED, max(CASES // 3, 1), plain=False):
        shutil.rmtree(folder / "state")
        (folder / "state").mkdir()
        torch.save(changed, folder / "state" / newest.name)
        tried(count, lambda: resume(folder))
    check(count, "states, values")


def test_bytes_of_states(run: tuple[Path, dict[str, Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = copied(run[0], tmp_path / "run")
    newest, *others = sorted((folder / "state").iterdir(), reverse=True)
    for path in others:
        path.unlink()
    contents = damaged(newest.read_bytes(), SEED, max(CASES // 3, 1))
    check(fuzz(newest, contents, lambda _: resume(folder)), "states, bytes")
