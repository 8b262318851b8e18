"""The probe of a teacher: its measures against formulas, its command line, and what it says."""
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from click.testing import CliRunner

from dgl import probe
from dgl import probe_measures as measures
from tests import tiny, tiny_biggan
from training.checkpoints import pickles


def run(*args: str, code: int = 0) -> Any:
    result = CliRunner().invoke(probe.main, [*args, "--device=cpu"])
    assert result.exit_code == code, result.output
    return result


def test_auc_is_the_share_of_pairs() -> None:
    a, b = torch.tensor([1.0, 2.0, 3.0, 3.0]), torch.tensor([0.0, 2.0, 3.0])
    expected = np.mean([(x > y) + 0.5 * (x == y) for x in a.tolist() for y in b.tolist()])
    assert measures.auc(a, b) == pytest.approx(expected)
    assert measures.auc(b, a) == pytest.approx(1 - expected)


def test_calibration_recovers_the_ratio_of_two_normal_densities() -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn([40000], generator=random).double()
    real, fake = x[:20000] + 1, x[20000:] - 1  # the log of the ratio of the densities is 2 x
    a, b = measures.calibration((2 * real - 1) / 4, (2 * fake - 1) / 4)  # of logits (2 x - 1) / 4
    assert a == pytest.approx(4, rel=0.05)
    assert b == pytest.approx(1, abs=0.1)
    assert all(math.isfinite(value) for value in measures.calibration(torch.ones(5), -torch.ones(5)))


def test_gradients_are_finite_differences() -> None:
    D = tiny.tiny_discriminator(epilogue_kwargs={"mbstd_num_channels": 0}).double()
    img, target = (tiny.images(2, seed=seed).double() for seed in (1, 2))
    c, direction, h = torch.zeros([2, 0]), torch.randn(2, 3, 16, 16).double(), 1e-5
    with tiny.double_precision():
        result = measures.verdict_gradient(D, measures.Images(img, c))
        change = [D(img + sign * h * direction, c).sum() for sign in (1, -1)]
    assert float((result * direction).sum()) == pytest.approx(float(change[0] - change[1]) / (2 * h), rel=1e-4)
    D = tiny.tiny_discriminator()
    img, target = img.float(), target.float()
    towards = measures.feature_gradient(D, img, target)
    block_distance, features = measures.block_distance, measures.block_features
    before, after = (block_distance(features(D, x), features(D, target)).sum() for x in (img, img + 1e-2 * towards))
    assert float(before - after) == pytest.approx(1e-2 * float(towards.square().sum()), rel=0.05)


@pytest.mark.parametrize("count", [6, 16, 38])
def test_the_last_group_is_filled_up(count: int) -> None:
    """Any number of images can be judged, and those of whole groups are judged as ever."""
    D = tiny.tiny_discriminator()
    many = measures.Images(tiny.images(count), torch.zeros([count, 0]))
    whole = count // 16 * 16
    logits, gradient = measures.logits(D, many), measures.verdict_gradient(D, many)
    assert (logits.shape, gradient.shape) == ((count,), many.img.shape)
    assert torch.isfinite(logits).all()
    assert gradient.flatten(1).norm(dim=1).min() > 0
    for start in range(0, whole, 16):
        alone = measures.Images(many.img[start : start + 16], many.c[start : start + 16])
        torch.testing.assert_close(logits[start : start + 16], D(alone.img, alone.c)[:, 0].detach().double())
        torch.testing.assert_close(gradient[start : start + 16], measures.verdict_gradient(D, alone))
    filled = torch.cat([many.img[whole:], many.img, many.img, many.img])[:16]
    rest = D(filled, torch.zeros([16, 0]))[: count - whole, 0].detach().double()
    torch.testing.assert_close(logits[whole:], rest)


def test_a_student_without_discriminator(tmp_path: Path) -> None:
    teacher = tiny.write_teacher(tmp_path / "teacher.pkl")
    networks = pickles.snapshot_data(tiny.tiny_networks(seed=1), None)
    pickles.save_networks({"G_ema": networks["G_ema"]}, tmp_path / "student.pkl")
    result = json.loads(run(teacher, f"--student={tmp_path}/student.pkl", "--num=38").stdout.splitlines()[-1])
    assert result["student"] == "given"
    assert "redundancy" not in result


def test_the_distance_of_normal_distributions() -> None:
    random = np.random.RandomState(0)
    a, b = random.randn(60, 4), 0.5 + random.randn(50, 4) * [1, 2, 3, 1]
    root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    assert measures.distance(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(expected, rel=1e-8)


def test_cosine_of_zeros_is_zero() -> None:
    a = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert measures.cosine(a, torch.ones(2, 2)) == pytest.approx(0.5 / math.sqrt(2))


@pytest.mark.parametrize("c_dim", [0, 3])
def test_with_data_and_a_student(c_dim: int, tmp_path: Path) -> None:
    teacher = tiny.write_teacher(tmp_path / "teacher.pkl", c_dim=c_dim)
    student = tiny.write_teacher(tmp_path / "student.pkl", c_dim=c_dim, seed=1)
    data = tiny.write_data(tmp_path / "images", num=40, num_classes=c_dim)
    lines = run(teacher, f"--data={data}", f"--student={student}", "--num=32").stdout.splitlines()
    result = json.loads(lines[-1])
    assert result["student"] == "given"
    assert set(result["auc"]) == {"teacher_over_student", "real_over_teacher", "real_over_student"}
    assert all(0 <= value <= 1 for value in result["auc"].values())
    assert -1 <= result["redundancy"] <= 1
    assert result["rejection"].keys() == {"best_half", "any_half"}
    assert lines[:-1] == probe.explain(result)
    same = json.loads(run(teacher, f"--student={teacher}", "--num=32").stdout.splitlines()[-1])
    assert same["auc"] == {"teacher_over_student": 0.5}
    assert same["redundancy"] == pytest.approx(1)
    assert same["alignment"] == {"verdict": 0, "features": 0}
    assert "rejection" not in same


@pytest.mark.parametrize("kind", ["stylegan2", "biggan"])
def test_a_slice_stands_in_for_a_student(kind: str, tmp_path: Path) -> None:
    write = tiny.write_teacher if kind == "stylegan2" else tiny_biggan.write_teacher
    teacher = write(tmp_path / "teacher.pkl")
    result = json.loads(run(teacher, "--num=32").stdout.splitlines()[-1])
    assert result["student"] == "slice"
    assert "redundancy" not in result
    assert result["auc"].keys() == {"teacher_over_student"}
    assert json.loads(run(teacher, "--num=32").stdout.splitlines()[-1])["alignment"] == result["alignment"]


def test_the_words_follow_the_numbers() -> None:
    result: dict[str, Any] = {
        "student": "given", "auc": {"teacher_over_student": 0.9, "real_over_teacher": 0.8, "real_over_student": 0.95},
        "calibration": {"a": 0.5, "b": -0.2}, "rejection": {"best_half": 2.0, "any_half": 1.0},
        "alignment": {"verdict": 0.05, "features": 0.3}, "redundancy": 0.6,
    }  # fmt: skip
    text = " ".join(probe.explain(result))
    for words in ("in 80%: it tells them apart", "0.50 * D_T -0.20: it is overconfident", "farther from the real ones",
                  "verdict's gradient has a cosine of 0.05, that of D_T's features 0.30", "adds little to it",
                  "What will help: distillation by D_T's features."):
        assert words in text
    result |= {"alignment": {"verdict": 0.2, "features": 0.1}, "rejection": {"best_half": 1.0, "any_half": 2.0}}
    text = " ".join(probe.explain(result))
    assert "is a usable measure" in text
    assert "no clear direction" in text


def test_networks_and_data_that_do_not_fit(tmp_path: Path) -> None:
    teacher = tiny.write_teacher(tmp_path / "teacher.pkl")
    student = tiny.write_teacher(tmp_path / "student.pkl", resolution=8)
    data = tiny.write_data(tmp_path / "images", side=8)
    output = run(teacher, f"--student={student}", code=1).output
    assert output == ("Error: --student: img_resolution of the student is 8, the teacher's is 16; pass a student of "
                      "this teacher\n")
    output = run(teacher, f"--data={data}", "--num=32", code=1).output
    assert output == ("Error: --data: expected 16x16 images of 3 channel(s) as the teacher makes, found 8x8 of 3\n")
    data = tiny.write_data(tmp_path / "plain", num=6)
    teacher = tiny.write_teacher(tmp_path / "classes.pkl", c_dim=3)
    output = run(teacher, f"--data={data}", "--num=32", code=1).output
    assert output == "Error: --data: the teacher takes labels of size 3, the data set gives 0\n"
