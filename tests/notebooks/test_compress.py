"""The notebook runs from its first cell to its last, on a CPU."""
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import run_command

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "notebooks" / "compress.ipynb"


def code() -> list[str]:
    """The text of every cell of code."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_cells_are_stored_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert all(cell["outputs"] == [] for cell in cells if cell["cell_type"] == "code")


def test_it_finds_the_tree_from_its_own_folder(tmp_path: Path) -> None:
    text = "\n".join([*code()[:2], "python('dataset_tool.py', '--help')"])
    done = subprocess.run([sys.executable, "-c", text], cwd=NOTEBOOK.parent, capture_output=True, text=True,
                          env={**os.environ, "NOTEBOOK_FOLDER": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert "263,531 parameters\nUsage: dataset_tool.py" in done.stdout


@pytest.mark.slow
def test_it_runs_from_beginning_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its commands run in this process, like its cells."""

    def run(words: list[str], **kwargs: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(words, 0, run_command(words[1:]), "")

    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("NOTEBOOK_FOLDER", str(tmp_path))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(subprocess, "run", run)
    exec("\n".join(code()), {})
    assert "the same images: True" in capsys.readouterr().out
