"""The teacher's term with the hinge loss, and students of BigGANs through the command lines."""
import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import calc_metrics
import generate
import prune_init
from dgl.loss import DGLHingeLoss
from tests import tiny, tiny_biggan
from tests.metrics import toys
from training.biggan.checkpoints import load_generator
from training.biggan.loss import HingeLoss
from training.checkpoints.pickles import open_networks
from training.loss import Part, Step

DEVICE = torch.device("cpu")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_biggan.write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.pkl")


def networks() -> tuple[Any, Any]:
    return tiny_biggan.tiny_generator(seed=20).train(), tiny_biggan.tiny_discriminator(seed=21).train()


def gradients(loss: Any, phase: str, cur_nimg: int = 0) -> dict[str, torch.Tensor]:
    base = getattr(loss, "base", loss)
    network = base.G if phase[0] == "G" else base.D
    z, c = tiny_biggan.inputs(base.G)
    img, _ = tiny_biggan.inputs(base.D)
    labels = torch.nn.functional.one_hot(c, 3).float()
    network.requires_grad_(True)
    network.zero_grad(set_to_none=True)
    step = Step(img, labels, z, labels, gain=1, cur_nimg=cur_nimg)
    loss.accumulate_gradients(*tiny.split_phase(phase), step)
    network.requires_grad_(False)
    return {name: p.grad for name, p in network.named_parameters()}


def guided(teacher: str, **options: Any) -> DGLHingeLoss:
    return DGLHingeLoss(DEVICE, *networks(), teachers=[{"url": teacher}], **options)


def test_the_term_is_the_negative_score_of_the_teacher(teacher: str) -> None:
    """-0.1 · mean D_T(G(z), c), on the image that D sees, with its labels."""
    result = gradients(guided(teacher, dgl_weight=0.1), "Gboth")
    plain = HingeLoss(DEVICE, *networks())
    G, D = plain.G.requires_grad_(True), open_networks(teacher)["D"]
    z, c = tiny_biggan.inputs(G)
    img = G(z, c)
    (-plain.D(img, c) - 0.1 * D(img, c)).mean().backward()
    for name, p in G.named_parameters():
        torch.testing.assert_close(result[name], p.grad, rtol=1e-4, atol=1e-5, msg=name)


def test_a_weight_of_zero_is_no_teacher_to_the_bit(teacher: str) -> None:
    actual = gradients(guided(teacher, dgl_weight=0), "Gboth")
    expected = gradients(HingeLoss(DEVICE, *networks()), "Gboth")
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


def test_the_discriminator_has_no_teacher(teacher: str) -> None:
    actual = gradients(guided(teacher, dgl_weight=5), "Dboth")
    expected = gradients(HingeLoss(DEVICE, *networks()), "Dboth")
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


def test_the_teacher_stays_as_it_is(teacher: str) -> None:
    loss = guided(teacher)
    (D,) = loss.teachers.discriminators
    before = copy.deepcopy(D.state_dict())
    gradients(loss, "Gboth")
    gradients(loss, "Dboth")
    assert not D.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in D.state_dict().items())
    assert all(p.grad is None for p in D.parameters())


def test_stage_one_has_no_teacher(teacher: str) -> None:
    loss = guided(teacher, stage1_kimg=1)
    assert (loss.stage(999), loss.stage(1000)) == (0, 1)
    expected = gradients(HingeLoss(DEVICE, *networks()), "Gboth")
    assert all(torch.equal(g, expected[name]) for name, g in gradients(loss, "Gboth", cur_nimg=999).items())
    later = gradients(guided(teacher, stage1_kimg=1), "Gboth", cur_nimg=1000)
    assert not torch.equal(later["linear.weight"], expected["linear.weight"])


def test_an_updated_teacher_trains_with_the_hinge(teacher: str) -> None:
    options = {"class_name": "torch.optim.Adam", "lr": 1e-3, "betas": [0, 0.999]}
    loss = guided(teacher, teacher_update=True, teacher_opt_kwargs=options)
    D = loss.teachers.discriminators[0]
    assert D.training, "its singular vectors must follow its weights"
    assert [phase.name for phase in loss.extra_phases()] == ["T0main", "T0reg"]
    z, c = tiny_biggan.inputs(loss.base.G)
    img, _ = tiny_biggan.inputs(D)
    labels = torch.nn.functional.one_hot(c, 3).float()
    D.requires_grad_(True)
    step = Step(img, labels, z, labels, gain=1, cur_nimg=0)
    loss.accumulate_gradients("T0", Part.REG, step)
    assert all(p.grad is None for p in D.parameters()), "there is nothing to regularise"
    loss.accumulate_gradients("T0", Part.MAIN, step)
    assert all(p.grad is not None for p in D.parameters())


# Command lines.


def invoke(command: Any, *args: str, expect: int = 0) -> str:
    result = CliRunner().invoke(command, list(args))
    assert result.exit_code == expect, result.output
    return result.stdout if expect == 0 else result.output


@pytest.fixture(scope="module")
def student(teacher: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("student") / "student.pkl"
    output = invoke(prune_init.main, f"--teacher={teacher}", "--width=0.5", f"--dest={path}", "--no-latency",
                    "--score-samples=8", "--device=cpu")
    assert "fewer MACs" in output
    return path


def test_prune_init(student: Path, teacher: str) -> None:
    record = json.loads(student.with_suffix(".cost.json").read_text())
    params = {cost["name"]: cost["params"] for cost in record["costs"]}
    assert params["student D"] == params["teacher D"] > 0
    assert params["student G"] < 0.5 * params["teacher G"]
    assert len(record["kept_channels"]["stream0"]) == 8
    nets = open_networks(str(student))
    assert nets["G_ema"].options["G_ch"] == 2
    assert not torch.equal(nets["G"].linear.weight, nets["G_ema"].linear.weight)
    for name in ("diversity", "l1"):
        refine = ["--refine=svs"] if name == "l1" else []
        output = invoke(prune_init.main, f"--teacher={teacher}", "--width=0.5", f"--dest={student}", f"--score={name}",
                        *refine, "--score-samples=2", "--device=cpu", expect=1)
        assert "BigGANGenerator has none" in output


def test_images_by_class_and_truncation(student: Path, tmp_path: Path) -> None:
    args = [f"--network={student}", "--seeds=0-1", "--device=cpu"]
    for name, options in {"a": ["--class=0"], "b": ["--class=1"], "c": ["--class=0", "--trunc=0.5"]}.items():
        invoke(generate.main, *args, *options, f"--outdir={tmp_path / name}")
    images = {(tmp_path / name / "seed0001.png").read_bytes() for name in "abc"}
    assert len(images) == 3
    assert "--class: give the class of the images" in invoke(generate.main, *args, f"--outdir={tmp_path}", expect=1)
    torch.manual_seed(0)
    import numpy as np

    np.savez(tmp_path / "w.npz", w=np.zeros([1, 4, 8], dtype=np.float32))
    wrong = [f"--network={student}", f"--projected-w={tmp_path / 'w.npz'}", f"--outdir={tmp_path}", "--device=cpu"]
    assert "only style-based generators have w, this is a BigGANGenerator" in invoke(generate.main, *wrong, expect=1)


def test_metrics(student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "cache"))
    data = tiny.write_data(tmp_path / "data", side=32, num_classes=3)
    detector = toys.write_detector(tmp_path / "toy.pt")
    output = invoke(calc_metrics.main, f"--network={student}", f"--data={data}", f"--detector={detector}",
                    "--metrics=fid50k_full,is50k", "--num-gen=20", "--device=cpu")
    results = [json.loads(line)["results"] for line in output.splitlines() if line.startswith("{")]
    assert [sorted(result) for result in results] == [["fd@toy"], ["is@toy_mean", "is@toy_std"]]
    assert all(value == value for result in results for value in result.values())


def test_a_public_folder_works_everywhere(student: Path, tmp_path: Path) -> None:
    from training.biggan import checkpoints as biggan_checkpoints

    nets = open_networks(str(student))
    biggan_checkpoints.save_checkpoint(tmp_path / "run", {name: nets[name] for name in ("G_ema", "D")})
    G = load_generator(tmp_path / "run")
    args = ["--seeds=3", "--class=2", "--trunc=0.7", "--device=cpu"]
    for name, network in {"pickle": student, "folder": tmp_path / "run"}.items():
        invoke(generate.main, f"--network={network}", *args, f"--outdir={tmp_path / name}")
    images = [(tmp_path / name / "seed0003.png").read_bytes() for name in ("pickle", "folder")]
    assert images[0] == images[1]
    assert G.img_channels == 3
