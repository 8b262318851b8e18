"""Whole runs of distillation: without data, resumed exactly, in two processes, with a game after it, for BigGAN."""
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import train
from dgl import teacher as teachers
from dgl.comparison import draw
from tests import tiny, tiny_biggan
from tests.training import tiny_runs
from training.checkpoints import pickles

ROOT = Path(__file__).parents[2]
GAME = {"G_reg_interval": 2, "D_reg_interval": 2}


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("files")
    return {
        "teacher": tiny.write_teacher(folder / "teacher.pkl"),
        "conditional": tiny.write_teacher(folder / "conditional.pkl", c_dim=3),
        "biggan": tiny_biggan.write_teacher(folder / "biggan.pkl"),
        "data": tiny.write_data(folder / "data"),
    }


def configuration(paths: dict[str, str], name: str, *args: str, **loss: Any) -> dict[str, Any]:
    """Ten iterations of four images; the game, if there is one, begins after six."""
    cfg = "dgl-biggan" if name == "biggan" else "dgl"
    data = "teacher" if "--data=teacher" in args or "--game-kimg=1" not in args else paths["data"]
    more = [f"--cfg={cfg}", f"--teacher={paths[name]}", "--width=0.5", "--batch=4", "--workers=0", *args]
    config = tiny_runs.options(data, *more)
    distil = 0.024 if "--game-kimg=1" in args else 0.04
    config["loss_kwargs"].update(distil_kimg=distil, distil_warmup_kimg=0.008, **loss)
    config["ema_start_kimg"] = 0.008
    if name == "biggan":
        config["D_reg_interval"] = None
    if "start_kimg" in config["training_set_kwargs"]:
        config["training_set_kwargs"]["start_kimg"] = distil
    return config


def distance(G: torch.nn.Module, teacher: torch.nn.Module) -> float:
    """Mean absolute difference of images of the same latents."""
    z = torch.randn([32, 16], generator=torch.Generator().manual_seed(9))
    c = torch.zeros([32, 0])
    with torch.no_grad():
        images = [draw(net, z, c, net.mapping(z, c)) for net in (G, teacher)]
    return float((images[0] - images[1]).abs().mean())


@pytest.mark.slow
def test_a_student_comes_closer_to_its_teacher_without_data(paths: dict[str, str], tmp_path: Path) -> None:
    """The command line alone, without --data and --outdir; it cannot be made longer afterwards."""
    args = ["--cfg=dgl", f"--teacher={paths['teacher']}", "--width=0.5", "--kimg=1", "--batch=10", "--device=cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "train.py"), *args]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    again = CliRunner().invoke(train.main, [f"--resume={folder}", "--kimg=2", "--dry-run"])
    assert again.exit_code != 0
    assert "--kimg: cannot change the 1 kimg of distillation when resuming" in again.output
    assert folder.name == "00000-teacher-dgl-kimg1-batch10"
    assert (folder / "teacher.png").exists()
    assert not (folder / "reals.png").exists()
    nets = [pickles.open_networks(str(path)) for path in sorted(folder.glob("network-snapshot-*.pkl"))]
    teacher = teachers.load(paths["teacher"])
    first, last = (distance(net["G_ema"], teacher.G_ema) for net in (nets[0], nets[-1]))
    assert last < first
    for name, tensor in nets[-1]["D"].state_dict().items():
        assert torch.equal(tensor, teacher.D.state_dict()[name]), "no discriminator is trained"
    for name, tensor in nets[-1]["G_ema"].mapping.state_dict().items():
        assert torch.equal(tensor, teacher.G_ema.mapping.state_dict()[name])
    records = [json.loads(line) for line in (folder / "stats.jsonl").read_text().splitlines()]
    assert all(record["Loss/distil/loss"]["num"] > 0 for record in records)
    assert 0 < records[-1]["Loss/distil/lr"]["mean"] < 0.008


CASES = {  # name → teacher, options, ticks after which the run is stopped; the game begins in the third
    "distilled": ("conditional", ["--kd=rgb", "--kd=torgb", "--kd=latent=0.1"], 2),
    "game": ("teacher", ["--game-kimg=1", "--cond=0"], 3),
    "game-of-teacher": ("conditional", ["--game-kimg=1", "--data=teacher", "--dgl-weight=1"], 2),
    "biggan-game": ("biggan", ["--game-kimg=1", "--data=teacher"], 2),
}


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_is_an_unbroken_one_to_the_bit(case: str, paths: dict[str, str], tmp_path: Path) -> None:
    name, args, ticks = CASES[case]
    config = configuration(paths, name, *args)
    stops = iter([False] * (ticks - 1) + [True])
    unbroken = tiny_runs.run(tmp_path / "unbroken", config)
    broken = tiny_runs.run(tmp_path / "broken", config, abort_fn=lambda: next(stops))
    assert tiny_runs.last_state(broken)["cur_nimg"] < 40
    tiny_runs.run(broken, config, resume_state=True)
    assert tiny_runs.differences(tiny_runs.last_state(broken), tiny_runs.last_state(unbroken)) == []
    records = tiny_runs.records(unbroken)
    assert records[0]["Loss/distil/loss"]["num"] > 0
    assert ("Loss/D/loss" in records[-1]) == ("--game-kimg=1" in args)
    if "--game-kimg=1" in args:
        assert records[-1]["Loss/G/kd_rgb"]["num"] > 0, "distillation is kept on in the game"
        assert records[-1]["Loss/G/dgl"]["num"] > 0


def test_networks_that_do_not_fit_each_other(paths: dict[str, str], tmp_path: Path) -> None:
    nets = {**tiny.tiny_networks(), "D": tiny.tiny_discriminator(resolution=32)}
    pickles.save_networks(pickles.snapshot_data(nets, None), tmp_path / "mixed.pkl")
    args = ["--cfg=dgl", f"--teacher={tmp_path}/mixed.pkl", "--width=0.5", "--data=teacher", f"--outdir={tmp_path}"]
    result = CliRunner().invoke(train.main, args)
    assert result.exit_code != 0
    assert "--teacher: img_resolution of the generator in" in result.output
    assert "is 16, of its discriminator 32, so its images cannot be shown to it" in result.output


def test_a_game_needs_images(paths: dict[str, str], tmp_path: Path) -> None:
    args = ["--cfg=dgl", f"--teacher={paths['teacher']}", "--width=0.5", "--game-kimg=5", f"--outdir={tmp_path}"]
    result = CliRunner().invoke(train.main, args)
    assert result.exit_code != 0
    assert "--game-kimg: the game needs real images; pass --data=PATH, or --data=teacher" in result.output


@pytest.mark.slow
def test_two_processes(paths: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "train.py", "--cfg=dgl", f"--teacher={paths['teacher']}", "--width=0.5", "--kimg=1",
               "--game-kimg=1", "--data=teacher", "--batch=200", "--batch-gpu=50", "--kd=rgb", "--gpus=2",
               "--device=cpu", f"--outdir={tmp_path}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    (folder,) = tmp_path.iterdir()
    records = tiny_runs.records(folder)
    assert records[0]["Loss/distil/loss"]["num"] == 200, "both ranks report"
    assert records[-1]["Loss/D/loss"]["num"] > 0
