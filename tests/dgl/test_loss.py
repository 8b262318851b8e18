"""The teacher's term and its phases: arithmetic, bit-identity at weight 0, what moves and what must not."""
import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from dgl.loss import DGLLoss, TeacherDiscriminatorTerm
from tests import tiny
from tests.tiny import gradients
from torch_utils import training_stats
from torch_utils.gradient_guard import GradientGuard
from training import optimization
from training.checkpoints.pickles import open_networks
from training.loss import GenBatch, Step, StyleGAN2Loss

CPU = torch.device("cpu")
ADAM = {"class_name": "torch.optim.Adam", "lr": 0.01, "betas": [0.0, 0.99]}


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """Two teachers for unlabelled RGB images of 16 px."""
    folder = tmp_path_factory.mktemp("teachers")
    return [{"url": tiny.write_teacher(folder / f"{seed}.pkl", seed=seed)} for seed in (1, 2)]


def student() -> tuple[Any, Any]:
    return tiny.tiny_generator(seed=7).train(), tiny.tiny_discriminator(seed=8).train()


def make(teachers: list[dict[str, str]], **kwargs: Any) -> DGLLoss:
    return DGLLoss(CPU, *student(), teachers=teachers, **kwargs)


def batch(cur_nimg: int = 0, c_dim: int = 0) -> GenBatch:
    z, c = tiny.latents(c_dim=c_dim)
    img = tiny.images()
    return GenBatch(z, c, torch.zeros(4, 6, 16), img, img.flip(3), cur_nimg)


class Constant(torch.nn.Module):
    """A discriminator with one logit for everything."""

    def __init__(self, logit: float) -> None:
        super().__init__()
        self.logit = logit

    def forward(self, img: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return torch.full([len(img), 1], float(self.logit))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Equal names and bits."""
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


# The term.


@pytest.mark.parametrize("weight", [0.1, 1.0, 3.5])
def test_at_logit_zero_the_term_is_the_weight_times_log_two(weight: float) -> None:
    term = TeacherDiscriminatorTerm([Constant(0)], weight)
    assert torch.allclose(term(batch()), torch.full([4], weight * math.log(2)))


def test_the_terms_of_several_teachers_are_averaged() -> None:
    logits = [-1.0, 0.5, 2.0]
    term = TeacherDiscriminatorTerm([Constant(logit) for logit in logits], 0.7)
    expected = 0.7 * sum(math.log1p(math.exp(-logit)) for logit in logits) / 3
    assert torch.allclose(term(batch()), torch.full([4], expected))


def test_the_term_is_softplus_of_minus_the_logits() -> None:
    D = tiny.tiny_discriminator()
    term = TeacherDiscriminatorTerm([D], 0.3)
    example = batch()
    assert torch.allclose(term(example), 0.3 * F.softplus(-D(example.img, example.c))[:, 0])


def test_the_teacher_sees_plain_images_unless_told_otherwise() -> None:
    D = tiny.tiny_discriminator()
    example = batch()
    plain, flipped = (F.softplus(-D(img, example.c))[:, 0] for img in (example.img, example.img_aug))
    assert not torch.allclose(plain, flipped)
    assert torch.allclose(TeacherDiscriminatorTerm([D], 1)(example), plain)
    assert torch.allclose(TeacherDiscriminatorTerm([D], 1, augmented=True)(example), flipped)


def test_the_teacher_sees_the_labels() -> None:
    D = tiny.tiny_discriminator(c_dim=3)
    example = batch(c_dim=3)
    assert torch.allclose(TeacherDiscriminatorTerm([D], 1)(example), F.softplus(-D(example.img, example.c))[:, 0])
    other = GenBatch(example.z, example.c.flip(1), example.ws, example.img, example.img_aug, 0)
    assert not torch.allclose(TeacherDiscriminatorTerm([D], 1)(example), TeacherDiscriminatorTerm([D], 1)(other))


@pytest.mark.parametrize(("weight", "cur_nimg"), [(0, 10**9), (0.1, 0), (0.1, 1999)])
def test_no_weight_or_no_teacher_yet_is_no_term(weight: float, cur_nimg: int) -> None:
    term = TeacherDiscriminatorTerm([Constant(0)], weight, start_nimg=2000)
    assert term(batch(cur_nimg)) is None
    assert TeacherDiscriminatorTerm([Constant(0)], 0.1, start_nimg=2000)(batch(2000)) is not None


def test_the_term_reports_the_logits(statistics: training_stats.Collector) -> None:
    TeacherDiscriminatorTerm([Constant(-3), Constant(1)], 1)(batch())
    statistics.update()
    assert statistics.num("Loss/teacher/scores/fake") == 8
    assert statistics.mean("Loss/teacher/scores/fake") == -1
    assert statistics.mean("Loss/teacher/signs/fake") == 0


# In the loss.


@pytest.mark.parametrize("options", [{"dgl_weight": 0}, {"stage1_kimg": 1}, {"dgl_weight": 0, "teacher_aug": True}])
@pytest.mark.parametrize("phase", ["Gmain", "Greg", "Dmain", "Dreg"])
def test_without_a_weight_it_is_the_plain_loss_to_the_bit(
    phase: str,
    options: dict[str, Any],
    teachers: list[dict[str, str]],
) -> None:
    plain, guided = StyleGAN2Loss(CPU, *student()), make(teachers, **options)
    result = [gradients(loss, phase, base.G if phase[0] == "G" else base.D)
             for loss, base in ((plain, plain), (guided, guided.base))]
    assert same(*result)


def test_the_gradient_is_linear_in_the_weight(teachers: list[dict[str, str]]) -> None:
    collected = []
    for weight in (0, 0.5, 1):
        loss = make(teachers[:1], dgl_weight=weight)
        collected.append(gradients(loss, "Gmain", loss.base.G))
    plain, half, whole = collected
    assert torch.equal(plain["random_state"], whole["random_state"])
    for name in plain.keys() - {"random_state"}:
        assert torch.allclose(whole[name] - plain[name], 2 * (half[name] - plain[name]), rtol=1e-3, atol=1e-5), name
    assert any(not torch.equal(plain[name], whole[name]) for name in plain)


def test_a_teacher_equal_to_the_students_discriminator_doubles_the_gradient(teachers: list[dict[str, str]]) -> None:
    loss = make(teachers[:1], dgl_weight=0)
    plain = gradients(loss, "Gmain", loss.base.G)
    loss = make(teachers[:1], dgl_weight=1)
    loss.teachers.discriminators[0].load_state_dict(loss.base.D.state_dict())
    twice = gradients(loss, "Gmain", loss.base.G)
    for name in plain.keys() - {"random_state"}:
        assert torch.allclose(twice[name], 2 * plain[name], rtol=1e-4, atol=1e-6), name


def test_two_equal_teachers_are_one(teachers: list[dict[str, str]]) -> None:
    single, double = make(teachers[:1]), make([teachers[0], teachers[0]])
    a, b = (gradients(loss, "Gmain", loss.base.G) for loss in (single, double))
    for name in a:
        assert torch.allclose(a[name], b[name], rtol=1e-4, atol=1e-6), name


def test_teachers_are_frozen_and_stay_what_they_are(teachers: list[dict[str, str]]) -> None:
    loss = make(teachers)
    before = copy.deepcopy([teacher.state_dict() for teacher in loss.teachers.discriminators])
    for phase in ("Gmain", "Greg", "Dmain", "Dreg"):
        gradients(loss, phase, loss.base.G if phase[0] == "G" else loss.base.D)
    for teacher, state, spec in zip(loss.teachers.discriminators, before, teachers, strict=True):
        assert not teacher.training
        assert all(not p.requires_grad and p.grad is None for p in teacher.parameters())
        assert all(torch.equal(tensor, state[name]) for name, tensor in teacher.state_dict().items())
        assert all(torch.equal(tensor, state[name]) for name, tensor in
                   open_networks(spec["url"])["D"].state_dict().items())
    assert loss.extra_phases() == []


def test_the_teacher_is_not_in_the_loss_of_the_discriminator(teachers: list[dict[str, str]]) -> None:
    plain, guided = StyleGAN2Loss(CPU, *student()), make(teachers, dgl_weight=5)
    for phase in ("Dmain", "Dreg"):
        assert same(gradients(plain, phase, plain.D), gradients(guided, phase, guided.base.D))


def test_other_losses_compose_with_the_teacher(teachers: list[dict[str, str]]) -> None:
    """A term in the manner of distillation: the distance to the images of another generator, without random numbers."""
    other = tiny.tiny_generator(seed=9)

    class Distance:
        name = "distance"

        def __call__(self, example: GenBatch) -> torch.Tensor:
            with torch.no_grad():
                target = other(example.z, example.c, noise_mode="const")
            return (example.img - target).square().mean(dim=[1, 2, 3])

    def run(dgl_weight: float, *terms: Any) -> dict[str, torch.Tensor]:
        loss = make(teachers, dgl_weight=dgl_weight, g_terms=list(terms))
        return gradients(loss, "Gmain", loss.base.G)

    plain, both, first, second = run(0), run(1, Distance()), run(1), run(0, Distance())
    for name in plain.keys() - {"random_state"}:
        total = first[name] + second[name] - plain[name]
        assert torch.allclose(both[name], total, rtol=1e-3, atol=1e-4), name


def test_the_frozen_teacher_is_watched_on_real_images_too(
    teachers: list[dict[str, str]],
    statistics: training_stats.Collector,
) -> None:
    loss = make(teachers)
    img = tiny.images()
    expected = torch.cat([teacher(img, None) for teacher in loss.teachers.discriminators], dim=1)
    for phase in ("Gmain", "Dmain", "Dreg"):
        gradients(loss, phase, loss.base.G if phase[0] == "G" else loss.base.D, real_img=img)
    statistics.update()
    assert statistics.num("Loss/teacher/scores/real") == 8
    assert statistics.mean("Loss/teacher/scores/real") == pytest.approx(float(expected.mean()), rel=1e-5)
    assert statistics.mean("Loss/teacher/signs/real") == pytest.approx(float(expected.sign().mean()))
    assert statistics.num("Loss/G/dgl") == 4


# Stages.


def test_stages(teachers: list[dict[str, str]]) -> None:
    loss = make(teachers, stage1_kimg=2)
    assert [loss.stage(n) for n in (0, 1999, 2000, 10**6)] == [0, 0, 1, 1]
    assert [make(teachers).stage(n) for n in (0, 10**6)] == [0, 0]
    early = gradients(loss, "Gmain", loss.base.G, cur_nimg=1999)
    late = gradients(loss, "Gmain", loss.base.G, cur_nimg=2000)
    assert not torch.allclose(early["synthesis.b4.const"], late["synthesis.b4.const"])
    loss.base.pl_mean.fill_(3)
    loss.begin_stage()
    assert float(loss.base.pl_mean) == 0


# The updated teacher.


def updated(teachers: list[dict[str, str]], **kwargs: Any) -> DGLLoss:
    return make(teachers, teacher_update=True, teacher_opt_kwargs=ADAM, **kwargs)


def test_phases_of_updated_teachers(teachers: list[dict[str, str]]) -> None:
    loss = updated(teachers, teacher_reg_interval=8)
    phases = loss.extra_phases()
    assert [(phase.name, phase.interval) for phase in phases] == [("T0main", 1), ("T0reg", 8), ("T1main", 1),
                                                                  ("T1reg", 8)]
    first, second = loss.teachers.discriminators
    assert [phase.module for phase in phases] == [first, first, second, second]
    assert len(optimization.optimizers(phases)) == 2
    for opt in optimization.optimizers(phases):
        assert (opt.defaults["lr"], opt.defaults["betas"]) == (0.01, (0.0, 0.99))  # as they are, no lazy correction
    assert loss.extra_phases() is phases


def test_a_teachers_phases_are_those_of_a_discriminator(teachers: list[dict[str, str]]) -> None:
    loss = updated(teachers[:1], r1_gamma=3)
    plain = StyleGAN2Loss(CPU, student()[0], loss.teachers.discriminators[0], r1_gamma=3)
    for part in ("main", "reg"):
        a = gradients(loss, f"T0{part}", loss.teachers.discriminators[0], gain=2)
        b = gradients(plain, f"D{part}", plain.D, gain=2)
        assert len(a) > 1
        assert same(a, b)


@pytest.mark.parametrize("update", [False, True])
@pytest.mark.parametrize("teacher_aug", [False, True])
def test_teachers_learn_from_the_images_that_they_are_shown(
    teacher_aug: bool, update: bool, teachers: list[dict[str, str]]
) -> None:
    def brighter(img: torch.Tensor) -> torch.Tensor:
        return img + 100

    loss = make(teachers[:1], teacher_update=update, teacher_opt_kwargs=ADAM, teacher_aug=teacher_aug)
    loss.base.augment_pipe = brighter  # type: ignore[assignment]
    brightest: list[float] = []
    (teacher,) = loss.teachers.discriminators
    teacher.register_forward_pre_hook(lambda _, args: brightest.append(float(args[0].detach().max())))
    for phase in ("Gmain", "T0main", "T0reg") if update else ("Gmain", "Dreg"):
        gradients(loss, phase, {"T": teacher, "G": loss.base.G, "D": loss.base.D}[phase[0]])
    assert len(brightest) == (4 if update else 2)
    assert all((value > 50) == teacher_aug for value in brightest), brightest


def test_r1_of_a_teacher(teachers: list[dict[str, str]], statistics: training_stats.Collector) -> None:
    class Linear(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = torch.nn.Parameter(torch.full([3, 16, 16], 0.5))

        def forward(self, img: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
            return (img * self.a).sum(dim=[1, 2, 3])[:, None]

    loss = updated(teachers[:1], r1_gamma=2)
    linear = Linear()
    loss._trained["T0"] = linear
    assert torch.allclose(gradients(loss, "T0reg", linear)["a"], torch.full([3, 16, 16], 2 * 0.5))
    statistics.update()
    assert statistics.mean("Loss/teacher/r1_penalty") == pytest.approx(3 * 16 * 16 * 0.25)
    assert statistics.mean("Loss/teacher/D/reg") == pytest.approx(3 * 16 * 16 * 0.25)


@pytest.mark.parametrize("part", ["main", "reg"])
def test_a_teachers_step_moves_that_teacher_alone(part: str, teachers: list[dict[str, str]]) -> None:
    loss = updated(teachers)
    others = [loss.base.G, loss.base.D, loss.teachers.discriminators[0]]
    before = copy.deepcopy([dict(module.named_parameters()) for module in [*others, loss.teachers.discriminators[1]]])
    (phase,) = [phase for phase in loss.extra_phases() if phase.name == f"T1{part}"]
    phase.opt.zero_grad(set_to_none=True)
    phase.module.requires_grad_(True)
    z, c = tiny.latents()
    loss.accumulate_gradients(phase.network, phase.part, Step(tiny.images(), c, z, c, gain=1, cur_nimg=0))
    phase.module.requires_grad_(False)
    optimization.step(phase, GradientGuard(CPU))
    for module, old in zip(others, before):
        assert all(torch.equal(p, old[name]) for name, p in module.named_parameters())
        assert all(p.grad is None for p in module.parameters())
    assert any(not torch.equal(p, before[-1][name]) for name, p in loss.teachers.discriminators[1].named_parameters())


def test_teachers_are_not_updated_before_they_teach(teachers: list[dict[str, str]]) -> None:
    loss = updated(teachers, stage1_kimg=2)
    for part in ("main", "reg"):
        early = gradients(loss, f"T0{part}", loss.teachers.discriminators[0], cur_nimg=1999)
        assert list(early) == ["random_state"]
        assert len(gradients(loss, f"T0{part}", loss.teachers.discriminators[0], cur_nimg=2000)) > 1


def test_statistics_of_an_updated_teacher(
    teachers: list[dict[str, str]],
    statistics: training_stats.Collector,
) -> None:
    loss = updated(teachers[:1])
    for phase in ("Dreg", "T0main", "T0reg"):
        gradients(loss, phase, loss.base.D if phase == "Dreg" else loss.teachers.discriminators[0])
    statistics.update()
    numbers = {name: statistics.num(name) for name in statistics.names() if "teacher" in name}
    assert numbers == {
        "Loss/teacher/scores/fake": 4,
        "Loss/teacher/signs/fake": 4,
        "Loss/teacher/scores/real": 8,
        "Loss/teacher/signs/real": 8,
        "Loss/teacher/D/loss": 4,
        "Loss/teacher/r1_penalty": 4,
        "Loss/teacher/D/reg": 4,
    }


# State.


def test_the_state_of_a_frozen_teacher_is_its_file(teachers: list[dict[str, str]]) -> None:
    assert list(make(teachers).state_dict()) == ["pl_mean"]


def test_state_round_trip(teachers: list[dict[str, str]], tmp_path: Path) -> None:
    loss = updated(teachers)
    loss.base.pl_mean.fill_(3)
    with torch.no_grad():
        for teacher in loss.teachers.discriminators:
            next(teacher.parameters()).add_(1)
    torch.save(loss.state_dict(), tmp_path / "state.pt")
    again = updated(teachers)
    weights = [next(each.teachers.discriminators[1].parameters()) for each in (loss, again)]
    assert not torch.equal(*weights)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert float(again.base.pl_mean) == 3
    for a, b in zip(again.teachers.discriminators, loss.teachers.discriminators, strict=True):
        assert same(a.state_dict(), b.state_dict())
    assert same(gradients(again, "Gmain", again.base.G), gradients(loss, "Gmain", loss.base.G))


@pytest.mark.parametrize("phase", ["T0main", "T2main", "Tmain", "gboth"])
def test_unknown_phases_are_named(phase: str, teachers: list[dict[str, str]]) -> None:
    with pytest.raises(ValueError, match=f"^unknown training phase '{phase}'$"):
        gradients(make(teachers), phase, torch.nn.Identity())
