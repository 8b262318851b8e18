"""Forms of guidance beside the verdict: each against its formula, its gradient and its state."""
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dgl import teacher as teachers
from dgl.heads import HeadsDiscriminator
from dgl.loss import DGLLoss
from dgl.ratio import CALIBRATION_IMAGES, Ratio, logistic_regression
from dgl.teacher_term import TeacherDiscriminatorTerm
from metrics.perceptual import block_features
from tests import tiny
from torch_utils.gradient_guard import GradientGuard
from training import optimization
from training.loss import GenBatch, Part, Step

CPU = torch.device("cpu")
ADAM = {"class_name": "torch.optim.Adam", "lr": 0.01, "betas": [0.0, 0.99]}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.pkl")


def make(path: str, form: str, **options: Any) -> DGLLoss:
    G, D = tiny.tiny_generator(seed=7).train(), tiny.tiny_discriminator(seed=8).train()
    return DGLLoss(CPU, G, D, teachers=[{"url": path}], guidance=form, teacher_opt_kwargs=ADAM, **options)


class Smooth(torch.nn.Module):
    """A smooth discriminator in float64: mean tanh(a·x)."""

    def __init__(self, a: float) -> None:
        super().__init__()
        self.a = a

    def forward(self, img: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.a * img).sum(dim=[1, 2, 3])[:, None]


def batch_of(img: torch.Tensor) -> GenBatch:
    none = img.new_zeros([len(img), 0])
    return GenBatch(none, none, none[:, None], img, img, 0)


# Relative to the teacher's image of the same latent.


def test_the_relative_term_and_its_gradient() -> None:
    D, img = Smooth(1.5), torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(2, 1, 2, 3).requires_grad_()
    target = torch.linspace(0.5, -0.5, 12, dtype=torch.float64).reshape(2, 1, 2, 3)
    term = TeacherDiscriminatorTerm([D], weight=0.3, reference=lambda batch: target)

    def expected(x: torch.Tensor) -> torch.Tensor:
        gap = torch.tanh(1.5 * x).sum(dim=[1, 2, 3]) - torch.tanh(1.5 * target).sum(dim=[1, 2, 3])
        return 0.3 * torch.log(1 + torch.exp(-gap))

    torch.testing.assert_close(term(batch_of(img)), expected(img))
    actual, formula = (torch.autograd.grad(value.sum(), img)[0] for value in (term(batch_of(img)), expected(img)))
    torch.testing.assert_close(actual, formula)
    assert torch.autograd.gradcheck(lambda x: term(batch_of(x)), img, check_undefined_grad=False)


def test_the_reference_is_the_teachers_image_of_the_same_latent(path: str) -> None:
    loss = make(path, "relative", dgl_weight=0.5)
    teacher = teachers.load(path)
    z, c = tiny.latents()
    ws = teacher.G_ema.mapping(z, c)
    same = teacher.G_ema.synthesis(ws, noise_mode="const")
    value = loss.terms[0](GenBatch(z, c, ws, same, same, 0))
    torch.testing.assert_close(value, torch.full([4], 0.5 * float(np.log(2))))  # as good as its reference


# The density ratio.


def test_the_ratio_joins_inside_the_loss() -> None:
    D, teacher = Smooth(0.7), Smooth(-1.2)
    ratio = Ratio([teacher], None, lambda cur_nimg: 0.3)
    ratio.a, ratio.b = 2.0, -0.5
    img = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(2, 1, 2, 3).requires_grad_()

    def loss(x: torch.Tensor) -> torch.Tensor:
        batch = batch_of(x)
        return F.softplus(-ratio.add(D(x, batch.c), batch))

    def expected(x: torch.Tensor) -> torch.Tensor:
        own, other = (torch.tanh(a * x).sum(dim=[1, 2, 3])[:, None] for a in (0.7, -1.2))
        return torch.log(1 + torch.exp(-(own + 0.3 * (2 * other - 0.5))))

    torch.testing.assert_close(loss(img), expected(img))
    actual, formula = (torch.autograd.grad(value.sum(), img)[0] for value in (loss(img), expected(img)))
    torch.testing.assert_close(actual, formula)
    assert torch.autograd.gradcheck(loss, img)


def test_without_weight_the_ratio_is_the_students_own_logit(path: str) -> None:
    plain = make(path, "verdict", dgl_weight=0)
    result = make(path, "ratio", dgl_weight=0)
    a, b = (tiny.gradients(loss, "Gmain", loss.base.G) for loss in (plain, result))
    assert all(torch.equal(a[name], b[name]) for name in a)
    weighted = make(path, "ratio", dgl_weight=1)
    c = tiny.gradients(weighted, "Gmain", weighted.base.G)
    assert any(not torch.equal(a[name], c[name]) for name in a)


def test_the_reals_of_d_are_the_teachers_images(path: str) -> None:
    loss = make(path, "ratio", ratio_calibrate=False)
    noted: list[torch.Tensor] = []
    loss.base.D.register_forward_pre_hook(lambda module, args: noted.append(args[0].detach()))
    z, c = tiny.latents()
    loss.base.D.requires_grad_(True)
    torch.manual_seed(3)
    drawn = torch.randn_like(z)
    torch.manual_seed(3)
    loss.accumulate_gradients("D", Part.MAIN, Step(tiny.images(), c, z, c, gain=1, cur_nimg=0))
    teacher = teachers.load(path)
    expected = teacher.G_ema.synthesis(teacher.G_ema.mapping(drawn, c), noise_mode="const")
    torch.testing.assert_close(noted[1], expected)


def test_calibration_is_logistic_regression(path: str) -> None:
    """Logits N(±1, 1): log p_real/p_fake is 2x. With scale 4 and offset 3 it is (2/4)(x - 3)."""
    random = np.random.RandomState(0)
    reals, fakes = (4 * (random.randn(20000) + mean) + 3 for mean in (1, -1))
    a, b = logistic_regression(reals.tolist(), fakes.tolist())
    assert a == pytest.approx(0.5, abs=0.02)
    assert b == pytest.approx(-1.5, abs=0.06)
    separated = logistic_regression([5.0] * 10, [-5.0] * 10)
    assert all(np.isfinite(separated))


def test_calibration_happens_once_there_are_enough_images(path: str) -> None:
    loss = make(path, "ratio")
    z, c = (torch.cat([tensor] * (CALIBRATION_IMAGES // 8)) for tensor in tiny.latents())
    img = torch.cat([tiny.images()] * (CALIBRATION_IMAGES // 8))
    step = Step(img, c, z, c, gain=1, cur_nimg=0)
    loss.ratio.with_teacher_images(step)
    assert (loss.ratio.a, loss.ratio.b) == (1.0, 0.0)
    again = make(path, "ratio")
    again.load_state_dict(loss.state_dict())
    torch.manual_seed(0)
    loss.ratio.with_teacher_images(step)
    assert (loss.ratio.a, loss.ratio.b) != (1.0, 0.0)
    torch.manual_seed(0)
    again.ratio.with_teacher_images(step)
    assert (again.ratio.a, again.ratio.b) == (loss.ratio.a, loss.ratio.b)
    fitted = loss.ratio.a
    loss.ratio.with_teacher_images(step)
    assert loss.ratio.a == fitted


# Heads on the teacher's features.


def test_heads_are_linear_in_the_teachers_features(path: str) -> None:
    D = teachers.load(path).D
    heads = HeadsDiscriminator(D)
    img, c = tiny.images(), torch.zeros([4, 0])
    maps = block_features(D, img)
    expected = sum(torch.einsum("nchw,c->n", x, w) / x[0, 0].numel() for x, w in zip(maps, heads.weights)) / len(maps)
    torch.testing.assert_close(heads(img, c), (expected + heads.bias)[:, None])
    assert {name for name, _ in heads.named_parameters()} == {"weights.0", "weights.1", "bias"}
    assert all(torch.equal(a, b) for a, b in zip(heads.parameters(), HeadsDiscriminator(D).parameters()))
    params = [*heads.weights, heads.bias]
    double = [param.detach().double().requires_grad_() for param in params]

    def logits(*values: torch.Tensor) -> torch.Tensor:
        parts = [torch.einsum("nchw,c->n", x.double(), w) / x[0, 0].numel() for x, w in zip(maps, values[:-1])]
        return torch.nn.functional.softplus(torch.stack(parts).mean(dim=0) + values[-1])

    assert torch.autograd.gradcheck(logits, double)
    actual = torch.autograd.grad(F.softplus(heads(img, c)).sum(), params)
    formula = torch.autograd.grad(logits(*double).sum(), double)
    for a, b in zip(actual, formula):
        torch.testing.assert_close(a.double(), b, atol=1e-5, rtol=1e-5)


def test_heads_project_the_features_on_an_embedding_of_the_label() -> None:
    D = tiny.tiny_discriminator(c_dim=3)
    heads = HeadsDiscriminator(D)
    img, c = tiny.images(), tiny.latents(c_dim=3)[1]
    plain = heads(img, c)
    assert torch.equal(plain, heads(img, c.roll(1, dims=1))), "labels join by training"
    assert {name for name, _ in heads.named_parameters()} == {
        "weights.0", "weights.1", "embeddings.0", "embeddings.1", "bias"}
    with torch.no_grad():
        for number, E in enumerate(heads.embeddings):
            E.copy_(torch.randn(E.shape, generator=torch.Generator().manual_seed(number)))
    maps = [x.mean(dim=[2, 3]) for x in block_features(D, img)]
    projections = [(x * E[c.argmax(dim=1)]).sum(dim=1) for x, E in zip(maps, heads.embeddings)]
    torch.testing.assert_close(heads(img, c), plain + torch.stack(projections).mean(dim=0)[:, None])
    grads = torch.autograd.grad(F.softplus(heads(img, c)).sum(), list(heads.embeddings))
    assert all(bool(grad.any(dim=1).all()) for grad in grads), "every class learns"


def test_heads_are_trained_and_their_trunk_is_not(path: str) -> None:
    loss = make(path, "heads")
    trunk = {name: tensor.clone() for name, tensor in teachers.load(path).D.state_dict().items()}
    main, reg = loss.extra_phases()
    assert (main.name, reg.name) == ("T0main", "T0reg")
    before = [p.clone() for p in main.module.parameters()]
    result = tiny.gradients(loss, "T0main", main.module)
    assert set(result) == {"weights.0", "weights.1", "bias", "random_state"}
    main.module.requires_grad_(True)
    z, c = tiny.latents()
    loss.accumulate_gradients("T0", Part.MAIN, Step(tiny.images(), c, z, c, gain=1, cur_nimg=0))
    main.module.requires_grad_(False)
    optimization.step(main, GradientGuard(CPU))
    assert all(not torch.equal(a, b) for a, b in zip(main.module.parameters(), before))
    assert all(torch.equal(tensor, trunk[name]) for name, tensor in teachers.load(path).D.state_dict().items())
    again = make(path, "heads")
    again.load_state_dict(loss.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(again.extra_phases()[0].module.parameters(),
                                                 main.module.parameters()))


def test_the_generator_is_led_by_the_heads(path: str) -> None:
    loss, plain = make(path, "heads", dgl_weight=1), make(path, "heads", dgl_weight=0)
    a, b = (tiny.gradients(each, "Gmain", each.base.G) for each in (loss, plain))
    assert any(not torch.equal(a[name], b[name]) for name in a)
