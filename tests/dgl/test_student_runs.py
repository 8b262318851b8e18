"""Real runs of students: with which networks they start, and what their teachers leave."""
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from dgl import student as students
from dgl import teacher as teachers
from tests import tiny
from tests.training import tiny_runs
from training.checkpoints import pickles
from training.networks import Discriminator


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("data")
    return {
        "plain": tiny.write_data(folder / "plain"),
        "labelled": tiny.write_data(folder / "labelled", num_classes=3),
        "teacher1": tiny.write_teacher(folder / "teacher1.pkl", seed=1),
        "teacher2": tiny.write_teacher(folder / "teacher2.pkl", seed=2),
        "conditional": tiny.write_teacher(folder / "conditional.pkl", c_dim=3),
    }


def start(data: dict[str, str], tmp_path: Path, *args: str, dataset: str = "plain", **changes: Any) -> dict[str, Any]:
    """The networks with which a run with --cfg=dgl starts: nothing has been learned yet."""
    config = tiny_runs.options(data[dataset], *tiny_runs.DGL, "--glr=0", "--dlr=0", *args)
    folder = tiny_runs.run(tmp_path / "run", config, total_kimg=0.004, **changes)
    return pickles.open_networks(str(folder / "network-snapshot-000000.pkl"))


def same_parameters(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    names, others = dict(a.named_parameters()), dict(b.named_parameters())
    return list(names) == list(others) and all(torch.equal(names[name], others[name]) for name in names)


def test_a_student_of_width_one_starts_as_its_teacher(data: dict[str, str], tmp_path: Path) -> None:
    student = start(data, tmp_path, f"--teacher={data['teacher1']}", "--width=1")
    teacher = pickles.open_networks(data["teacher1"])
    assert same_parameters(student["G"], teacher["G"])
    assert same_parameters(student["D"], teacher["D"])
    assert student["G_ema"].init_kwargs == teacher["G_ema"].init_kwargs


@pytest.mark.parametrize("refit", [True, False])
def test_a_sliced_student_starts_as_prune_init_makes_it(refit: bool, data: dict[str, str], tmp_path: Path) -> None:
    args = [f"--teacher={data['teacher1']}", "--width=0.57", "--d-width=1/2", "--score=random", "--seed=3"]
    args += ["--refit"] if refit else []
    student = start(data, tmp_path, *args, ema_kimg=1e9)
    cut = students.Cut(Fraction("0.57"), "random", seed=3, refit=refit)
    expected = students.slice_student(teachers.load(data["teacher1"]), cut, Fraction(1, 2))
    assert same_parameters(student["G"], expected.G)
    assert same_parameters(student["D"], expected.D)
    for name, tensor in expected.G_ema.named_parameters():
        assert torch.allclose(student["G_ema"].get_parameter(name), tensor, atol=1e-6)  # moved by 4e-13 of the way
    assert student["G"].synthesis.b8.conv0.weight.shape[0] == 9  # floor(0.57 * 16)


def test_a_student_from_scratch(data: dict[str, str], tmp_path: Path) -> None:
    student = start(data, tmp_path, f"--teacher={data['teacher1']}", "--width=0.5", "--init=scratch", "--kimg=2")
    teacher = pickles.open_networks(data["teacher1"])
    assert student["G"].synthesis.b8.conv0.weight.shape == (8, 8, 3, 3)
    assert not torch.equal(student["G"].mapping.fc0.weight, teacher["G"].mapping.fc0.weight)
    assert not same_parameters(student["D"], teacher["D"])


@pytest.mark.parametrize("d_init", ["teacher", "scratch"])
def test_a_student_from_a_pickle(d_init: str, data: dict[str, str], tmp_path: Path) -> None:
    narrow = tmp_path / "narrow.pkl"
    nets = {"G": tiny.tiny_generator(seed=41, channel_base=96), "D": tiny.tiny_discriminator(),
            "G_ema": tiny.tiny_generator(seed=42, channel_base=96), "augment_pipe": None}
    pickles.save_networks(pickles.snapshot_data(nets, None), narrow)
    student = start(data, tmp_path, f"--teacher={data['teacher1']}", f"--init={narrow}", f"--d-init={d_init}")
    teacher = pickles.open_networks(data["teacher1"])
    assert same_parameters(student["G"], nets["G"])
    assert same_parameters(student["D"], teacher["D"]) == (d_init == "teacher")
    assert isinstance(student["D"], Discriminator)


def test_conditional_students_of_updated_teachers(data: dict[str, str], tmp_path: Path) -> None:
    args = [f"--teacher={data['conditional']}", "--width=0.5", "--cond=1", "--teacher-update"]
    config = tiny_runs.options(data["labelled"], *tiny_runs.DGL, *args)
    folder = tiny_runs.run(tmp_path / "run", config)
    nets = pickles.open_networks(str(folder / "network-snapshot-000000.pkl"))
    assert nets["G"].c_dim == nets["D"].c_dim == 3
    trained = tiny_runs.last_state(folder)["loss"]["teachers"][0]
    before = pickles.open_networks(data["conditional"])["D"].state_dict()
    assert any(not torch.equal(trained[name], before[name]) for name in before)
    assert any(not torch.equal(trained[name], tensor) for name, tensor in nets["D"].state_dict().items())
    names = tiny_runs.records(folder)[0]
    assert {"Loss/G/dgl", "Loss/teacher/D/loss", "Loss/teacher/r1_penalty"} <= set(names)
    assert all(math.isfinite(value["mean"]) for value in names.values())
    # The teachers are nowhere in the pickle: no more networks than G, D and G_ema, no larger than those.
    content = (folder / "network-snapshot-000000.pkl").read_bytes()
    assert trained["b8.conv0.weight"].numpy().tobytes() not in content
    assert nets["D"].b8.conv0.weight.numpy().tobytes() in content


def test_both_stages_of_two_teachers(data: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = [f"--teacher={data['teacher1']}", f"--teacher={data['teacher2']}", "--width=0.5"]
    config = tiny_runs.options(data["plain"], *tiny_runs.DGL, *args)
    config["loss_kwargs"]["stage1_kimg"] = 0.016
    folder = tiny_runs.run(tmp_path / "run", config)
    assert "Stage 2 of training begins at image 16\n" in capsys.readouterr().out
    records = tiny_runs.records(folder)
    assert ["Loss/G/dgl" in record for record in records] == [False, False, True, True]
    assert records[2]["Loss/G/dgl"]["num"] == 12
    assert records[2]["Loss/teacher/scores/fake"]["num"] == 24
    # The optimizers were reset: six iterations since, Gmain in each and Greg in the first of four.
    steps = [opt["state"][0]["step"] for opt in tiny_runs.last_state(folder)["optimizers"]]
    assert [int(step) for step in steps] == [6 + 2, 6 + 2]
