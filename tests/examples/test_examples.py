"""The examples: a VAE and a flow under a GAN's discriminator; their mathematics, and that the guidance reaches them."""
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
from docs.examples import common, flow, vae
from tests import tiny

MODELS = {"vae": vae, "flow": flow}


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


@pytest.mark.parametrize("name", MODELS)
def test_the_teachers_gradient_reaches_every_weight_that_draws(name: str, teacher: str) -> None:
    torch.manual_seed(0)
    images = torch.rand(16, 1, 32, 32) * 2 - 1
    model: Any = vae.VAE() if name == "vae" else flow.Flow(flow.halved(images))
    for p in model.parameters():  # the last layers of couplings begin at zero, which hides the others' gradients
        p.data.add_(torch.randn_like(p) * 0.01)
    samples = model.sample(4) if name == "vae" else flow.doubled(model.sample(4))
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
