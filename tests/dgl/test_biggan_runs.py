"""BigGANs under teachers: what the command line makes of its options, real runs of a few iterations, exact resume."""
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests import tiny, tiny_biggan
from tests.training import tiny_runs
from tests.training.test_biggan_training import SHORT, check_resumed, dry_run, resolved
from training.biggan import checkpoints as biggan_checkpoints
from training.checkpoints.pickles import open_networks


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("files")
    return {
        "data": tiny.write_data(folder / "labelled", side=32, num_classes=3),
        "teacher": tiny_biggan.write_teacher(folder / "teacher.pkl"),
        "styles": tiny.write_teacher(folder / "styles.pkl", c_dim=3, resolution=32),
    }


def configuration(name: str, files: dict[str, str]) -> dict[str, Any]:
    teacher = ["--cfg=dgl-biggan", "--recipe=paper", f"--teacher={files['teacher']}", "--batch=4", "--d-steps=1",
               "--workers=0"]
    if name == "sliced":
        return tiny_runs.options(files["data"], *teacher, "--width=0.5", "--score=first", **SHORT)
    assert name == "two-stages"
    scratch = ["--width=0.5", "--init=scratch", "--teacher-update"]
    config = tiny_runs.options(files["data"], *teacher, *scratch, **SHORT)
    config["loss_kwargs"].update(stage1_kimg=0.02, teacher_reg_interval=3)
    return config


NAMES = ("sliced", "two-stages")


@pytest.fixture(scope="module")
def unbroken(files: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("unbroken")
    return {name: tiny_runs.run(folder / name, configuration(name, files)) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_an_interrupted_run_ends_in_the_same_bits(
    name: str, files: dict[str, str], unbroken: dict[str, Path], tmp_path: Path
) -> None:
    check_resumed(configuration(name, files), unbroken[name], tmp_path / "broken")


def test_options_of_the_plugin_alone_are_refused(files: dict[str, str]) -> None:
    result = dry_run(files["data"], "--cfg=biggan", "--width=0.5")
    assert result.exit_code == 2
    assert "--width: can only be given together with --cfg=dgl or --cfg=dgl-stylegan3 or" in result.stderr


def test_guidance_is_in_force_when_it_should(unbroken: dict[str, Path]) -> None:
    records = tiny_runs.records(unbroken["two-stages"])
    assert "Loss/G/dgl" not in records[0]
    assert records[-1]["Loss/G/dgl"]["num"] > 0
    assert records[-1]["Loss/teacher/weight"]["mean"] == pytest.approx(0.1)
    assert records[-1]["Loss/teacher/D/loss"]["num"] > 0, "the updated teacher trains on"
    scores = {record["Loss/teacher/scores/real"]["mean"] for record in tiny_runs.records(unbroken["sliced"])}
    assert len(scores) == 1, "a frozen teacher looks at the real images of one pass in sixteen, of five here"
    assert tiny_runs.last_state(unbroken["two-stages"])["stage"] == 1
    student = open_networks(str(unbroken["sliced"] / "network-snapshot-000000.pkl"))
    assert (student["G_ema"].options["G_ch"], student["D"].options["D_ch"]) == (2, 4)


def test_a_generator_alone_has_a_cost_and_a_folder_gives_slices_its_name(files: dict[str, str], tmp_path: Path) -> None:
    import prune_init
    from dgl import cost

    nets = open_networks(files["teacher"])
    biggan_checkpoints.save_checkpoint(tmp_path / "138k", {name: nets[name] for name in ("G_ema", "D")})
    result = CliRunner().invoke(cost.main, [str(tmp_path / "138k" / "G_ema.pth"), "--no-latency"])
    assert result.exit_code == 0, result.output
    assert f"{sum(p.numel() for p in nets['G_ema'].parameters()):,}" in result.output
    flags = [f"--teacher={tmp_path / '138k'}/", "--width=0.5", f"--outdir={tmp_path}", "--device=cpu", "--no-latency"]
    assert CliRunner().invoke(prune_init.main, flags).exit_code == 0
    assert (tmp_path / "138k-width1of2.pkl").is_file()


def test_a_folder_of_public_files_is_a_teacher(files: dict[str, str], tmp_path: Path) -> None:
    nets = open_networks(files["teacher"])
    biggan_checkpoints.save_checkpoint(tmp_path / "138k", {name: nets[name] for name in ("G_ema", "D")})
    args = ["--cfg=dgl-biggan", "--recipe=paper", f"--teacher={tmp_path / '138k'}", "--width=0.5"]
    c = resolved(files["data"], *args)
    assert c["loss_kwargs"]["class_name"] == "dgl.loss.DGLHingeLoss"
    assert (c["loss_kwargs"]["dgl_weight"], c["loss_kwargs"]["stage1_kimg"], c.get("ema_start_kimg", 0)) == (0.1, 0, 0)
    assert (c["G_kwargs"]["G_ch"], c["D_kwargs"]["D_ch"], c["init_kwargs"]["d_init"]) == (2, 4, "teacher")
    assert len(c["loss_kwargs"]["teachers"][0]["sha256"]) == 64
    biggan_checkpoints.save_checkpoint(tmp_path / "138k", {name: nets[name] for name in ("G_ema", "D")}, suffix="best0")
    named = resolved(files["data"], "--cfg=dgl-biggan", f"--teacher={tmp_path / '138k'}:best0", "--width=0.5")
    assert named["loss_kwargs"]["teachers"][0]["url"].endswith("138k:best0")
    assert named["G_kwargs"] == {**c["G_kwargs"], "G_param": "none"}, "a slice that is refitted"
    (tmp_path / "138k" / "D.pth").unlink()
    result = dry_run(files["data"], *args)
    assert result.exit_code == 2
    assert "holds no discriminator, which adversarial training needs; pass another teacher, or" in result.output


@pytest.mark.parametrize(("args", "message"), [
    (["--cfg=dgl-biggan", "--teacher={styles}", "--width=0.5"],
     "--teacher: --cfg=dgl-biggan expects a BigGANGenerator, .* holds a Generator; use --cfg=dgl"),
    (["--cfg=dgl", "--teacher={teacher}", "--width=0.5", "--gamma=1"],
     "--gamma: cannot be given together with --cfg=dgl-biggan"),
    (["--cfg=dgl-biggan", "--width=0.5"], "--teacher: --cfg=dgl-biggan needs the network pickle of a teacher"),
    (["--cfg=dgl-biggan", "--teacher={teacher}", "--width=0.5", "--ch=2"],
     "--ch: cannot be given together with --cfg=dgl-biggan, which takes its networks from --teacher"),
    (["--cfg=dgl-biggan", "--teacher={teacher}", "--width=0.5", "--kd=latent"],
     "--kd: cannot be given together with --cfg=dgl-biggan"),
    (["--cfg=dgl-biggan", "--teacher={teacher}", "--width=0.5", "--init=scratch"],
     "--init: .*; start from a slice or a student's pickle, or pass --recipe=paper$"),
    (["--cfg=dgl-biggan", "--teacher={teacher}", "--width=0.5", "--init=scratch", "--kd=rgb"],
     "--kd: .* or from the pickle of a student that began as one$"),
    (["--cfg=dgl-biggan", "--teacher={teacher}", "--width=0.5", "--refine=svs"],
     "--refine: cannot be given together with --cfg=dgl-biggan"),
    (["--cfg=dgl-biggan", "--teacher={teacher}", "--width=0.5", "--score=diversity"],
     "--score: diversity cannot be given together with --cfg=dgl-biggan"),
    (["--cfg=dgl-biggan", "--teacher={teacher}", "--width=0.5", "--teacher-weights=dynamic"],
     "--teacher-weights: 'dynamic' cannot be given together with --cfg=dgl-biggan, whose losses can be negative"),
])
def test_unfit_teachers(files: dict[str, str], args: list[str], message: str) -> None:
    result = dry_run(files["data"], *(arg.format(**files) for arg in args))
    assert result.exit_code == 2
    assert re.search(message, result.stderr.strip().splitlines()[-1]), result.stderr
