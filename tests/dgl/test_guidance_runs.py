"""Whole runs with each form of guidance beside the verdict: resumed exactly, and in two processes."""
from pathlib import Path

import pytest

from tests import tiny
from tests.training import tiny_runs, training_jobs
from torch_utils import distributed

FORMS = ["relative", "ratio", "heads"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.pkl")


@pytest.mark.parametrize("form", FORMS)
def test_a_resumed_run_is_an_unbroken_one_to_the_bit(form: str, path: str, tmp_path: Path) -> None:
    data = tiny.write_data(tmp_path / "data")
    config = tiny_runs.options(data, *tiny_runs.DGL, f"--teacher={path}", "--width=0.5", f"--guidance={form}")
    assert config["loss_kwargs"]["guidance"] == form
    stops = iter([False, True])
    unbroken = tiny_runs.run(tmp_path / "unbroken", config)
    broken = tiny_runs.run(tmp_path / "broken", config, abort_fn=lambda: next(stops))
    tiny_runs.run(broken, config, resume_state=True)
    assert tiny_runs.differences(tiny_runs.last_state(broken), tiny_runs.last_state(unbroken)) == []
    records = tiny_runs.records(unbroken)
    assert records[-1]["Loss/teacher/scores/fake"]["num"] > 0


@pytest.fixture(scope="module")
def two_ranks(path: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Form → run of two processes. 1,024 images: the ratio is calibrated on the way, from the logits of both ranks."""
    folder = tmp_path_factory.mktemp("ranks")
    data = tiny.write_data(folder / "data", num=50)
    jobs = []
    for form in FORMS:
        args = ["--cfg=dgl", "--recipe=paper", f"--teacher={path}", "--width=0.5", f"--guidance={form}", "--batch=256",
                "--batch-gpu=128", "--workers=0", "--gpus=2"]
        jobs.append((str(folder / form), tiny_runs.options(data, *args, total_kimg=1, kimg_per_tick=1)))
    distributed.launch(training_jobs.train, (str(folder), jobs), num_procs=2, timeout_sec=120)
    return {form: folder / form for form in FORMS}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_two_processes(form: str, two_ranks: dict[str, Path]) -> None:
    state = tiny_runs.last_state(two_ranks[form])["loss"]
    if form == "ratio":
        assert state["ratio"]["is_calibrated"]
        assert (state["ratio"]["a"], state["ratio"]["b"]) != (1.0, 0.0)
    assert tiny_runs.records(two_ranks[form])[-1]["Loss/teacher/scores/fake"]["num"] > 0
