"""Students of networks whose images are not square: scores, slices, refits, costs, export and distillation."""
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import export
import prune_init
import train
from dgl import prune
from dgl.architectures import costs_of, plan_of
from dgl.scores.registry import ScoreOptions, compute
from dgl.student import Cut, slice_student
from dgl.teacher import Teacher
from dnnlib.errors import UserError
from tests import tiny
from tests.dgl.test_prune import INVARIANCE, difference, run, silence, sliced
from tests.training import tiny_runs
from torch_utils.network_types import image_size
from training.checkpoints import pickles

UPRIGHT = [4, 2]


def networks(height: int = 16) -> dict[str, Any]:
    """A teacher for images half as wide as high."""
    size: dict[str, Any] = {"resolution": height, "base_size": UPRIGHT}
    G, G_ema = (tiny.tiny_generator(seed=seed, **size) for seed in (0, 2))
    return {"G": G, "D": tiny.tiny_discriminator(**size), "G_ema": G_ema}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "human.pkl"
    pickles.save_networks(pickles.snapshot_data(networks(8), None), path)
    return path


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
@pytest.mark.parametrize("role", ["G", "D"])
def test_cutting_channels_that_do_nothing_changes_nothing(role: str, architecture: str) -> None:
    make: Any = tiny.tiny_generator if role == "G" else tiny.tiny_discriminator
    statistics = {} if role == "G" else {"epilogue_kwargs": {"mbstd_num_channels": 0}}  # which see silent channels
    network = make(architecture, base_size=UPRIGHT, **statistics)
    plan = plan_of(network)
    keep = prune.choose(compute("l1", network, plan, ScoreOptions()), plan.scaled(Fraction(1, 2)))
    silence(network, plan, keep)
    network = network.double()
    if role == "G":
        assert difference(run(sliced(network, keep)), run(network)) <= INVARIANCE
        return
    with tiny.double_precision():
        images = tiny.images()[..., :8].double()
        logits = [net(images, None) for net in (network, sliced(network, keep).double())]
    torch.testing.assert_close(logits[0], logits[1], atol=1e-9, rtol=0)


@pytest.mark.parametrize("score", ["reconstruct", "diversity", "content"])
def test_a_refitted_slice_is_nearer_to_its_teacher(score: str) -> None:
    nets = networks()
    teacher = Teacher("t.pkl", "0", nets["G"], nets["G_ema"], nets["D"], None)
    result = slice_student(teacher, Cut(Fraction(1, 2), score, num_samples=4, refit=True), Fraction(1, 2))
    assert image_size(result.G_ema) == image_size(result.D) == (16, 8)
    report = result.refits["G_ema"]
    assert report.psnr_after > report.psnr_before
    assert torch.isfinite(result.D(tiny.images()[..., :8], None)).all()


def test_multiply_accumulates_are_those_of_the_pixels() -> None:
    """Convolutions of upright images of half the width have half; dense layers as many as ever."""
    for make in (tiny.tiny_generator, tiny.tiny_discriminator):
        whole, half = ({cost.layer: cost for cost in costs_of(make(base_size=base))} for base in ([4, 4], UPRIGHT))
        for name, cost in half.items():
            is_dense = "affine" in name or "mapping" in name or name.endswith("out")
            assert cost.macs_out * (1 if is_dense else 2) == whole[name].macs_out, name
            assert cost.macs_in * (1 if is_dense else 2) == whole[name].macs_in, name


def test_commands(teacher: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    student = tmp_path / "student.pkl"
    result = runner.invoke(prune_init.main, [f"--teacher={teacher}", "--width=0.5", "--no-latency", "--device=cpu",
                                             f"--dest={student}"])
    assert result.exit_code == 0, result.output
    assert "refit of G_ema" in result.stdout
    result = runner.invoke(export.main, [f"--network={student}", "--format=onnx", "--pixels=uint8",
                                         f"--dest={tmp_path / 'x.onnx'}"])
    assert result.exit_code == 0, result.output
    result = runner.invoke(export.main, [f"--network={student}", "--format=hub", f"--dest={tmp_path / 'hub'}"])
    assert result.exit_code == 0, result.output
    assert "for 4x8 images of 3 channel(s)" in (tmp_path / "hub" / "README.md").read_text()
    assert image_size(pickles.open_networks(str(tmp_path / "hub"))["G_ema"]) == (8, 4)
    data = tiny.write_data(tmp_path / "data", side=8)
    result = runner.invoke(train.main, ["--cfg=dgl", f"--teacher={teacher}", f"--data={data}", "--width=0.5",
                                        f"--outdir={tmp_path}", "--dry-run", "--no-estimate", "--device=cpu"])
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == ("Error: --teacher: training on a data set needs square images; those of "
                                              "this network are 4x8 (width x height)")


def test_distillation_needs_no_data_and_keeps_the_shape(teacher: Path, tmp_path: Path) -> None:
    options = tiny_runs.options("teacher", "--cfg=dgl", f"--teacher={teacher}", "--width=0.5", "--batch=4",
                                "--workers=0", "--kimg=1")
    options["loss_kwargs"].update(distil_kimg=0.008)
    folder = tiny_runs.run(tmp_path / "run", options, total_kimg=0.008)
    student = pickles.open_networks(str(sorted(folder.glob("network-snapshot-*.pkl"))[-1]))
    assert image_size(student["G_ema"]) == image_size(student["D"]) == (8, 4)


def test_a_mask_has_the_shape_of_the_images() -> None:
    from dgl import roi

    with pytest.raises(UserError, match="nowhere"):
        roi.load("nowhere.png", (16, 8))
