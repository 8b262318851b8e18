"""Training of BigGANs: what the command line makes of its options, real runs of a few iterations, exact resume."""
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import train
from dnnlib.errors import UserError
from tests import tiny, tiny_biggan
from tests.training import tiny_runs
from training import ema
from training.biggan import checkpoints as biggan_checkpoints
from training.biggan import options as config_biggan
from training.biggan import presets as presets_biggan
from training.checkpoints import transfer
from training.checkpoints.pickles import open_networks
from training.networks_biggan import Generator

SMALL = ["--cfg=biggan", "--ch=2", "--batch=4", "--d-steps=2", "--z-dim=8", "--workers=0"]
# Five iterations of two D steps with four images each, in ticks that end after the first, third and last of them.
SHORT = {"D_reg_interval": None, "ema_start_kimg": 0.012, "ema_kimg": 0.02, "kimg_per_tick": 0.016}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("files")
    return {
        "data": tiny.write_data(folder / "labelled", side=32, num_classes=3),
        "plain": tiny.write_data(folder / "plain", side=32),
        "small": tiny.write_data(folder / "small", side=16, num_classes=3),
        "teacher": tiny_biggan.write_teacher(folder / "teacher.pkl"),
        "styles": tiny.write_teacher(folder / "styles.pkl", c_dim=3, resolution=32),
    }


def dry_run(data: str, *args: str) -> Any:
    command = [f"--data={data}", "--outdir=/tmp/runs", "--metrics=none", "--dry-run", "--no-estimate", *args]
    return CliRunner().invoke(train.main, command)


def resolved(data: str, *args: str) -> dict[str, Any]:
    result = dry_run(data, *args)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.split("Resolved options:\n")[1].split("\n\nNothing was started")[0])


# What becomes of options.


def test_the_preset_for_32(files: dict[str, str]) -> None:
    c = resolved(files["data"], "--cfg=biggan")
    assert c["training_set_kwargs"]["use_labels"] is True
    assert c["G_kwargs"] == {"class_name": "training.networks_biggan.BigGANGenerator", "G_ch": 64, "dim_z": 128,
                             "G_attn": "0", "G_init": "N02", "SN_eps": 1e-8}
    assert (c["batch_size"], c["batch_gpu"], c["D_steps"], c["total_kimg"]) == (50, 50, 4, 25000)
    assert c["G_opt_kwargs"] == {"class_name": "torch.optim.Adam", "lr": 2e-4, "betas": [0.0, 0.999], "eps": 1e-8}
    assert c["loss_kwargs"] == {"class_name": "training.loss_biggan.HingeLoss"}
    assert (c["G_reg_interval"], c["D_reg_interval"], c["ema_buffers"], c["ema_start_kimg"]) == (None, None, True, 200)
    assert 0.5 ** (200 / (c["ema_kimg"] * 1000)) == pytest.approx(0.9999, abs=1e-9)
    assert "augment_kwargs" not in c


@pytest.mark.parametrize(("res", "dim_z", "attn"), [(128, 120, "64"), (256, 140, "128")])
def test_the_presets_for_imagenet(res: int, dim_z: int, attn: str) -> None:
    preset = presets_biggan.PRESETS[res]
    assert (preset.batch, preset.batch // preset.ref_gpus, preset.d_steps, preset.ch) == (2048, 32, 1, 96)
    assert (preset.z_dim, preset.attn, preset.g_lr, preset.d_lr, preset.eps) == (dim_z, attn, 1e-4, 4e-4, 1e-6)
    assert (preset.kimg, preset.ema_start_kimg) == (138 * 2048, 20 * 2048)
    with torch.device("meta"):
        G = Generator(c_dim=1000, img_resolution=res, G_ch=preset.ch, dim_z=preset.z_dim, G_attn=preset.attn,
                      **preset.latent, skip_init=True)
    assert G.z_dim == preset.z_dim


def test_options_change_the_preset(files: dict[str, str]) -> None:
    args = ["--ch=3", "--attn=8_16", "--d-steps=2", "--ema-kimg=5", "--ema-start=7", "--z-dim=9", "--glr=1", "--dlr=2"]
    c = resolved(files["data"], "--cfg=biggan", *args, "--batch=12", "--batch-gpu=4", "--aug=ada")
    assert [c["G_kwargs"][name] for name in ("G_ch", "G_attn", "dim_z")] == [3, "8_16", 9]
    assert [c["D_kwargs"][name] for name in ("D_ch", "D_attn")] == [3, "8_16"]
    assert (c["D_steps"], c["ema_kimg"], c["ema_start_kimg"], c["ada_target"]) == (2, 5, 7, 0.6)
    assert (c["G_opt_kwargs"]["lr"], c["D_opt_kwargs"]["lr"]) == (1, 2)
    assert c["G_opt_kwargs"]["eps"] == pytest.approx(3e-8), "three passes are summed up, not averaged"


def test_a_start_from_weights_has_an_average_at_once(files: dict[str, str]) -> None:
    assert resolved(files["data"], "--cfg=biggan", f"--resume={files['teacher']}").get("ema_start_kimg", 0) == 0


@pytest.mark.parametrize(("data", "args", "message"), [
    ("plain", [], "--cond: .* has no labels; write them into dataset.json"),
    ("data", ["--cond=false"], "--cond: BigGAN is always conditional on labels; leave --cond=false out"),
    ("small", [], "--cfg: BigGAN has presets for images of 32x32, 128x128, 256x256, .* are 16x16; convert them"),
    ("data", ["--gamma=1"], "--gamma: cannot be given together with --cfg=biggan"),
    ("data", ["--mbstd-group=2"], "--mbstd-group: cannot be given together with --cfg=biggan"),
    ("data", ["--attn=8,16"], "--attn: expected resolutions joined by underscores, such as 32_64, or 0, found '8,16'"),
    ("data", ["--ch=1", "--attn=16"], "--attn: attention: expected at least 8 channels, found 4"),
    ("data", ["--attn=48"], "--attn: there is no resolution 48 in networks for 32x32 images"),
    ("data", ["--metrics=ppl2_wend"], "--metrics: ppl2_wend measures paths of a mapping network, which a BigGAN"),
    ("data", ["--cfg=auto", "--ch=2"], "--ch: can only be given together with --cfg=biggan"),
    ("data", ["--batch=5", "--gpus=2"], "--batch: 5 is not a multiple of --gpus 2"),
])
def test_errors_name_the_flag(files: dict[str, str], data: str, args: list[str], message: str) -> None:
    result = dry_run(files[data], "--cfg=biggan", *args)
    assert result.exit_code == 2
    lines = result.stderr.strip().splitlines()
    assert re.search(message, lines[-1]), result.stderr


def test_every_option_is_described() -> None:
    flags = {option for param in train.main.params for option in param.opts}
    assert {"--" + name.replace("_", "-") for name in config_biggan.OPTION_NAMES} <= flags


def test_attention_in_one_network_only_is_said(files: dict[str, str]) -> None:
    result = dry_run(files["data"], "--cfg=biggan", "--attn=8_16")
    assert result.exit_code == 0
    assert "--attn=8 puts attention into G only" in result.stderr
    assert "--attn=16" not in result.stderr


def test_a_folder_of_public_files_is_a_start(files: dict[str, str], tmp_path: Path) -> None:
    nets = open_networks(files["teacher"])
    biggan_checkpoints.save_checkpoint(tmp_path / "138k", {name: nets[name] for name in ("G", "G_ema", "D")})
    c = resolved(files["data"], "--cfg=biggan", f"--resume={tmp_path / '138k'}")
    assert c["init_kwargs"]["url"] == str(tmp_path / "138k")
    (tmp_path / "empty").mkdir()
    result = dry_run(files["data"], "--cfg=biggan", f"--resume={tmp_path / 'empty'}")
    assert "is a folder without training_options.json, so it is no run directory" in result.output


def test_statistics_of_other_widths_are_not_transferred(files: dict[str, str]) -> None:
    source, target = tiny_biggan.tiny_generator(G_ch=2), tiny_biggan.tiny_generator(G_ch=4)
    before = {name: buffer.clone() for name, buffer in target.named_buffers()}
    transfer.transplant(source, target)
    assert all(torch.equal(before[name], buffer) for name, buffer in target.named_buffers()
               if "stored" in name and buffer.shape != dict(source.named_buffers())[name].shape)


def test_augmentation_adapts_by_the_images_that_d_sees(files: dict[str, str], tmp_path: Path) -> None:
    config = tiny_runs.options(files["data"], *SMALL, "--aug=ada", **SHORT)
    config["ada_kimg"] = 1
    state = tiny_runs.last_state(tiny_runs.run(tmp_path / "run", config, total_kimg=0.04))
    p = state["networks"]["augment_pipe"]["p"].item()  # five iterations of eight images; it moves after the fourth
    assert p in (0.0, pytest.approx(4 * 8 / 1000))


def test_nothing_is_transferred_from_another_kind_of_network(files: dict[str, str], tmp_path: Path) -> None:
    config = tiny_runs.options(files["data"], *SMALL, f"--resume={files['styles']}", **SHORT)
    with pytest.raises(UserError, match="resume: nothing of the pickle's Generator fits a BigGANGenerator"):
        tiny_runs.run(tmp_path / "run", config)


# Runs.


def configuration(files: dict[str, str]) -> dict[str, Any]:
    return tiny_runs.options(files["data"], *SMALL, **SHORT)


@pytest.fixture(scope="module")
def unbroken(files: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_runs.run(tmp_path_factory.mktemp("unbroken") / "run", configuration(files))


def check_resumed(config: dict[str, Any], unbroken: Path, folder: Path) -> None:
    """A run that is resumed in the middle ends in the bits of an unbroken one."""
    tiny_runs.run(folder, config, total_kimg=0.024)
    tiny_runs.run(folder, config, resume_state=True)
    states = [tiny_runs.last_state(run_dir) for run_dir in (folder, unbroken)]
    for state in states:  # ticks end elsewhere
        for key in ("stats", "collector", "cur_tick", "tick_start_nimg"):
            state.pop(key)
    assert tiny_runs.differences(*states) == []


def test_an_interrupted_run_ends_in_the_same_bits(files: dict[str, str], unbroken: Path, tmp_path: Path) -> None:
    check_resumed(configuration(files), unbroken, tmp_path / "broken")


def test_what_a_run_leaves(unbroken: Path) -> None:
    folder = unbroken
    assert {"reals.png", "fakes_init.png", "fakes000000.png", "stats.jsonl", "network-snapshot-000000.pkl"} <= {
        path.name for path in folder.iterdir()}
    last = tiny_runs.records(folder)[-1]
    for name in ("Loss/scores/fake", "Loss/scores/real", "Loss/signs/real", "Loss/G/loss", "Loss/D/loss"):
        assert last[name]["num"] > 0, name
    assert last["Loss/D/loss"]["num"] == 2 * last["Loss/G/loss"]["num"], "two steps of D per step of G"
    nets = open_networks(str(folder / "network-snapshot-000000.pkl"))
    assert nets["training_set_kwargs"]["use_labels"] is True
    z, labels = tiny_biggan.inputs(nets["G_ema"])
    assert nets["D"](nets["G_ema"](z, labels), labels).shape == (4, 1)
    assert not nets["G_ema"].training


def test_steps_of_the_discriminator_use_images_of_their_own(files: dict[str, str], tmp_path: Path,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[tuple[str, int]] = []
    from training.biggan.loss import HingeLoss
    from training.loss import Part, Step, phase_name

    def note(self: Any, network: str, part: Part, step: Step) -> None:
        noted.append((phase_name(network, part), hash(step.real_img.numpy().tobytes())))

    monkeypatch.setattr(HingeLoss, "accumulate_gradients", note)
    config = configuration(files)
    tiny_runs.run(tmp_path / "run", config, total_kimg=0.008, image_snapshot_ticks=None, network_snapshot_ticks=None)
    assert [phase for phase, _ in noted] == ["Gboth", "Dboth", "Dboth"]
    assert len({images for phase, images in noted if phase == "Dboth"}) == 2


def test_averages_of_buffers() -> None:
    old, new = (torch.nn.BatchNorm1d(2) for _ in range(2))
    old.running_mean.fill_(1)
    new.running_mean.fill_(3)
    ema.update_ema(old, new, beta=0.75, buffers=False)
    assert old.running_mean.tolist() == [3, 3]
    old.running_mean.fill_(1)
    del old.num_batches_tracked, new.num_batches_tracked
    ema.update_ema(old, new, beta=0.75, buffers=True)
    assert old.running_mean.tolist() == [1.5, 1.5]


def test_the_average_is_a_copy_until_it_starts(files: dict[str, str], tmp_path: Path) -> None:
    config = configuration(files)
    tiny_runs.run(tmp_path / "copy", config, total_kimg=0.016, ema_start_kimg=1)
    networks = tiny_runs.last_state(tmp_path / "copy")["networks"]
    assert tiny_runs.differences(networks["G"], networks["G_ema"]) == []
    networks = tiny_runs.last_state(tiny_runs.run(tmp_path / "mean", config, total_kimg=0.016, ema_start_kimg=0))[
        "networks"]
    different = [path.rpartition(".")[2] for path in tiny_runs.differences(networks["G"], networks["G_ema"])]
    assert {"weight", "stored_mean", "stored_var", "u0"} <= set(different)


# Other tools.


def test_tools_say_what_they_cannot_do_with_a_biggan(files: dict[str, str], tmp_path: Path) -> None:
    import projector

    target = str(tmp_path / "absent.png")
    flags = [f"--network={files['teacher']}", f"--target={target}", f"--outdir={tmp_path / 'out'}", "--device=cpu"]
    result = CliRunner().invoke(projector.main, [*flags, "--save-video=false"])
    assert result.exit_code == 1
    assert "holds a BigGANGenerator, which has no latent space w; this needs a StyleGAN2" in result.output
