"""The examples: models of other kinds under a GAN's discriminator; their mathematics, and that guidance arrives."""
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from click.testing import CliRunner

from dnnlib.errors import UserError
from docs.examples import autoregressive, common, discrete, flow, table, vae
from tests import tiny

MODELS = {"vae": vae, "flow": flow, "autoregressive": autoregressive, "discrete": discrete}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.write_teacher(tmp_path_factory.mktemp("teacher") / "t.pkl", resolution=32, channels=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    pixels = np.random.RandomState(0).randint(0, 256, [40, 28, 28], dtype=np.uint8)
    path = tmp_path_factory.mktemp("data") / "x-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(np.array([0x803, 40, 28, 28], dtype=">i4").tobytes() + pixels.tobytes()))
    return str(path)


@pytest.mark.parametrize("name", MODELS)
def test_an_example_runs(name: str, teacher: str, data: str, tmp_path: Path) -> None:
    short = ["--steps=2", "--dgl-weight=100", "--images=33"]
    args = [f"--data={data}", f"--teacher={teacher}", f"--outdir={tmp_path}", *short]
    result = CliRunner().invoke(MODELS[name].main, args)
    assert result.exit_code == 0, result.output
    plain, guided = map(json.loads, result.stdout.splitlines())
    assert plain["dgl_weight"] == 0 < guided["dgl_weight"]
    assert plain["teacher_logit_on_samples"] != guided["teacher_logit_on_samples"]
    assert plain["teacher_logit_on_reals"] == guided["teacher_logit_on_reals"]
    for row in (plain, guided):
        with PIL.Image.open(tmp_path / f"{name}-lambda{row['dgl_weight']:g}.png") as picture:
            assert (picture.size, picture.mode) == ((8 * 32, 8 * 32), "L")


def test_images_are_read_and_padded(data: str) -> None:
    result = common.load_images(data, 3)
    assert result.shape == (3, 1, 32, 32)
    first = np.random.RandomState(0).randint(0, 256, [40, 28, 28], dtype=np.uint8)[0]
    torch.testing.assert_close(result[0, 0, 2:30, 2:30], torch.from_numpy(first / 127.5 - 1).float())
    assert (result[:, :, :2] == -1).all()


@pytest.mark.parametrize(
    "content",
    [None, b"not compressed", gzip.compress(b"short"), gzip.compress(bytes(40))],
    ids=["missing", "not compressed", "short", "of zeros"],
)
def test_other_files_are_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "file.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"^--data: .*file.gz: "):
        common.load_images(str(path), 1)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"resolution": 32}, "3 channel(s), 32 px and labels of size 0"),
        ({"resolution": 16, "channels": 1}, "1 channel(s), 16 px and labels of size 0"),
        ({"resolution": 32, "channels": 1, "c_dim": 3}, "1 channel(s), 32 px and labels of size 3"),
    ],
)
@pytest.mark.parametrize("name", MODELS)
def test_a_teacher_of_other_images_is_refused(
    name: str, kwargs: dict[str, Any], message: str, data: str, tmp_path: Path
) -> None:
    path = tiny.write_teacher(tmp_path / "t.pkl", **kwargs)
    result = CliRunner().invoke(MODELS[name].main, [f"--data={data}", f"--teacher={path}", f"--outdir={tmp_path}"])
    assert result.exit_code == 1
    assert result.stderr == (f"Error: --teacher: expected one for grey images of 32 px without labels; {path} is for "
                             f"{message}\n")


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--dgl-weight=nan", "--dgl-weight: expected a finite number of at least 0, found nan"),
        ("--dgl-weight=inf", "--dgl-weight: expected a finite number of at least 0, found inf"),
        ("--outdir={tmp}/file/in", "--outdir: cannot write to '{tmp}/file/in': {tmp}/file is not a folder"),
    ],
)
@pytest.mark.parametrize("name", MODELS)
def test_bad_options_are_refused_before_anything_is_read(name: str, flag: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    flags = [f"--outdir={tmp_path}", flag.format(tmp=tmp_path), "--data=nothing"]
    result = CliRunner().invoke(MODELS[name].main, flags)
    assert result.exit_code == 1
    assert result.stderr == f"Error: {message.format(tmp=tmp_path)}\n"


@pytest.mark.parametrize("name", ["vae", "flow", "autoregressive"])
def test_the_teachers_gradient_reaches_every_weight_that_draws(name: str, teacher: str) -> None:
    torch.manual_seed(0)
    images = torch.rand(16, 1, 32, 32) * 2 - 1
    models: dict[str, Any] = {"vae": vae.VAE, "flow": lambda: flow.Flow(common.halved(images)),
                              "autoregressive": autoregressive.Rows}
    model = models[name]()
    for p in model.parameters():  # the last layers of couplings begin at zero, which hides the others' gradients
        p.data.add_(torch.randn_like(p) * 0.01)
    samples = model.sample(4) if name == "vae" else common.doubled(model.sample(4))
    common.guidance(common.teacher_term(teacher, 0.5), samples, cur_nimg=0).backward()
    drawing = model.decoder if name == "vae" else model
    assert all(p.grad is not None and bool(p.grad.any()) for p in drawing.parameters())


def test_guidance_is_the_weighted_softplus_and_nothing_without_weight(teacher: str) -> None:
    img = torch.rand(36, 1, 32, 32) * 2 - 1
    term = common.teacher_term(teacher, 0.5)
    logits = term.discriminators[0](img[:32], torch.zeros(32, 0))
    expected = 0.5 * torch.nn.functional.softplus(-logits).mean()
    torch.testing.assert_close(common.guidance(term, img[:32], cur_nimg=0), expected)
    assert common.realism(term, img) == pytest.approx(float(logits.mean()), abs=1e-6)
    assert float(common.guidance(common.teacher_term(teacher, 0), img, cur_nimg=0)) == 0


def random_flow() -> flow.Flow:
    torch.manual_seed(0)
    model = flow.Flow(torch.rand(50, 1, 16, 16)).double()
    for p in model.parameters():
        p.data.add_(torch.randn_like(p) * 0.02)
    return model


def test_a_coupling_is_inverted_exactly() -> None:
    x = torch.randn(3, flow.DIMS, dtype=torch.float64)
    for coupling in random_flow().couplings[:2]:
        y, _ = coupling(x)
        assert not torch.allclose(x, y)
        torch.testing.assert_close(coupling.inverse(y), x)


def test_the_density_is_that_of_the_change_of_variables() -> None:
    """log p(x) = log N(z) + log |det ∂z/∂x|, the determinant of the whole Jacobian."""
    model = random_flow()
    x = torch.rand(1, 1, 16, 16, dtype=torch.float64)

    def latent(image: torch.Tensor) -> torch.Tensor:
        z = (image.flatten(1) - model.mean) * (-model.log_std).exp()
        for coupling in model.couplings:
            z, _ = coupling(z)
        return z[0]

    jacobian = torch.autograd.functional.jacobian(latent, x).reshape(flow.DIMS, flow.DIMS)
    normal = torch.distributions.Normal(torch.zeros(()).double(), torch.ones(()).double())
    expected = normal.log_prob(latent(x)).sum() + torch.linalg.slogdet(jacobian)[1]
    torch.testing.assert_close(model.log_prob(x)[0], expected)


def test_the_bound_of_a_vae_is_distance_plus_divergence(monkeypatch: pytest.MonkeyPatch) -> None:
    """With q = N(1, 1) in every latent the divergence is 1/2 each; with a decoder of zeros, |x|² / 2s² remains."""
    model = vae.VAE()
    moments = torch.cat([torch.ones(2, 16), torch.zeros(2, 16)], dim=1)
    monkeypatch.setattr(model.encoder, "forward", lambda x: moments)
    monkeypatch.setattr(model.decoder, "forward", lambda z: torch.zeros(2, 1, 32, 32))
    expected = 1024 * 0.25 / (2 * vae.SIGMA**2) + 16 / 2
    torch.testing.assert_close(model.negative_elbo(torch.full([2, 1, 32, 32], 0.5)), torch.full([2], expected))


# Row by row.


def random_rows() -> autoregressive.Rows:
    torch.manual_seed(0)
    return autoregressive.Rows().double()


def test_rows_depend_on_those_above_alone() -> None:
    """The density of a row does not change with those below, and does with every row above."""
    model = random_rows()
    x = torch.rand(1, 1, 16, 16, dtype=torch.float64).requires_grad_()
    above = torch.cat([torch.zeros(1, 1, 16).double(), x[:, 0, :-1]], dim=1)
    mean, factor = model._gaussian(model.cell(model._inputs(above, 0))[0])
    for row in (0, 5, 15):
        value = mean[0, row].sum() + factor[0, row].sum()
        (gradient,) = torch.autograd.grad(value, x, retain_graph=True, allow_unused=True)
        touched = gradient[0, 0].abs().sum(dim=1) > 0
        assert touched.tolist() == [other < row for other in range(16)]


def test_what_is_drawn_is_what_the_density_is_of() -> None:
    """The inverse of the density's map, and the determinant of the whole Jacobian."""
    model = random_rows()
    noise = torch.randn(2, 16, 16, dtype=torch.float64)
    x = model.draw(noise)
    jacobian = torch.autograd.functional.jacobian(lambda e: model.draw(e[None])[0].flatten(), noise[0])
    log_det = torch.linalg.slogdet(jacobian.reshape(256, 256))[1]
    normal = torch.distributions.Normal(torch.zeros(()).double(), torch.ones(()).double())
    expected = normal.log_prob(noise[0]).sum() - log_det
    torch.testing.assert_close(model.log_prob(x)[0], expected)


def test_the_gradient_through_drawing_is_that_of_finite_differences() -> None:
    model = random_rows()
    noise, probe = torch.randn(2, 16, 16).double(), torch.randn(2, 1, 16, 16).double()

    def value() -> torch.Tensor:
        return (torch.tanh(model.draw(noise)) * probe).sum()

    names, params = zip(*model.named_parameters())
    for name, param, gradient in zip(names, params, torch.autograd.grad(value(), params)):
        direction = torch.randn(param.shape, generator=torch.Generator().manual_seed(1)).double()
        values = []
        with torch.no_grad():
            for step in (1e-6, -1e-6):
                param.add_(direction, alpha=step)
                values.append(value())
                param.sub_(direction, alpha=step)
        assert float(values[0] - values[1]) / 2e-6 == pytest.approx(float((gradient * direction).sum()), rel=1e-5), name


def test_bits_per_dimension_of_uniform_grey_levels() -> None:
    """A density that is uniform over [-1, 1] is 8 bits, less what a step of 2/255 instead of 2/256 makes."""
    log_prob = torch.full([3], 10 * float(np.log(0.5)))
    assert common.bits_per_dim(log_prob, 10) == pytest.approx(np.log2(255))


# Discrete pixels.


def tiny_pixels(seed: int = 0) -> discrete.Pixels:
    torch.manual_seed(seed)
    return discrete.Pixels(dims=4, levels=2, hidden=5).double()


def all_images() -> torch.Tensor:
    return torch.cartesian_prod(*[torch.arange(2)] * 4)


def test_probabilities_sum_to_one_and_are_causal() -> None:
    model = tiny_pixels()
    assert float(model.log_prob(all_images()).detach().exp().sum()) == pytest.approx(1)
    x = torch.tensor([[0, 1, 1, 0]])
    before = model.log_probs(x)
    for i in range(4):
        changed = x.clone()
        changed[0, i] = 1 - changed[0, i]
        differs = (model.log_probs(changed) - before).abs().amax(dim=2)[0] > 1e-12
        assert differs.tolist() == [other > i for other in range(4)]


def test_samples_have_the_probabilities_of_the_model() -> None:
    model = tiny_pixels()
    torch.manual_seed(1)
    drawn = model.sample(20000) @ torch.tensor([8, 4, 2, 1])
    frequencies = torch.bincount(drawn, minlength=16) / 20000
    assert (frequencies - model.log_prob(all_images()).exp()).abs().max() < 0.01


def test_the_estimate_of_the_gradient_is_unbiased() -> None:
    """Over all pairs of images, with their probabilities, it is the gradient of the expected cost."""
    model = tiny_pixels()
    images, cost = all_images(), torch.randn(16, generator=torch.Generator().manual_seed(2)).double()
    params = list(model.parameters())
    p = model.log_prob(images).exp()
    exact = torch.autograd.grad((p * cost).sum(), params, retain_graph=True)
    log_prob, first, second = model.log_prob(images), *torch.cartesian_prod(torch.arange(16), torch.arange(16)).t()
    weights = (p[first] * p[second]).detach()
    pairs = torch.stack([first, second], dim=1)
    estimates = torch.stack([discrete.surrogate(log_prob[pair], cost[pair]) for pair in pairs])
    estimated = torch.autograd.grad((weights * estimates).sum(), params)
    for a, b in zip(estimated, exact):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-12)


def test_grey_levels_there_and_back() -> None:
    x = torch.arange(256)[None] % 16
    small = (x.float() / 15 * 2 - 1).reshape(1, 1, 16, 16)
    assert torch.equal(discrete.levels_of(small), x)
    torch.testing.assert_close(discrete.images_of(x), common.doubled(small))


# The table.


def test_the_table_chooses_a_weight_and_compares_in_pairs(teacher: str, data: str) -> None:
    detector = "metrics/detectors/clothing32.pt"
    args = [f"--data={data}", f"--teacher={teacher}", f"--detector={detector}", "--model=vae", "--seeds=0,1",
            "--steps=1", "--weights=1,100", "--images=32", "--samples=256"]
    result = CliRunner().invoke(table.main, args)
    assert result.exit_code == 0, result.output
    *lines, head, _, plain, guided, difference = result.stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    assert [(row["seed"], row["dgl_weight"] > 0) for row in rows] == [
        (100, True), (100, True), (0, False), (0, True), (1, False), (1, True)]
    best = min(rows[:2], key=lambda row: row["fd@clothing32"])["dgl_weight"]
    assert {row["dgl_weight"] for row in rows[2:]} == {0.0, best}
    assert head == "| model | λ | seeds | fd@clothing32 |"
    assert plain.startswith("| vae | 0 | 2 | ")
    assert guided.startswith(f"| vae | {best:g} | 2 | ")
    mean = np.mean([rows[3]["fd@clothing32"] - rows[2]["fd@clothing32"],
                    rows[5]["fd@clothing32"] - rows[4]["fd@clothing32"]])
    assert difference.startswith(f"| vae | difference | 2 | {mean:.2f} ± ")


def test_a_table_without_images_to_compare_with(teacher: str, data: str) -> None:
    args = [f"--data={data}", f"--teacher={teacher}", "--detector=metrics/detectors/clothing32.pt", "--images=39"]
    result = CliRunner().invoke(table.main, args)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: --images: none of the 40 images in")
