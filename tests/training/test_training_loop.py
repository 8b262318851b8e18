"""Real runs of a few iterations: what they leave in their folder, what they say, and how they start and stop."""
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from dnnlib.errors import UserError
from dnnlib.registry import Registry
from metrics import detector
from tests import tiny
from tests.training import tiny_runs
from training import maintenance, run_config
from training.checkpoints import pickles
from training.loss import Part, Step, StyleGAN2Loss, phase_name

DETECTOR = Path(detector.__file__).parent / "detectors" / "clothing32.pt"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("data")
    return {
        "plain": tiny.write_data(folder / "plain"),
        "labelled": tiny.write_data(folder / "labelled", num_classes=3),
        "grey32": tiny.write_data(folder / "grey32", channels=1, side=32),
    }


@pytest.fixture(scope="module")
def stylegan2(data: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny_runs.options(data["plain"], *tiny_runs.STYLEGAN2, "--aug=ada")
    return tiny_runs.run(tmp_path_factory.mktemp("runs") / "stylegan2", config)


def test_files_of_a_run(stylegan2: Path) -> None:
    names = sorted(str(path.relative_to(stylegan2)) for path in stylegan2.rglob("*") if path.is_file())
    events = [name for name in names if name.startswith("events.out.tfevents")]  # where TensorBoard is installed
    assert [name for name in names if name not in events] == [
        "fakes000000.png", "fakes_init.png", "network-snapshot-000000.pkl", "reals.png",
        "state/training-state-000000028.pt", "state/training-state-000000040.pt", "stats.jsonl",
    ]
    with PIL.Image.open(stylegan2 / "fakes000000.png") as picture:
        assert picture.size == (7 * 16, 4 * 16)
        assert np.array(picture).std() > 0


def test_snapshots_load_and_hold_no_teacher(stylegan2: Path) -> None:
    nets = pickles.open_networks(str(stylegan2 / "network-snapshot-000000.pkl"))
    assert sorted(nets) == ["D", "G", "G_ema", "augment_pipe", "training_set_kwargs"]
    assert nets["training_set_kwargs"]["class_name"] == "training.dataset.ImageFolderDataset"
    for name in ("G", "D", "G_ema"):
        assert not nets[name].training
        assert not any(p.requires_grad for p in nets[name].parameters())
    state = tiny_runs.last_state(stylegan2)["networks"]
    for name, tensors in state.items():
        for key, tensor in nets[name].state_dict().items():
            assert torch.equal(tensor, tensors[key]), (name, key)
    assert not torch.equal(state["G"]["synthesis.b4.const"], state["G_ema"]["synthesis.b4.const"])


def test_statistics_of_a_run(stylegan2: Path) -> None:
    lines = [json.loads(line) for line in (stylegan2 / "stats.jsonl").read_text().splitlines()]
    assert len(lines) == 4
    names = [name for name in lines[0] if name != "timestamp"]
    losses = [name for name in names if name.startswith("Loss/")]
    assert losses == ["Loss/scores/fake", "Loss/signs/fake", "Loss/G/loss", "Loss/pl_penalty", "Loss/G/reg",
                      "Loss/scores/real", "Loss/signs/real", "Loss/D/loss", "Loss/r1_penalty", "Loss/D/reg"]
    assert names[len(losses) :] == [
        "Progress/tick", "Progress/kimg", "Timing/total_sec", "Timing/sec_per_tick", "Timing/sec_per_kimg",
        "Timing/maintenance_sec", "Resources/cpu_mem_gb", "Resources/peak_gpu_mem_gb", "Resources/cpu_sec",
        "Progress/augment", "Timing/total_hours", "Timing/total_days", "Progress/nonfinite_steps", "Timing/data",
        "Timing/Gmain", "Timing/Greg", "Timing/Dmain", "Timing/Dreg",
    ]
    assert list(lines[0])[-1] == "timestamp"
    for line in lines:
        assert all(sorted(line[name]) == ["mean", "num", "std"] for name in names)
        assert all(math.isfinite(line[name]["mean"]) for name in names)
    assert [line["Progress/kimg"]["mean"] for line in lines] == pytest.approx([0.004, 0.016, 0.028, 0.04])
    assert [line["Progress/tick"]["mean"] for line in lines] == [0, 1, 2, 3]
    assert [line["Loss/signs/real"]["num"] for line in lines] == [8, 12, 16, 16]  # Dreg in the 1st, 5th, 9th
    assert lines[3]["Timing/Gmain"]["mean"] > 0


def test_status_line(data: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny_runs.options(data["plain"], *tiny_runs.STYLEGAN2, "--aug=fixed", "--p=0.25")
    tiny_runs.run(tmp_path / "run", config, total_kimg=0.008)
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.startswith("tick ")]
    assert len(lines) == 2
    pattern = (r"tick 0     kimg 0.0      time \w.{11} sec/tick [\d.]+ +sec/kimg [\d.]+ +maintenance [\d.]+ +"
               r"cpumem [\d.]+ +gpumem 0.00   augment 0.250")
    assert re.fullmatch(pattern, lines[0])
    texts = ("kimg", "time", "sec/tick", "sec/kimg", "maintenance", "cpumem", "gpumem", "augment")
    starts = [lines[0].index(text) for text in texts]
    assert starts == [11, 25, 43, 60, 77, 96, 110, 124]
    assert "Training set: 12 images [3, 16, 16], labels [0]\n" in out
    assert re.search(r"^synthesis.b16.torgb +\d", out, re.MULTILINE)  # the tables of the networks
    assert out.endswith("Training is done\n")


def test_progress_is_reported(data: dict[str, str], tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    config = tiny_runs.options(data["plain"], *tiny_runs.STYLEGAN2)
    tiny_runs.run(tmp_path / "run", config, progress_fn=lambda *args: calls.append(args), total_kimg=0.016)
    assert calls == [(0, 0)] * 3


def test_intervals_of_none_switch_snapshots_off(data: dict[str, str], tmp_path: Path) -> None:
    config = tiny_runs.options(data["plain"], *tiny_runs.STYLEGAN2)
    folder = tiny_runs.run(tmp_path / "run", config, image_snapshot_ticks=None, network_snapshot_ticks=None)
    names = [path.name for path in folder.iterdir() if not path.name.startswith("events")]
    assert sorted(names) == ["fakes_init.png", "reals.png", "stats.jsonl"]


def test_data_are_loaded_alike_in_other_processes(data: dict[str, str], stylegan2: Path, tmp_path: Path) -> None:
    config = tiny_runs.options(data["plain"], *tiny_runs.STYLEGAN2, "--aug=ada", "--workers=2")
    folder = tiny_runs.run(tmp_path / "run", config)
    assert tiny_runs.differences(tiny_runs.last_state(folder), tiny_runs.last_state(stylegan2)) == []


def test_another_seed_is_another_run(data: dict[str, str], stylegan2: Path, tmp_path: Path) -> None:
    config = tiny_runs.options(data["plain"], *tiny_runs.STYLEGAN2, "--aug=ada", "--seed=1")
    states = [tiny_runs.last_state(folder) for folder in (stylegan2, tiny_runs.run(tmp_path / "run", config))]
    result = tiny_runs.differences(*states)
    assert "/networks/G/synthesis.b4.const" in result
    assert "/data/order" in result


def test_accumulated_passes_sum_up(data: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses are means over a pass, and the passes of a batch add up without a division."""
    noted: list[tuple[str, int]] = []
    original = StyleGAN2Loss.accumulate_gradients

    def note(self: Any, network: str, part: Part, step: Step) -> None:
        noted.append((phase_name(network, part), len(step.real_img)))
        original(self, network, part, step)

    monkeypatch.setattr(StyleGAN2Loss, "accumulate_gradients", note)
    config = tiny_runs.options(data["plain"], *tiny_runs.STYLEGAN2, "--batch-gpu=2")
    assert (config["batch_size"], config["batch_gpu"]) == (4, 2)
    tiny_runs.run(tmp_path / "run", config, total_kimg=0.008, G_reg_interval=None)
    phases = ["Gboth", "Dmain", "Dreg", "Gboth", "Dmain"]
    assert noted == [(phase, 2) for phase in phases for _ in range(2)]


def test_a_wrong_data_set_is_named(data: dict[str, str], tmp_path: Path) -> None:
    config = tiny_runs.options(data["plain"], *tiny_runs.STYLEGAN2)
    config["training_set_kwargs"]["path"] = str(tmp_path / "none.zip")
    with pytest.raises(UserError, match=r"none\.zip"):
        tiny_runs.run(tmp_path / "run", config)


# Presets.


@pytest.mark.parametrize("args", [
    ["--cfg=cifar", "--aug=noaug", "--cond=1"], ["--cfg=paper256", "--mirror=1", "--freezed=3"],
    ["--cfg=auto", "--augpipe=bgcfnc", "--target=0.5", "--fp32=1"],
], ids=["cifar", "paper256", "auto"])  # fmt: skip
def test_presets_train(args: list[str], data: dict[str, str], tmp_path: Path) -> None:
    config = tiny_runs.options(data["labelled"], *tiny_runs.STYLEGAN2[1:], "--cond=0", *args)
    folder = tiny_runs.run(tmp_path / "run", config, total_kimg=0.008, augment_p=config.get("augment_p", 0.3))
    nets = pickles.open_networks(str(folder / "network-snapshot-000000.pkl"))
    assert nets["G"].c_dim == (3 if "--cond=1" in args else 0)
    assert nets["D"].init_kwargs.get("architecture", "resnet") == ("orig" if "--cfg=cifar" in args else "resnet")
    if "--freezed=3" in args:
        frozen = [name for name, _ in nets["D"].named_buffers() if name.endswith("weight")]
        assert frozen == ["b16.fromrgb.weight", "b16.conv0.weight", "b16.conv1.weight"]


# Metrics.


def test_metrics_of_a_run(
    data: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "cache"))
    args = [f"--detector={DETECTOR}", "--metrics=fid50k_full", "--num-gen=8", "--num-real=8"]
    config = tiny_runs.options(data["grey32"], *tiny_runs.STYLEGAN2, *args)
    folder = tiny_runs.run(tmp_path / "run", config, total_kimg=0.016)
    (path,) = folder.glob("metric-*.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 2
    assert [row["snapshot_pkl"] for row in rows] == ["network-snapshot-000000.pkl"] * 2
    assert all(math.isfinite(value) for value in rows[0]["results"].values())
    assert json.dumps(rows[0]) in capsys.readouterr().out


def test_a_metric_whose_detector_cannot_be_had_is_left_out_once(
    data: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between attempts to download
    config = tiny_runs.options(data["plain"], *tiny_runs.STYLEGAN2, "--metrics=fid50k_full")
    folder = tiny_runs.run(tmp_path / "run", config)
    out = capsys.readouterr().out
    assert out.count("Metric fid50k_full is left out of this run: ") == 1
    assert out.endswith("Training is done\n")
    assert not list(folder.glob("metric-*"))
    assert len(tiny_runs.records(folder)) == 4


# Gradients that are not finite.


class Broken(StyleGAN2Loss):
    """Gives the discriminator gradients of NaN."""

    def d_step(self, D: Any, *args: Any, **kwargs: Any) -> None:
        super().d_step(D, *args, **kwargs)
        next(D.parameters()).grad.fill_(math.nan)


@pytest.fixture(autouse=True)
def _broken_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = Registry("loss", {name: name for name in ("training.loss.StyleGAN2Loss",)})
    losses.register("Broken", Broken)
    monkeypatch.setattr(run_config.LOSSES, "_entries", losses._entries)


def test_gradients_that_stay_broken_stop_the_run_with_its_state_saved(
    data: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "MAX_NONFINITE_STEPS", 3)
    config = tiny_runs.options(data["plain"], *tiny_runs.STYLEGAN2, "--aug=noaug")
    good = config["loss_kwargs"]
    config["loss_kwargs"] = {**good, "class_name": "Broken"}
    with pytest.raises(UserError, match=r"^stopped at image 16: gradients were not finite in 4 steps in a row\. Sta"):
        tiny_runs.run(tmp_path / "run", config, D_reg_interval=16)
    folder = tmp_path / "run"
    state = tiny_runs.last_state(folder)
    assert state["cur_nimg"] == 16
    assert [record["Progress/nonfinite_steps"]["mean"] for record in tiny_runs.records(folder)] == [2, 5]
    assert all(torch.isfinite(tensor).all() for tensor in state["networks"]["D"].values())
    tiny_runs.run(folder, {**config, "loss_kwargs": good}, resume_state=True, D_reg_interval=16)
    assert tiny_runs.last_state(folder)["cur_nimg"] == 40
    assert tiny_runs.records(folder)[-1]["Progress/nonfinite_steps"]["mean"] == 5


def test_a_few_broken_gradients_do_not(data: dict[str, str], tmp_path: Path) -> None:
    config = tiny_runs.options(data["plain"], *tiny_runs.STYLEGAN2)
    config["loss_kwargs"] = {**config["loss_kwargs"], "class_name": "Broken"}
    folder = tiny_runs.run(tmp_path / "run", config)
    assert tiny_runs.records(folder)[-1]["Progress/nonfinite_steps"]["mean"] == 10 + 3
