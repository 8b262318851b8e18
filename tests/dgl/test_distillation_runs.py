"""Whole runs of distillation: without data, resumed exactly, in two processes, with a game after it, for BigGAN."""
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import train
from dgl import teacher as teachers
from dgl.comparison import draw
from dgl.student import initialise
from tests import tiny, tiny_biggan
from tests.dgl import test_rectangular_slices as rectangular
from tests.helpers import run_command
from tests.training import tiny_runs
from training.checkpoints import pickles
from training.networks import Generator

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
    data = "teacher" if "--data=teacher" in args or "--game-kimg=1" not in args else paths["data"]
    more = ["--cfg=dgl", f"--teacher={paths[name]}", "--width=0.5", "--batch=4", "--workers=0", *args]
    config = tiny_runs.options(data, *more)
    distil = 0.024 if "--game-kimg=1" in args else 0.04
    config["loss_kwargs"].update(distil_kimg=distil, distil_warmup_kimg=0.008, **loss)
    config["ema_start_kimg"] = 0.008
    if name == "biggan":
        config["D_reg_interval"] = None
    if "ema_later_start_kimg" in config:
        config["ema_later_start_kimg"] = distil
    return config


def distance(G: torch.nn.Module, teacher: torch.nn.Module) -> float:
    """Mean absolute difference of images of the same latents."""
    z = torch.randn([32, 16], generator=torch.Generator().manual_seed(9))
    c = torch.zeros([32, 0])
    with torch.no_grad():
        images = [draw(net, z, c, net.mapping(z, c)) for net in (G, teacher)]
    return float((images[0] - images[1]).abs().mean())


@pytest.mark.slow
def test_a_student_comes_closer_to_its_teacher_without_data(
    paths: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line alone, without --data and --outdir; it cannot be made longer afterwards."""
    args = ["--cfg=dgl", f"--teacher={paths['teacher']}", "--width=0.5", "--kimg=1", "--batch=10", "--device=cpu"]
    monkeypatch.chdir(tmp_path)
    run_command(["train.py", *args])
    (folder,) = (tmp_path / "runs").iterdir()
    again = CliRunner().invoke(train.main, [f"--resume={folder}", "--kimg=2", "--dry-run", "--no-estimate"])
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


# name → teacher, options, changes of the loss, ticks after which the run is stopped; the game begins in the third
CASES: dict[str, tuple[str, list[str], dict[str, Any], int]] = {
    "distilled": ("conditional", ["--kd=rgb", "--kd=torgb", "--kd=latent=0.1"], {}, 2),
    "game": ("teacher", ["--game-kimg=1", "--cond=0"], {}, 3),
    "game-of-teacher": ("conditional", ["--game-kimg=1", "--data=teacher", "--dgl-weight=1"], {}, 2),
    "game-after-a-start-of-d": ("teacher", ["--game-kimg=1", "--data=teacher", "--game-kd=0.5", "--guidance=heads"],
                                {"game_warmup_kimg": 0.008}, 3),
    "biggan-game": ("biggan", ["--game-kimg=1", "--data=teacher"], {}, 2),
}


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_is_an_unbroken_one_to_the_bit(case: str, paths: dict[str, str], tmp_path: Path) -> None:
    name, args, loss, ticks = CASES[case]
    config = configuration(paths, name, *args, **loss)
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
        assert records[-1]["Loss/G/kd_rgb"]["num"] > 0, "distillation terms stay on in adversarial training"
        assert records[-1]["Loss/G/dgl"]["num"] > 0


def test_a_biggan_is_distilled_without_data(paths: dict[str, str], tmp_path: Path) -> None:
    """--cfg=dgl is the preset of the teacher's family; the slice is refitted; images of all classes come closer."""
    config = configuration(paths, "biggan", "--batch=16")
    assert config["loss_kwargs"]["class_name"] == "dgl.loss.DGLHingeLoss"
    assert config["G_kwargs"]["G_param"] == "none"
    assert config["init_kwargs"]["refit"] is True
    config["loss_kwargs"].update(distil_kimg=0.24, distil_warmup_kimg=0.032)
    folder = tiny_runs.run(tmp_path / "run", config, total_kimg=0.24, kimg_per_tick=0.08)
    G = pickles.open_networks(str(folder / "network-snapshot-000000.pkl"))["G_ema"]
    assert torch.isfinite(G(*tiny_biggan.inputs(G))).all()
    records = tiny_runs.records(folder)
    for name in ("Loss/distil/kd_rgb", "Loss/distil/kd_feature"):
        assert records[-1][name]["mean"] < 0.9 * records[0][name]["mean"]


def test_the_game_begins_with_the_averaged_student(paths: dict[str, str], tmp_path: Path) -> None:
    """During the start of D nothing changes G: it is still the average of the student that was distilled."""
    config = configuration(paths, "teacher", "--game-kimg=1", "--data=teacher", game_warmup_kimg=1)
    state = tiny_runs.last_state(tiny_runs.run(tmp_path / "run", config))
    G, G_ema = state["networks"]["G"], state["networks"]["G_ema"]
    names = [name for name in G if name.endswith("weight") and name.startswith("synthesis")]
    assert names
    assert all(torch.allclose(G[name], G_ema[name], rtol=1e-5, atol=1e-7) for name in names)


def test_data_that_only_scores_is_not_loaded(paths: dict[str, str], tmp_path: Path,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    args = [f"--data={paths['data']}", "--cfg=dgl", f"--teacher={paths['teacher']}", "--width=0.5", "--batch=4"]
    config = tiny_runs.options(paths["data"], *args[1:], "--cond=0")
    assert config["training_set_kwargs"]["class_name"] == "training.dataset.ImageFolderDataset"
    config["loss_kwargs"].update(distil_kimg=0.016, distil_warmup_kimg=0.008)
    monkeypatch.setattr("torch_utils.loader_workers.batches", None)
    folder = tiny_runs.run(tmp_path / "run", config, total_kimg=0.016)
    assert (folder / "reals.png").exists()
    assert tiny_runs.last_state(folder)["data"]["position"] == 16


def test_another_number_of_processes_sees_the_same(paths: dict[str, str], tmp_path: Path,
                                                   caplog: pytest.LogCaptureFixture) -> None:
    config = configuration(paths, "teacher")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "training_options.json").write_text(json.dumps({**config, "num_gpus": 1}))
    result = CliRunner().invoke(train.main, [f"--resume={tmp_path}/run", "--gpus=2", "--dry-run", "--no-estimate"])
    assert result.exit_code == 0, result.output
    resolved = json.loads(result.stdout.split("Resolved options:\n")[1].split("\n\nNothing was started")[0])
    assert (resolved["num_gpus"], resolved["batch_gpu"]) == (2, 2)
    assert "instead of" not in caplog.text


@pytest.mark.parametrize(("args", "flags", "message"), [
    (["--kd=latent"], ["--batch-gpu=1"], "--kd: latent compares the images of one pass with each other, but"),
    (["--kd=latent"], ["--batch=1"], "--kd: latent compares the images of one pass with each other, but"),
    (["--kimg=1", "--game-kimg=3", "--game-warmup=2", "--data=teacher"], ["--kimg=3"],
     "--kimg: expected more than the 1 kimg of distillation and 2 of --game-warmup, found 3: the generator would"),
    (["--recipe=paper", "--init=scratch", "--kimg=4", "--data=teacher"], ["--kimg=2"],
     "--kimg: expected more than 2, after which the teacher joins (--stage1-kimg), found 2"),
])
def test_changes_that_a_resumed_run_cannot_have(
    args: list[str], flags: list[str], message: str, paths: dict[str, str], tmp_path: Path
) -> None:
    config = tiny_runs.options("teacher", "--cfg=dgl", f"--teacher={paths['teacher']}", "--width=0.5", "--batch=4",
                               *(arg for arg in args if arg != "--data=teacher"))
    (tmp_path / "training_options.json").write_text(json.dumps({**config, "num_gpus": 1, "total_kimg": 4}))
    result = CliRunner().invoke(train.main, [f"--resume={tmp_path}", *flags, "--dry-run", "--no-estimate"])
    assert result.exit_code == 1, result.output
    assert message in result.stderr.strip().splitlines()[-1]


def generator_alone(folder: Path) -> str:
    """A pickle of a generator without discriminator."""
    data = pickles.snapshot_data(tiny.tiny_networks(), None)
    path = folder / "generator.pkl"
    pickles.save_networks({"G_ema": data["G_ema"]}, path)
    return str(path)


@pytest.mark.parametrize(("args", "message"), [
    ([], "in whose features --kd=feature compares; pass --kd=rgb, --kd=torgb or --kd=lpips (with --kd-lpips=FILE), or "
         "another teacher"),
    (["--kd=rgb", "--kd=latent"], "in whose features --kd=latent compares; pass --kd=rgb"),
    (["--kd=rgb", "--game-kimg=1", "--data=teacher"], "which --game-kimg needs; pass another teacher, or distil alone"),
    (["--kd=rgb", "--d-init=teacher"], "--d-init: "),
])
def test_a_teacher_without_discriminator(args: list[str], message: str, tmp_path: Path) -> None:
    flags = ["--cfg=dgl", f"--teacher={generator_alone(tmp_path)}", "--width=0.5", "--dry-run", "--no-estimate", *args]
    result = CliRunner().invoke(train.main, flags)
    assert result.exit_code == 2
    line = result.stderr.strip().splitlines()[-1]
    assert "generator.pkl holds no discriminator" in line
    assert message in line


def test_a_generator_alone_is_distilled(paths: dict[str, str], tmp_path: Path) -> None:
    """The way out of the error above."""
    paths = {**paths, "teacher": generator_alone(tmp_path)}
    config = configuration(paths, "teacher", "--kd=rgb", "--kd=torgb")
    folder = tiny_runs.run(tmp_path / "run", config, resume_state=False)
    assert tiny_runs.records(folder)[-1]["Loss/distil/kd_torgb"]["num"] > 0
    student = pickles.open_networks(str(sorted(folder.glob("network-snapshot-*.pkl"))[-1]))
    source = teachers.load(paths["teacher"], needs_discriminator=False)
    assert source.D is None
    assert torch.equal(student["G_ema"].mapping.fc0.weight, source.G_ema.mapping.fc0.weight)
    with pytest.raises(pickles.CheckpointError, match="holds no D, which is needed here"):
        teachers.load(paths["teacher"])
    assert "D" not in student, "a discriminator that nothing has trained"
    snapshot = sorted(folder.glob("network-snapshot-*.pkl"))[-1]
    assert snapshot.stat().st_size < 2**20
    again = configuration(paths, "teacher", "--kd=rgb", f"--init={snapshot}")
    assert again["init_kwargs"]["d_init"] == "scratch"
    start = tiny_runs.run(tmp_path / "again", again, resume_state=False, total_kimg=0.004)
    assert tiny_runs.records(start)[-1]["Loss/distil/kd_rgb"]["num"] > 0


def test_a_student_without_discriminator_gets_the_teachers(paths: dict[str, str], tmp_path: Path) -> None:
    """Its G is its G_ema, which is all that the file holds."""
    student = generator_alone(tmp_path)
    config = configuration(paths, "teacher", f"--init={student}", "--width=1")
    assert (config["init_kwargs"]["init"], config["init_kwargs"]["d_init"]) == (student, "teacher")
    networks = {role: tiny.tiny_networks(seed=7)[role] for role in ("G", "D", "G_ema")}
    initialise(networks, **{name: value for name, value in config["init_kwargs"].items() if name != "func_name"})
    source, teacher = pickles.open_networks(student)["G_ema"], pickles.open_networks(paths["teacher"])
    for name, parameter in networks["G"].named_parameters():
        assert torch.equal(parameter, source.get_parameter(name))
    for name, parameter in networks["D"].named_parameters():
        assert torch.equal(parameter, teacher["D"].get_parameter(name))


def test_a_damaged_discriminator_is_not_replaced_in_silence(paths: dict[str, str], tmp_path: Path) -> None:
    networks = pickles.snapshot_data(tiny.tiny_networks(), None)
    networks["D"].b4.fc.weight.data[0, 0] = float("nan")
    pickles.save_networks(networks, tmp_path / "nan.pkl")
    flags = ["--cfg=dgl", f"--teacher={paths['teacher']}", f"--init={tmp_path}/nan.pkl", "--dry-run", "--no-estimate"]
    result = CliRunner().invoke(train.main, flags)
    assert result.exit_code == 1
    assert "nan.pkl: D: b4.fc.weight holds numbers that are not finite" in result.stderr


def generator(**changes: Any) -> Any:
    """A StyleGAN2 like the teacher's, but for its arguments."""
    return Generator(**{**tiny.tiny_generator().init_kwargs, **changes})


@pytest.mark.parametrize(("make", "message"), [
    (lambda: generator(w_dim=8), "--init: w_dim of {init} is 8, the teacher's is 16"),
    (lambda: generator(z_dim=8), "--init: z_dim of {init} is 8, the teacher's is 16"),
    (lambda: rectangular.networks()["G_ema"], "--init: {init} makes images of 8x16, the teacher of 16x16"),
    (tiny_biggan.tiny_generator,
     "--init: {init} holds a BigGANGenerator, the teacher is a Generator; pass a student of this teacher"),
])
def test_a_student_of_another_kind_of_teacher(
    make: Callable[[], Any], message: str, paths: dict[str, str], tmp_path: Path
) -> None:
    init = tmp_path / "student.pkl"
    pickles.save_networks(pickles.snapshot_data({"G_ema": make()}, None), init)
    flags = ["--cfg=dgl", f"--teacher={paths['teacher']}", f"--init={init}", "--dry-run", "--no-estimate"]
    result = CliRunner().invoke(train.main, flags)
    assert result.exit_code == 2
    assert result.stderr.strip().splitlines()[-1].removeprefix("Error: ") == message.format(init=init)


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
    assert "--game-kimg: adversarial training needs real images; pass --data=PATH, or --data=teacher" in result.output


@pytest.mark.slow
def test_two_processes(paths: dict[str, str], tmp_path: Path) -> None:
    run_command(["train.py", "--cfg=dgl", f"--teacher={paths['teacher']}", "--width=0.5", "--kimg=1",
                 "--game-kimg=1", "--data=teacher", "--batch=200", "--batch-gpu=50", "--kd=rgb", "--gpus=2",
                 "--device=cpu", f"--outdir={tmp_path}"])
    (folder,) = tmp_path.iterdir()
    records = tiny_runs.records(folder)
    assert records[0]["Loss/distil/loss"]["num"] == 200, "both ranks report"
    assert records[-1]["Loss/D/loss"]["num"] > 0
