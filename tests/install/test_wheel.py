"""The wheel in an environment of its own: one command, one package, and a user's `training` stays the user's."""
import importlib.util
import json
import os
import pickle
import pickletools
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tests.helpers import run_command
from training.checkpoints.pickles import open_networks

ROOT = Path(__file__).parents[2]


def backend() -> Any:
    spec = importlib.util.spec_from_file_location("wheel_backend", ROOT / "build_backend" / "dgl_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call(*command: object, cwd: Path = ROOT) -> str:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = subprocess.run([str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr + run.stdout
    return run.stdout


def commands(env: Path, cwd: Path, *lines: list[str]) -> str:
    """What commands of the installed `dgl` print, one after the other in one process."""
    code = ("import json, sys, dgl.__main__\n"
            "for words in json.loads(sys.argv[1]):\n"
            "    dgl.__main__.main(words, prog_name='dgl', standalone_mode=False)")
    return call(env / "bin" / "python", "-c", code, json.dumps(lines), cwd=cwd)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    options = ["-q", "--no-deps", "--no-build-isolation", "--no-index"]
    call(sys.executable, "-m", "pip", "wheel", *options, "-w", folder, ROOT)
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="session")
def env(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel; what it depends on comes from the environment of the tests."""
    folder = tmp_path_factory.mktemp("env")
    call(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    call(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel)
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder of a user who has modules of the names that the source tree takes."""
    for name in ("training", "metrics", "dnnlib", "torch_utils", "train"):
        (tmp_path / f"{name}.py").write_text("MINE = True\n")
    return tmp_path


def test_the_wheel_takes_one_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert {name.split("/")[0] for name in names} == {"dgl", "dgl_stylegan2-0.1.0.dist-info"}
        metadata = archive.read("dgl_stylegan2-0.1.0.dist-info/METADATA").decode()
    for needed in ("dgl/_core/train.py", "dgl/_core/torch_utils/ops/csrc/cpu_kernels.cpp", "dgl/prune.py",
                   "dgl/_core/metrics/detectors/clothing32.pt", "dgl/py.typed",
                   "dgl/_core/training/export/page/program.js", "dgl/report/page.py"):
        assert needed in names
    assert not any("__pycache__" in name or name.startswith("dgl/_core/tests") for name in names)
    for extra in ("export", "hub", "log", "video", "dev"):
        assert f"Provides-Extra: {extra}" in metadata


def test_commands_work_from_any_folder(env: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    network = tiny.write_teacher(home / "net.pkl", c_dim=2)
    data = tiny.write_data(home / "data", num=8)
    dgl = env / "bin" / "dgl"
    assert "train" in call(dgl, "--help", cwd=home)
    names = ("train", "prune", "export", "metrics", "dataset", "doctor")
    assert commands(env, home, *([name, "--help"] for name in names)).count("Usage: dgl") == len(names)
    args = ["--network=net.pkl", "--seeds=1", "--class=1", "--device=cpu"]
    call(dgl, "generate", *args, "--outdir=installed", cwd=home)
    run_command(["generate.py", *args, "--outdir=tree"])
    assert (home / "installed/seed0001.png").read_bytes() == (home / "tree/seed0001.png").read_bytes()
    # A pickle written by the wheel names and embeds what one of the source tree does.
    result = commands(
        env, home,
        ["convert", f"--source={network}", "--dest=installed.pkl"],
        ["prune", "--teacher=net.pkl", "--width=0.5", "--no-latency", "--dest=student.pkl"],
        ["train", f"--data={data}", "--outdir=runs", "--dry-run", "--no-estimate", "--device=cpu"])
    run_command(["legacy.py", f"--source={network}", "--dest=tree.pkl"])
    texts = strings(home / "installed.pkl")
    assert texts == strings(home / "tree.pkl")
    assert not any("_core" in text for text in texts)
    assert open_networks(str(home / "student.pkl"))["G_ema"].img_resolution == 16
    # Options of a run name modules as the tree does.
    assert "training.networks.Generator" in result
    assert "_core" not in result


def strings(path: Path) -> list[str]:
    """All texts in a pickle: names of globals, program texts, keys."""
    with open(path, "rb") as f:
        return [arg for _, arg, _ in pickletools.genops(f) if isinstance(arg, str)]


def test_the_python_face_beside_modules_of_the_same_names(env: Path, home: Path) -> None:
    tiny.write_teacher(home / "net.pkl")
    (home / "mine.py").write_text(
        "import dgl, torch, pickle, sys\n"
        "G = dgl.load('net.pkl')\n"
        "z = torch.full([1, G.z_dim], 0.5)\n"
        "pickle.dump((G(z, None, noise_mode='const').numpy(), dgl.load('net.pkl', role='D').img_resolution),\n"
        "            open('found.pkl', 'wb'))\n"
        "import training, metrics, dnnlib, torch_utils, train\n"
        "assert training.MINE and metrics.MINE and dnnlib.MINE and torch_utils.MINE and train.MINE\n"
        "trusted = dgl.load('net.pkl', trust_pickle=True)\n"
        "assert torch.equal(trusted(z, None, noise_mode='const'), G(z, None, noise_mode='const'))\n"
        "import training\n"
        "assert training.MINE\n"
    )
    call(env / "bin" / "python", "mine.py", cwd=home)
    with open(home / "found.pkl", "rb") as f:
        image, resolution = pickle.load(f)
    G = open_networks(str(home / "net.pkl"))["G_ema"]
    assert resolution == 16
    assert torch.equal(torch.from_numpy(image), G(torch.full([1, 16], 0.5), None, noise_mode="const"))


def test_imports_are_rewritten() -> None:
    rewritten = backend().rewritten
    text = ("import dnnlib\nfrom training.data import files\n    \nfrom . import x\nimport dnn\n"
            "from dnnlib import cli\n"
            "def f():\n    from torch_utils.misc import y  # from torch_utils\n    import dnnlib as d\n"
            "NAME = 'training.networks.Generator'\nfrom dgl import prune\n")
    assert rewritten(text, {"dnnlib", "training", "torch_utils"}) == (
        "from dgl._core import dnnlib\nfrom dgl._core.training.data import files\n    \nfrom . import x\nimport dnn\n"
        "from dgl._core.dnnlib import cli\n"
        "def f():\n    from dgl._core.torch_utils.misc import y  # from torch_utils\n"
        "    from dgl._core import dnnlib as d\nNAME = 'training.networks.Generator'\nfrom dgl import prune\n")
    with pytest.raises(ValueError, match="line 1: expected `import NAME` of one module"):
        rewritten("import dnnlib.util", {"dnnlib"})
