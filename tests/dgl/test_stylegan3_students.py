"""Whole runs of students of StyleGAN3 teachers: distillation without data, then a game; what their options refuse."""
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import prune_init
import train
from dgl import kd
from tests import tiny
from tests.training import tiny_runs
from tests.training.test_networks_stylegan3 import R_OPTIONS
from tests.training.test_networks_stylegan3 import tiny as stylegan3
from training.checkpoints import pickles

SMALL = {"z_dim": 16, "w_dim": 16, "img_resolution": 16, "channel_base": 256, "channel_max": 8, "num_layers": 3,
         "num_critical": 1, "margin_size": 2}
R = {name: R_OPTIONS[name] for name in ("conv_kernel", "use_radial_filters")}


def write_teacher(path: Path, **kwargs: Any) -> str:
    """A pickle with a StyleGAN3 whose G_ema is not G."""
    nets = {"G": stylegan3(seed=1, **SMALL, **kwargs), "G_ema": stylegan3(seed=2, **SMALL, **kwargs),
            "D": tiny.tiny_discriminator(c_dim=kwargs.get("c_dim", 0))}
    pickles.save_networks(pickles.snapshot_data(nets, {"path": "somewhere"}), path)
    return str(path)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_teacher(tmp_path_factory.mktemp("teacher") / "t.pkl")


def distance(a: Any, b: Any) -> float:
    """Mean absolute difference of images of the same latents."""
    z = torch.randn([16, 16], generator=torch.Generator().manual_seed(9))
    return float((a(z, None) - b(z, None)).abs().mean())


def test_distillation_then_a_game(teacher: str, tmp_path: Path) -> None:
    args = ["--cfg=dgl-stylegan3", f"--teacher={teacher}", "--width=0.5", "--batch=4", "--workers=0", "--game-kimg=1"]
    config = tiny_runs.options("teacher", *args)
    assert config["loss_kwargs"]["class_name"] == "dgl.loss.DGLStyleGAN3Loss"
    assert config["G_reg_interval"] is None
    assert config["init_kwargs"]["score"] == "reconstruct"
    config["loss_kwargs"].update(distil_kimg=0.024, distil_warmup_kimg=0.004)
    config["ema_later_start_kimg"] = 0.024
    config.update(ema_start_kimg=0.004, network_snapshot_ticks=1)
    folder = tiny_runs.run(tmp_path / "run", config, total_kimg=0.028)
    first, last = (pickles.open_networks(str(path)) for path in (folder / "network-snapshot-000000.pkl", teacher))
    student = first["G_ema"]
    assert student.synthesis.input.channels == 4
    assert torch.allclose(student.mapping.fc0.weight, last["G_ema"].mapping.fc0.weight, atol=0.01)
    slices = tmp_path / "plain.pkl"
    result = CliRunner().invoke(prune_init.main, [f"--teacher={teacher}", "--width=0.5", f"--dest={slices}",
                                                  "--no-refit", "--no-latency", "--device=cpu"])
    assert result.exit_code == 0, result.output
    plain = pickles.open_networks(str(slices))["G_ema"]
    assert distance(student, last["G_ema"]) < distance(plain, last["G_ema"])
    magnitudes = [[float(t) for name, t in net.named_buffers() if name.endswith("magnitude_ema")]
                  for net in (student, first["G"])]
    assert all(value not in (0, 1.3) for value in magnitudes[0])
    assert len(set(magnitudes[0])) > 1


def test_the_published_game_with_an_r_teacher(tmp_path: Path) -> None:
    path, data = write_teacher(tmp_path / "r.pkl", c_dim=2, **R), tiny.write_data(tmp_path / "data", num_classes=2)
    args = ["--cfg=dgl-stylegan3", "--recipe=paper", f"--teacher={path}", "--width=0.5", "--batch=4", "--workers=0",
            "--cond=true"]
    folder = tiny_runs.run(tmp_path / "run", tiny_runs.options(data, *args), total_kimg=0.008)
    student = pickles.open_networks(str(folder / "network-snapshot-000000.pkl"))["G"]
    layer = student.synthesis.get_submodule(student.synthesis.layer_names[0])
    assert (layer.conv_kernel, layer.down_radial) == (1, True)
    assert float(layer.magnitude_ema) != 1.3, "D's phase updates it, as in any training"


def test_svs_is_for_layers_with_demodulation(teacher: str, tmp_path: Path) -> None:
    args = [f"--teacher={teacher}", "--width=1", "--refine=svs", "--no-latency", "--device=cpu",
            f"--dest={tmp_path / 'x.pkl'}"]
    result = CliRunner().invoke(prune_init.main, args)
    assert result.exit_code == 0, result.output
    before, after = (pickles.open_networks(str(path))["G_ema"].synthesis for path in (teacher, tmp_path / "x.pkl"))
    changed = [not torch.equal(*(net.get_submodule(name).weight for net in (before, after)))
               for name in before.layer_names]
    assert changed == [True, True, True, False]


@pytest.mark.parametrize(("args", "message"), [
    (["--kd=torgb"], "--kd: cannot be given together with --cfg=dgl-stylegan3"),
    (["--cbase=64"], "--cbase: cannot be given together with --cfg=dgl-stylegan3, which takes its networks from"),
])  # fmt: skip
def test_what_does_not_apply(args: list[str], message: str, teacher: str) -> None:
    command = ["--cfg=dgl-stylegan3", f"--teacher={teacher}", "--width=0.5", "--dry-run", "--no-estimate", *args]
    result = CliRunner().invoke(train.main, command)
    assert result.exit_code == 2
    assert message in result.output


def test_terms_of_distillation() -> None:
    assert kd.names("stylegan3") == ("rgb", "feature", "latent", "moments", "lpips")
