"""The notebook runs from its first cell to its last, on a CPU."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "notebooks" / "compress.ipynb"


def test_cells_are_stored_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert all(cell["outputs"] == [] for cell in cells if cell["cell_type"] == "code")


def run(folder: Path, count: int, tmp_path: Path) -> str:
    """What the first code cells print in a folder."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"][:count]
    done = subprocess.run([sys.executable, "-c", "\n".join(texts)], cwd=folder, capture_output=True, text=True,
                          env={**os.environ, "NOTEBOOK_FOLDER": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_finds_the_tree_from_its_own_folder(tmp_path: Path) -> None:
    assert "263,531 parameters" in run(NOTEBOOK.parent, 2, tmp_path)


@pytest.mark.slow
def test_it_runs_from_beginning_to_end(tmp_path: Path) -> None:
    assert "the same images: True" in run(ROOT, 99, tmp_path)
