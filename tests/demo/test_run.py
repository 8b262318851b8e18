"""The demo's order of events: what it calls, what it does not do twice, and what it says when something is wrong."""
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from click.testing import CliRunner

from demo import run
from dgl import cost
from tests.demo.test_report import COSTS
from tests.helpers import run_command
from training.data import image_grid


class FakeCommands:
    """Stands for every command line: notes it and writes what it would write."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, demo: run.Demo, *command: str) -> str:
        self.lines.append(" ".join(command))
        flags = dict(re.findall(r"--([\w-]+)=(\S+)", self.lines[-1]))
        if command[0] == "dataset_tool.py":
            Path(flags["dest"]).write_bytes(b"")
        elif command[0] == "prune_init.py":
            Path(flags["dest"]).write_bytes(b"")
            Path(flags["dest"]).with_suffix(".cost.json").write_text(json.dumps({"costs": COSTS}))
        elif command[0] == "train.py":
            folder = Path(flags.get("resume") or Path(flags["outdir"], "00000-train-dgl"))
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "training_options.json").write_text("{}")
            (folder / f"network-snapshot-{demo.kimg:06d}.pkl").write_bytes(b"")
        elif command[0] == "generate.py":
            Path(flags["outdir"]).mkdir(parents=True)
            PIL.Image.fromarray(np.zeros([32, 32], dtype=np.uint8)).save(Path(flags["outdir"], "seed0000.png"))
        else:
            assert command[0] == "calc_metrics.py"
            return ('{"results": {"fd@x": 3.5}}\n{"results": {"precision@x": 0.5, "recall@x": 0.25}}\n'
                    '{"results": {"agreement_psnr": 20.0, "agreement_ssim": 0.5, "agreement_distance@D": 0.1}}\n')
        return ""


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeCommands:
    commands = FakeCommands()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run.Demo, "run", lambda demo, *command: commands(demo, *command))
    return commands


def call(out: Path, *options: str) -> Any:
    return CliRunner().invoke(run.main, [f"--out={out}", *options])


def test_runs_every_command_once(fake: FakeCommands, tmp_path: Path) -> None:
    result = call(tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in fake.lines] == [
        *("dataset_tool.py", "prune_init.py", "prune_init.py", "train.py"),
        *["calc_metrics.py"] * 4, *["generate.py"] * 4,
    ]
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [(row["network"], row["fd"], row["recall"]) for row in results["networks"]] == [
        (name, 3.5, 0.25) for name in ("teacher", "sliced", "refitted", "distilled")
    ]
    assert (tmp_path / "out" / "images.png").is_file()
    assert (tmp_path / "out" / "results.md").read_text() in result.output
    count = len(fake.lines)
    again = call(tmp_path / "out")
    assert again.exit_code == 0
    assert len(fake.lines) == count
    assert again.output.count("is there already.") == count


def test_real_images_are_for_the_scores_alone(fake: FakeCommands, tmp_path: Path) -> None:
    call(tmp_path / "out")
    assert "--range=8000:" in fake.lines[0]
    assert {line.split()[0] for line in fake.lines if "test.zip" in line} == {"dataset_tool.py", "calc_metrics.py"}
    assert not [line for line in fake.lines if line.startswith("train.py") and "--data" in line]


def test_an_interrupted_training_goes_on(fake: FakeCommands, tmp_path: Path) -> None:
    folder = tmp_path / "out" / "runs" / "00000-train-dgl"
    call(tmp_path / "out")
    (folder / "network-snapshot-000025.pkl").unlink()
    assert call(tmp_path / "out").exit_code == 0
    assert fake.lines[-1] == f"train.py --resume={folder}"


def test_other_settings_start_over(fake: FakeCommands, tmp_path: Path) -> None:
    call(tmp_path / "out")
    count = len(fake.lines)
    result = call(tmp_path / "out", "--kimg=2")
    assert "was made with other settings or inputs: starting over." in result.output
    assert len(fake.lines) == 2 * count


def test_leaves_other_folders_alone(fake: FakeCommands, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    result = call(tmp_path)
    assert result.exit_code == 1
    assert f"Error: --out: {tmp_path} holds files that are not the demo's; name a new folder" in result.output
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_interruption_is_no_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupt(demo: run.Demo, *command: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run.Demo, "run", interrupt)
    result = call(tmp_path / "out")
    assert result.exit_code == 1
    assert "Error: interrupted; the same command resumes from here" in result.output


def test_a_failing_command_is_named(tmp_path: Path) -> None:
    demo = run.Demo(tmp_path, kimg=1, num_gen=2)
    assert demo.run("-c", "print('hello')") == "hello\n"
    with pytest.raises(run.UserError, match="-c ended with exit status 3"):
        demo.run("-c", "import sys; sys.exit(3)")


@pytest.mark.slow
def test_the_whole_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its command lines as they are, but in this process and with small pictures."""
    monkeypatch.chdir(run.ROOT)
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(run.Demo, "run", lambda demo, *command: run_command(command))
    monkeypatch.setattr(image_grid, "MAX_PIXELS", (1, 1))
    monkeypatch.setattr(cost, "MEASURING_SEC", 0.1)
    done = call(tmp_path / "out", "--kimg=1", "--num-gen=64")
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["networks"]
    assert rows[0]["params"] > 2 * rows[1]["params"]
    assert rows[0]["fd"] < rows[2]["fd"] < rows[1]["fd"]
    assert rows[1]["agreement_psnr"] < rows[2]["agreement_psnr"] < rows[3]["agreement_psnr"]
    with PIL.Image.open(tmp_path / "out" / "images.png") as picture:
        assert picture.size[1] == 4 * 32 * 3
