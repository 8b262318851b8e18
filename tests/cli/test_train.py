"""train.py: options, presets, names of runs, and what it says to options that do not fit."""
import json
import re

import pytest
import torch
from click.testing import CliRunner

import train
from tests import tiny
from tests.cli import dry_runs
from tests.training import tiny_runs
from training import presets, run_config, training_loop
from training.checkpoints.pickles import open_networks

ADA_OPTIONS = """outdir gpus snap metrics seed dry-run data cond subset mirror cfg gamma kimg batch aug p target augpipe
    resume freezed fp32 nhwc nobench allow-tf32 workers"""
STYLEGAN3_OPTIONS = "batch-gpu cbase cmax glr dlr map-depth mbstd-group desc tick"
DGL_OPTIONS = """teacher width dgl-weight init score d-init d-width stage1-kimg teacher-update
    teacher-aug"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the data set and the teacher of the dry runs are."""
    return tmp_path_factory.mktemp("dry")


@pytest.mark.parametrize("name", dry_runs.CASES)
def test_frozen_dry_runs(name, folder):
    expected = json.loads((dry_runs.FOLDER / f"{name}.json").read_text())
    actual = dry_runs.dry_run(folder, *dry_runs.CASES[name])
    assert actual == expected, "if this is meant: python -m tests.cli.dry_runs, and tell in CHANGELOG.md"
    assert not (folder / "runs").exists()


@pytest.mark.parametrize("command", dry_runs.COMMANDS)
def test_frozen_flags(command):
    expected = json.loads((dry_runs.FOLDER / "flags.json").read_text())[command]
    assert dry_runs.flags(command) == expected, "if this is meant: python -m tests.cli.dry_runs, and make docs"


def test_every_option_of_the_family_is_there():
    known = set(dry_runs.flags("train"))
    wanted = f"{ADA_OPTIONS} {STYLEGAN3_OPTIONS} {DGL_OPTIONS} z-dim w-dim device trust-pickle".split()
    assert {f"--{name}" for name in wanted} | {"-n"} <= known


# The published tables.

ROWS = {  # kimg, batch, images per pass on one of 8 GPUs (cifar: 2), group, channel base, lr, gamma, EMA, ramp, layers
    "stylegan2": (25000, 32, 4, 4, 32768, 0.002, 10, 10, None, 8),
    "paper256": (25000, 64, 8, 8, 16384, 0.0025, 1, 20, None, 8),
    "paper512": (25000, 64, 8, 8, 32768, 0.0025, 0.5, 20, None, 8),
    "paper1024": (25000, 32, 4, 4, 32768, 0.002, 2, 10, None, 8),
    "cifar": (100000, 64, 32, 32, 32768, 0.0025, 0.01, 500, 0.05, 2),
}


@pytest.mark.parametrize("cfg", ROWS)
def test_presets_have_the_published_numbers(cfg, folder):
    c = dry_runs.dry_run(folder, f"--cfg={cfg}", "--cond=0")
    kimg, batch, batch_gpu, group, base, lr, gamma, ema, ramp, layers = ROWS[cfg]
    assert (c["total_kimg"], c["batch_size"], c["batch_gpu"]) == (kimg, batch, batch_gpu)
    assert (c["ema_kimg"], c["ema_rampup"]) == (ema, ramp)
    assert c["loss_kwargs"]["r1_gamma"] == gamma
    assert c["D_kwargs"]["epilogue_kwargs"] == {"mbstd_group_size": group}
    shared = {"channel_base": base, "channel_max": 512, "num_fp16_res": 4, "conv_clamp": 256}
    assert c["G_kwargs"]["synthesis_kwargs"] == shared
    assert shared.items() <= c["D_kwargs"].items()
    assert (c["G_kwargs"]["z_dim"], c["G_kwargs"]["w_dim"]) == (512, 512)
    assert c["G_kwargs"]["mapping_kwargs"] == {"num_layers": layers}
    adam = {"class_name": "torch.optim.Adam", "lr": lr, "betas": [0, 0.99], "eps": 1e-8}
    assert c["G_opt_kwargs"] == c["D_opt_kwargs"] == adam
    assert c["ada_target"] == 0.6
    if cfg == "cifar":
        assert (c["loss_kwargs"]["pl_weight"], c["loss_kwargs"]["style_mixing_prob"]) == (0, 0)
        assert c["D_kwargs"]["architecture"] == "orig"
        assert "architecture" not in c["G_kwargs"]["synthesis_kwargs"]
    else:
        assert "pl_weight" not in c["loss_kwargs"]
        assert "architecture" not in c["D_kwargs"]


AUTO = {  # resolution: batch, gamma and EMA with 1, 2, 4 and 8 GPUs
    32: [(32, 0.0064, 10), (64, 0.0032, 20), (64, 0.0032, 20), (64, 0.0032, 20)],
    64: [(32, 0.0256, 10), (64, 0.0128, 20), (64, 0.0128, 20), (64, 0.0128, 20)],
    128: [(32, 0.1024, 10), (64, 0.0512, 20), (64, 0.0512, 20), (64, 0.0512, 20)],
    256: [(16, 0.8192, 5), (32, 0.4096, 10), (64, 0.2048, 20), (64, 0.2048, 20)],
    512: [(8, 6.5536, 2.5), (16, 3.2768, 5), (32, 1.6384, 10), (64, 0.8192, 20)],
    1024: [(4, 52.4288, 1.25), (8, 26.2144, 2.5), (16, 13.1072, 5), (32, 6.5536, 10)],
}


@pytest.mark.parametrize("resolution", AUTO)
def test_auto_has_the_published_numbers(resolution):
    for gpus, (batch, gamma, ema) in zip((1, 2, 4, 8), AUTO[resolution], strict=True):
        preset = presets.resolve("auto", resolution, gpus)
        assert (preset.batch, preset.ema_kimg, preset.ref_gpus) == (batch, ema, gpus)
        assert preset.gamma == pytest.approx(gamma, rel=1e-12)
        assert preset.mbstd_group == min(batch // gpus, 4)
        assert preset.fmaps == (1 if resolution >= 512 else 0.5)
        assert preset.lr == (0.002 if resolution >= 1024 else 0.0025)
        assert (preset.ema_rampup, preset.map_depth) == (0.05, 2)


def test_unknown_presets_are_named():
    with pytest.raises(ValueError, match="unknown preset 'cifer'; known: auto, stylegan2, paper256"):
        presets.resolve("cifer", 32, 1)


@pytest.mark.parametrize(
    ("args", "where", "value"),
    [
        ("--cbase=100 --cmax=50", "G_kwargs synthesis_kwargs", {"channel_base": 100, "channel_max": 50}),
        ("--cbase=100 --cmax=50", "D_kwargs", {"channel_base": 100, "channel_max": 50}),
        ("--z-dim=7 --w-dim=9", "G_kwargs", {"z_dim": 7, "w_dim": 9}),
        ("--map-depth=3", "G_kwargs mapping_kwargs", {"num_layers": 3}),
        ("--glr=0.1", "G_opt_kwargs", {"lr": 0.1}),
        ("--dlr=0.2", "D_opt_kwargs", {"lr": 0.2}),
        ("--mbstd-group=2", "D_kwargs epilogue_kwargs", {"mbstd_group_size": 2}),
        ("--tick=3 --snap=7", "", {"kimg_per_tick": 3, "image_snapshot_ticks": 7, "network_snapshot_ticks": 7}),
        ("--batch=24", "", {"batch_size": 24, "batch_gpu": 24}),
        ("--batch=24 --gpus=2", "", {"batch_size": 24, "batch_gpu": 12, "num_gpus": 2}),
        ("--batch=24 --batch-gpu=4", "", {"batch_size": 24, "batch_gpu": 4}),
        ("--mirror=yes", "training_set_kwargs", {"xflip": True, "max_size": 6}),
        ("--cond=1", "training_set_kwargs", {"use_labels": True}),
        ("--subset=6 --seed=4", "training_set_kwargs", {"max_size": 6}),
        ("--subset=5 --seed=4", "training_set_kwargs", {"max_size": 5, "random_seed": 4}),
        ("--seed=4", "", {"random_seed": 4}),
        ("--target=0.7 --ada-max=0.8", "", {"ada_target": 0.7, "ada_max": 0.8}),
        ("--aug=fixed --p=0.3", "", {"augment_p": 0.3}),
        ("--fp32=1", "G_kwargs synthesis_kwargs", {"num_fp16_res": 0, "conv_clamp": None}),
        ("--fp32=1", "D_kwargs", {"num_fp16_res": 0, "conv_clamp": None}),
        ("--nhwc=1", "G_kwargs synthesis_kwargs", {"fp16_channels_last": True}),
        ("--nhwc=1 --freezed=2", "D_kwargs block_kwargs", {"fp16_channels_last": True, "freeze_layers": 2}),
        ("--nobench=1 --allow-tf32=1", "", {"cudnn_benchmark": False, "allow_tf32": True}),
        ("--allow_tf32=1", "", {"allow_tf32": True}),
        ("--workers=5", "data_loader_kwargs", {"num_workers": 5}),
        ("--metrics=fid50k_full,is50k", "", {"metrics": ["fid50k_full", "is50k"]}),
        ("--metrics=NONE", "", {"metrics": []}),
        ("--detector=https://a.b/c.pt --num-gen=9", "metric_kwargs", {"detectors": ["https://a.b/c.pt"], "num_gen": 9}),
        ("--resume=celebahq256", "", {"ada_kimg": 100, "ema_rampup": None}),
        ("--device=cpu", "", {"device": "cpu"}),
    ],
)  # fmt: skip
def test_an_option_changes_what_it_should(args, where, value, folder):
    c = dry_runs.dry_run(folder, "--cond=0", *args.split())
    for key in where.split():
        c = c[key]
    assert value.items() <= c.items()


def test_transfer_sources(folder):
    base = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/transfer-learning-source-nets/"
    files = {
        "ffhq256": "ffhq-res256-mirror-paper256-noaug.pkl",
        "ffhq512": "ffhq-res512-mirror-stylegan2-noaug.pkl",
        "ffhq1024": "ffhq-res1024-mirror-stylegan2-noaug.pkl",
        "celebahq256": "celebahq-res256-mirror-paper256-kimg100000-ada-target0.5.pkl",
        "lsundog256": "lsundog-res256-paper256-kimg100000-noaug.pkl",
    }
    for name, file in files.items():
        c = dry_runs.dry_run(folder, f"--resume={name}")
        assert c["init_kwargs"] == {"func_name": "training.transfer.from_pickle", "url": base + file}
    assert "init_kwargs" not in dry_runs.dry_run(folder, "--resume=noresume")


@pytest.mark.parametrize(
    ("args", "name"),
    [
        ("", "tiny-auto1"),
        ("--mirror=1 --cfg=stylegan2 --aug=noaug", "tiny-mirror-stylegan2-noaug"),
        ("--subset=4 --cfg=paper256 --resume=ffhq256 --freezed=10", "tiny-subset4-paper256-resumeffhq256-freezed10"),
        ("--cfg=paper512 --aug=ada --target=0.7 --augpipe=bg", "tiny-paper512-ada-target0.7-bg"),
        ("--cfg=paper1024 --gamma=5 --kimg=1000 --batch=16 --aug=fixed --p=0.2",
         "tiny-paper1024-gamma5-kimg1000-batch16-fixed-p0.2"),
        ("--cond=1 --cfg=cifar --resume=TEACHER", "tiny-cond-cifar-resumecustom"),
        ("--gpus=8 --resume=noresume --desc=again --snap=3 --seed=9 --fp32=1", "tiny-auto8-noresume-again"),
    ],
)  # fmt: skip
def test_names_of_runs(args, name, folder):
    assert dry_runs.dry_run(folder, *args.split())["run_dir"] == f"FOLDER/runs/00000-{name}"


def test_runs_are_numbered(folder, tmp_path):
    dry_runs.dry_run(folder)
    (tmp_path / "00007-something").mkdir()
    args = [f"--data={folder}/tiny.zip", f"--outdir={tmp_path}", "--dry-run", "--no-estimate"]
    result = CliRunner().invoke(train.main, args)
    assert f'"run_dir": "{tmp_path}/00008-tiny-auto1"' in result.stdout


# What does not fit.


def error_of(folder, *args):
    """The one line with which train.py refuses; and nothing has been written."""
    dry_runs.dry_run(folder)
    words = [arg.replace("TEACHER", f"{folder}/teacher.pkl") for arg in args]
    result = CliRunner().invoke(train.main, [f"--data={folder}/tiny.zip", f"--outdir={folder}/runs", *words])
    assert result.exit_code in (1, 2), result.output
    assert result.stdout == ""
    (line,) = [line for line in result.stderr.splitlines() if not line.startswith("WARNING")]
    assert not (folder / "runs").exists()
    return line.removeprefix("Error: ")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--gpus=3", "Invalid value for '--gpus': expected a power of two of at least 1, found '3'"),
        ("--gpus=0", "Invalid value for '--gpus': expected a power of two of at least 1, found '0'"),
        ("--snap=0", "Invalid value for '--snap': 0 is not in the range x>=1."),
        ("--kimg=0", "Invalid value for '--kimg': 0 is not in the range x>=1."),
        ("--gamma=nan", "Invalid value for '--gamma': expected a finite number, found 'nan'"),
        ("--gamma=-1", r"Invalid value for '--gamma': -1.0 is not in the range x>=0."),
        ("--cond=maybe", "Invalid value for '--cond': 'maybe' is not a valid boolean."),
        ("--cfg=cifer", "Invalid value for '--cfg': 'cifer' is not one of 'auto', 'stylegan2', 'paper256',"),
        ("--metrics=fid5k", "Invalid value for '--metrics': no metric is called 'fid5k'; valid ones: fid50k_full,"),
        ("--metrics=agreement", "Invalid value for '--metrics': agreement compares with another network; score the"),
        ("--subset=0", "--subset: expected 1 to 6 images, found 0"),
        ("--subset=7", "--subset: expected 1 to 6 images, found 7"),
        ("--batch=30 --gpus=4", "--batch: 30 is not a multiple of --gpus 4"),
        ("--batch=32 --batch-gpu=3", "--batch-gpu: batch 32 is not a multiple of --gpus 1 times 3"),
        ("--batch=9 --mbstd-group=4", "--mbstd-group: the group of 4 does not divide the 9 images of one pass"),
        ("--aug=fixed", "--aug: fixed takes its probability from --p, which is missing"),
        ("--p=0.5", "--p: only of use with --aug=fixed, found ada"),
        ("--aug=fixed --p=1.5", "Invalid value for '--p': 1.5 is not in the range 0<=x<=1."),
        ("--aug=noaug --target=0.5", "--target: only of use with --aug=ada, found noaug"),
        ("--aug=noaug --ada-max=0.5", "--ada-max: only of use with --aug=ada, found noaug"),
        ("--aug=noaug --augpipe=bg", "--augpipe: only of use with --aug=ada or fixed, found noaug"),
        ("--freezed=-1", "Invalid value for '--freezed': -1 is not in the range x>=0."),
        ("--workers=-1", "Invalid value for '--workers': -1 is not in the range x>=0."),
        ("--resume=nothing.pkl", "--resume: nothing.pkl: no such run directory, network pickle, URL or name of"),
        ("--width=0.5", "--width: can only be given together with --cfg=dgl"),
        ("--teacher=TEACHER", "--teacher: can only be given together with --cfg=dgl"),
        ("--teacher-update", "--teacher-update: can only be given together with --cfg=dgl"),
        ("--cfg=dgl --width=0.5", "--teacher: --cfg=dgl needs the network pickle of a teacher"),
        ("--cfg=dgl --teacher=TEACHER", "--width: --cfg=dgl needs the width of the student, e.g. --width=0.5"),
        ("--cfg=dgl --teacher=TEACHER --width=0", "Invalid value for '--width': expected a fraction above 0"),
        ("--cfg=dgl --teacher=TEACHER --width=1.5", "Invalid value for '--width': expected a fraction above 0"),
        ("--cfg=dgl --teacher=TEACHER --width=nan", "Invalid value for '--width': expected a fraction such as 0.5"),
        ("--cfg=dgl --teacher=TEACHER --width=1 --cbase=9", "--cbase: cannot be given together with --cfg=dgl"),
        ("--cfg=dgl --teacher=TEACHER --width=1 --resume=TEACHER", "--resume: cannot be given together with --cfg=dgl"),
        ("PAPER --init=scratch --score=l1", "--score: can only be given together with"),
        ("--cfg=dgl --teacher=TEACHER --width=0.5 --init=TEACHER", "--width: .* is not 1/2 of the teacher's width"),
        ("--cfg=dgl --teacher=TEACHER --width=1 --dgl-weight=nan", "Invalid value for '--dgl-weight': expected a"),
        ("--cfg=dgl --teacher=TEACHER --width=1 --dgl-weight=inf", "Invalid value for '--dgl-weight': expected a"),
        ("--cfg=dgl --teacher=TEACHER --width=1 --kd=rgb --kd=rgb=2", "--kd: every term can be given once, found rgb"),
        ("--cfg=dgl --teacher=TEACHER --width=1 --kd=rgb --init=scratch", "--kd: compares images of the same w, but"),
        ("PAPER --cond=0 --stage1-kimg=9 --kimg=9", "--stage1-kimg: the run ends at 9"),
        ("PAPER --teacher-weights=1,2", "--teacher-weights: expected one weight for"),
        ("PAPER --batch=3", "--batch: the minibatch-std group of 2 of the te"),
        ("--cfg=dgl --teacher=TEACHER --width=1 --teacher-weights=dynamic", "--teacher-weights: 'dynamic' chooses bet"),
        ("PAPER --teacher-aug", "--teacher-aug: nothing is augmented in this run"),
        ("--cfg=dgl --teacher=TEACHER --width=1 --kd=latent --batch=4 --batch-gpu=1", "--kd: latent compares"),
        ("--cfg=dgl --teacher=TEACHER --width=1 --kd=rgb=", "Invalid value for '--kd': expected a weight of at"),
        ("--cfg=dgl --teacher=TEACHER --init=slcie", "--init: expected slice, mapping, scratch or the pickle"),
        ("--cfg=dgl --teacher=http://host/x.pkl --width=1", "--teacher: http://host/x.pkl: no such file, and no URL"),
        ("PAPER --guidance=relative --init=scratch", "--guidance: relative compares images of the same w"),
        ("PAPER --guidance=ratio --teacher-update", "--teacher-update: cannot be given together with --guidance=ratio"),
        ("PAPER --guidance=heads --teacher-update", "--teacher-update: cannot be given together with --guidance=heads"),
        ("PAPER --guidance=relative --teacher-aug", "--teacher-aug: cannot be given together with --guidance=relative"),
        ("DISTIL --guidance=ratio", "--guidance: applies to adversarial training, which this run does not have"),
        ("DISTIL --game-kd=0", "--game-kd: applies to adversarial training, which this run does not have"),
        ("DISTIL --game-warmup=1", "--game-warmup: applies to adversarial .* not have; pass --game-kimg=N$"),
        ("DISTIL --glr=0.1", "--glr: applies to adversarial .* not have; pass --game-kimg=N or --recipe=paper$"),
        ("DISTIL --game-kimg=2 --game-warmup=2", "--game-warmup: expected less than --game-kimg=2, found 2"),
        ("DISTIL --game-kimg=2 --game-kd=inf", "--game-kd: expected a finite number of at least 0, found inf"),
        ("DISTIL --game-kimg=2 --game-kd=-1", "Invalid value for '--game-kd': -1.0 is not in the range x>=0"),
        ("DISTIL --game-kimg=2 --dgl-weight=-1", "Invalid value for '--dgl-weight': -1.0 is not in the range x>=0"),
        ("DISTIL --kd-blocks=1,-1", "Invalid value for '--kd-blocks': expected numbers of at least 0, not all 0"),
        ("PAPER --teacher-weights=0", "Invalid value for '--teacher-weights': expected numbers of at least 0, not all"),
        ("PAPER --game-kd=1", "--game-kd: cannot be given together with --recipe=paper"),
        ("PAPER --game-kimg=3", "--game-kimg: .* together with --recipe=paper, whose length is --kimg$"),
        ("DISTIL --stage1-kimg=3", "--stage1-kimg: applies to adversarial training from the first step only"),
        ("DISTIL --dgl-weight=1", "--dgl-weight: applies to adversarial training, which this run does not have"),
        ("DISTIL --teacher=TEACHER", "--teacher: distillation uses one teacher; several can only guide"),
        ("DISTIL --init=scratch", "--init: distillation compares images of the same w"),
        ("DISTIL --kd=rgb=0 --kd=feature=0", "--kd: all weights are 0, so nothing would be distilled"),
        ("DISTIL --kd=rgb=-1", "Invalid value for '--kd': expected a weight of at least 0, found '-1'"),
        ("DISTIL --kd=rgb --kd-blocks=1,1", "--kd-blocks: can only be given together with --kd=feature"),
        ("DISTIL --kd-blocks=1,1,1", "--kd-blocks: expected one weight for each of the 2 blocks of the teacher's"),
        ("DISTIL --kd-blocks=0,0", "Invalid value for '--kd-blocks': expected numbers of at least 0, not all 0"),
        ("DISTIL --kd=lpips", "--kd-lpips: must be given together with --kd=lpips"),
        ("DISTIL --kd-lpips=vgg16.pt", "--kd-lpips: must be given together with --kd=lpips"),
        ("DISTIL --kd-mask=none.png", "--kd-mask: none.png cannot be read as an image"),
        ("PAPER --kd-mask=none.png", "--kd-mask: can only be given together with --kd"),
        ("DISTIL --data=teacher --mirror=1", "--mirror: can only be given together with --data=PATH"),
        ("DISTIL --data=teacher --metrics=agreement", "Invalid value for '--metrics': agreement compares with another"),
        ("DISTIL --data=teacher --metrics=fid50k_full", "--metrics: needs real images; pass --data=PATH, or"),
        ("DISTIL --game-kimg=1 --batch=6 --batch-gpu=3", "--batch: the minibatch-std group of 2"),
        ("--game-kimg=1", "--game-kimg: can only be given together with --cfg=dgl"),
        ("--detector=none.pt", "--detector: none.pt: no such file"),
        ("--cfg=dgl --teacher=TEACHER --width=1 --cond=1", "--teacher: .* takes labels of size 0, the data set gives 3;"
         " pass --cond=false"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit(args, message, folder):
    words = args.replace("PAPER", "--cfg=dgl --recipe=paper --teacher=TEACHER --width=1")
    words = words.replace("DISTIL", "--cfg=dgl --teacher=TEACHER --width=1 --cond=0").split()
    assert re.match(message, error_of(folder, *words)), error_of(folder, *words)


@pytest.mark.parametrize(("more", "channels"), [([], 8), (["--d-width=1"], 16), (["--d-init=teacher"], 16)])
def test_a_students_pickle_brings_its_discriminator(more, channels, folder, tmp_path):
    import prune_init
    from dgl import student

    dry_runs.dry_run(folder)
    flags = [f"--teacher={folder}/teacher.pkl", "--width=0.5", "--d-width=0.5", f"--dest={tmp_path}/s.pkl"]
    result = CliRunner().invoke(prune_init.main, [*flags, "--device=cpu", "--no-latency", "--no-refit"])
    assert result.exit_code == 0, result.output
    args = [*tiny_runs.DGL, f"--teacher={folder}/teacher.pkl", f"--init={tmp_path}/s.pkl", "--cond=0", *more]
    config = tiny_runs.options(f"{folder}/tiny.zip", *args)
    actual = run_config.from_dict(config)
    dataset = run_config.DATASETS.call(actual.data.training_set.name, actual.data.training_set.arguments)
    nets = training_loop.build_networks(actual.networks, dataset, torch.device("cpu"))
    assert nets["D"].b4.conv.weight.shape[0] == channels
    lines = student.initialise(networks=nets, **{k: v for k, v in config["init_kwargs"].items() if k != "func_name"})
    assert lines[0] == f"Student: weights of {tmp_path}/s.pkl"
    source = open_networks(f"{tmp_path}/s.pkl" if channels == 8 else f"{folder}/teacher.pkl")["D"]
    assert torch.equal(nets["D"].b4.conv.weight, source.b4.conv.weight)


def test_required_options():
    for args, missing in (([], "outdir"), (["--outdir=x"], "data"), (["--resume=latest"], "outdir")):
        result = CliRunner().invoke(train.main, args)
        assert (result.exit_code, result.output) == (2, f"Error: Missing option '--{missing}'.\n")


def test_the_teacher_never_enters_a_snapshot(folder, tmp_path):
    dry_runs.dry_run(folder)
    args = [*tiny_runs.DGL, f"--teacher={folder}/teacher.pkl", "--width=0.5", "--cond=0", "--teacher-update"]
    config = tiny_runs.options(f"{folder}/tiny.zip", *args)
    run_dir = tiny_runs.run(tmp_path / "run", config, total_kimg=0.008)
    nets = open_networks(str(max(run_dir.glob("network-snapshot-*.pkl"))))
    assert set(nets) == {"training_set_kwargs", "G", "D", "G_ema", "augment_pipe"}
    student, teacher = (n["G_ema"] for n in (nets, tiny.tiny_networks()))
    sizes = [sum(p.numel() for p in n.parameters()) for n in (student, teacher)]
    assert sizes[0] < 0.6 * sizes[1]
    stored = max(run_dir.glob("network-snapshot-*.pkl")).stat().st_size
    tensors = sum(t.numel() * 4 for name in ("G", "D", "G_ema") for t in nets[name].state_dict().values())
    assert stored < tensors + 150_000  # the program text and the structure; no further network


def test_what_a_run_directory_trusts_counts_only_if_said_again(folder, tmp_path):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    config = dry_runs.dry_run(folder, "--resume=TEACHER", "--trust-pickle")
    assert config["init_kwargs"]["trust_pickle"] is True
    (run_dir / run_config.FILE_NAME).write_text(json.dumps(config))
    command = [f"--resume={run_dir}", "--dry-run", "--no-estimate"]
    refused = CliRunner().invoke(train.main, command)
    assert refused.exit_code == 1
    assert "training_options.json asks to run the code that network files carry; if you trust them and it, pass " \
           "--trust-pickle as well" in refused.output
    assert CliRunner().invoke(train.main, [*command, "--trust-pickle"]).exit_code == 0
