"""Without the plugin, its commands and its one block of train.py, the rest is a complete StyleGAN2-ADA."""
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny

ROOT = Path(__file__).parents[2]
PARTS = ["dnnlib", "torch_utils", "metrics", "training", "tests", "benchmarks", "pyproject.toml"]
CORE_TESTS = ["dnnlib", "torch_utils", "metrics", "training"]
BLOCK = re.compile(r"# The plugin that compresses .*?PLUGINS\.append\(dgl_options\)\n", re.DOTALL)


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree without the plugin."""
    folder = tmp_path_factory.mktemp("core")
    unfinished = shutil.ignore_patterns("*.pyc.*")  # what is compiled already is copied: sources keep their times
    for name in PARTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=unfinished)
        else:
            shutil.copy2(source, folder)
    for script in ROOT.glob("*.py"):
        if script.name != "prune_init.py":
            shutil.copy2(script, folder)
    text = (folder / "train.py").read_text(encoding="utf-8")
    assert len(BLOCK.findall(text)) == 1
    (folder / "train.py").write_text(BLOCK.sub("", text), encoding="utf-8")
    for name in ("dgl", "demo", "examples", "benchmarks", "toy_family"):
        shutil.rmtree(folder / "tests" / name, ignore_errors=True)
    return folder


def run(core: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment.pop("PYTHONPATH", None)
    return subprocess.run([sys.executable, *command], cwd=core, env=environment, capture_output=True, text=True,
                          timeout=250)


def test_nothing_of_the_plugin_is_left(core: Path) -> None:
    result = run(core, "-c", "import train, sys; print([n for n in sys.modules if n.split('.')[0] == 'dgl'])")
    assert result.stdout == "[]\n", result.stderr


@pytest.mark.slow
def test_the_tests_of_the_core_are_collected(core: Path) -> None:
    folders = [f"tests/{name}" for name in CORE_TESTS]
    result = run(core, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *folders)
    assert result.returncode == 0, result.stdout[-3000:]
    assert "error" not in result.stdout.splitlines()[-1]


@pytest.mark.slow
def test_a_tick_is_trained(core: Path, tmp_path: Path) -> None:
    data = tiny.write_data(tmp_path / "images", side=8)
    small = ["--cbase=64", "--cmax=8", "--z-dim=8", "--w-dim=8", "--map-depth=1", "--batch=250", "--batch-gpu=125",
             "--mbstd-group=5"]
    result = run(core, "train.py", "--cfg=stylegan2", *small, "--kimg=1", "--tick=1", "--metrics=none", "--workers=0",
                 "--device=cpu", f"--data={data}", f"--outdir={tmp_path}/runs")
    assert result.returncode == 0, result.stderr[-3000:]
    assert list((tmp_path / "runs").glob("*/network-snapshot-000001.pkl"))


def test_core_tests_do_not_import_the_plugin() -> None:
    pattern = re.compile(r"^\s*(?:from|import) (?:dgl|prune_init|demo)\b", re.MULTILINE)
    result = [path.name for name in CORE_TESTS for path in (ROOT / "tests" / name).rglob("*.py")
             if pattern.search(path.read_text(encoding="utf-8"))]
    assert result == []
