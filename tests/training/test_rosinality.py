"""rosinality's layout: reference numbers of that code, bit-exact round trips, and what is refused."""
import argparse
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.helpers import GOLDEN, golden
from tests.tiny import tiny_discriminator, tiny_generator
from torch_utils import checkpoint
from torch_utils.checkpoint import CheckpointError
from training.checkpoints import rosinality

FILES = {"rosinality_64": ".pt", "rosinality_32_latent_avg": ".pt", "cagc_64_uniform": ".pth",
         "cagc_64_nonuniform": ".pth"}
TOLERANCE = 1e-5  # of max |reference|
NAMES = pytest.mark.parametrize("name", FILES)


def content(name: str) -> dict[str, Any]:
    with open(GOLDEN / f"{name}{FILES[name]}", "rb") as f:
        return checkpoint.read(f, keep_foreign=True)


def built(name: str, role: str) -> Any:
    return rosinality.build(role, content(name))


def assert_near(actual: torch.Tensor, reference: np.ndarray, relative: float = TOLERANCE) -> None:
    assert actual.shape == reference.shape
    assert np.abs(actual.detach().numpy() - reference).max() <= relative * np.abs(reference).max()


@pytest.mark.usefixtures("cpu_path")
@NAMES
@torch.no_grad()
def test_images_and_logits(name: str) -> None:
    ref, G, D = golden(name), built(name, "G_ema"), built(name, "D")
    ws = G.mapping(torch.from_numpy(ref["z"]), None)
    assert_near(ws[:, 0], ref["style"])
    assert_near(G.synthesis(ws, noise_mode="const"), ref["img_const"])
    assert_near(G.synthesis(ws[:2], noise_mode="none"), ref["img_zero"])
    assert_near(D(torch.from_numpy(ref["img_const"]), None), ref["logits"])
    for key, role in (("img_wplus", "G_ema"), ("g_img_const", "G")):
        if key in ref:
            network = built(name, role)
            latents = torch.from_numpy(ref["wplus"]) if key == "img_wplus" else network.mapping(
                torch.from_numpy(ref["z"][: len(ref[key])]), None)
            assert_near(network.synthesis(latents, noise_mode="const"), ref[key])


@torch.no_grad()
def test_truncation_of_a_converted_file() -> None:
    ref, G = golden("rosinality_32_latent_avg"), built("rosinality_32_latent_avg", "G_ema")
    z = torch.from_numpy(ref["z"][:2])
    assert_near(G(z, None, truncation_psi=0.5, noise_mode="const"), ref["img_psi0.5"])
    assert torch.equal(G.mapping.w_avg, content("rosinality_32_latent_avg")["latent_avg"])


def test_gradients_of_its_losses() -> None:
    name = "rosinality_32_latent_avg"
    ref, G, D = golden(name), built(name, "G_ema"), built(name, "D")
    tables = {"G": rosinality.layout.generator_table(32, 2), "D": rosinality.layout.discriminator_table(32)}
    z, real = torch.from_numpy(ref["z"]), torch.from_numpy(ref["real"])[:4].requires_grad_()

    def images() -> torch.Tensor:
        return G.synthesis(G.mapping(z, None), noise_mode="const")

    def penalty() -> torch.Tensor:
        (gradient,) = torch.autograd.grad(D(real, None).sum(), real, create_graph=True)
        return gradient.square().sum([1, 2, 3]).mean()

    losses = {
        "Gmain": lambda: F.softplus(-D(images(), None)).mean(),
        "Dmain": lambda: F.softplus(-D(real, None)).mean() + F.softplus(D(images().detach(), None)).mean(),
        "Dr1": penalty,
    }
    for phase, loss in losses.items():
        network = G if phase[0] == "G" else D
        for module in (G, D):
            module.requires_grad_(module is network).zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        assert float(value.detach()) == pytest.approx(float(ref[f"loss/{phase}"]), rel=1e-5)
        parameters = dict(network.named_parameters())
        triples = {key: ref[f"grad/{phase}/{key}"] for key in tables[phase[0]] if f"grad/{phase}/{key}" in ref}
        assert len(triples) == len(parameters)
        largest = np.max(list(triples.values()), axis=0)
        for there, expected in triples.items():
            gradient = parameters[tables[phase[0]][there][0]].grad
            gradient = torch.zeros([]) if gradient is None else gradient
            actual = np.array([gradient.sum(), gradient.abs().sum(), gradient.norm()])
            allowed = np.maximum(1e-4 * np.abs(expected), 1e-5 * largest)
            allowed[0] = 1e-5 * largest[1]
            assert np.all(np.abs(actual - expected) <= allowed), (phase, there)


@NAMES
def test_widths(name: str) -> None:
    ref = golden(name)
    if "widths" in ref:
        G = built(name, "G_ema")
        convs = [p for n, p in G.synthesis.named_parameters() if n.endswith(("conv0.weight", "conv1.weight"))]
        layers = [G.synthesis.b4.const, *convs]
        assert [len(layer) for layer in layers] == ref["widths"].tolist()


@NAMES
def test_round_trip_is_exact(name: str, tmp_path: Path) -> None:
    data = content(name)
    networks = {role: rosinality.build(role, data) for role in rosinality.ROLES}
    assert rosinality.save(networks, tmp_path / "again.pt") == []
    with open(tmp_path / "again.pt", "rb") as f:
        again = checkpoint.read(f)
    assert list(again)[:2] == ["g_ema", "latent_avg"]
    for key in rosinality.ROLES.values():
        assert list(again[key]) == list(data[key])
        for name, tensor in data[key].items():
            assert again[key][name].shape == tensor.shape
            assert again[key][name].is_contiguous()
            assert again[key][name].numpy().tobytes() == tensor.contiguous().numpy().tobytes()
    if "latent_avg" in data:
        assert torch.equal(again["latent_avg"], data["latent_avg"])


def test_torch_reads_what_is_written(tmp_path: Path) -> None:
    networks = {"G": None, "D": tiny_discriminator(epilogue_kwargs={}), "G_ema": tiny_generator()}
    assert rosinality.save(networks, tmp_path / "tiny.pt") == ["G is not known, so the file has none"]
    data = torch.load(tmp_path / "tiny.pt", weights_only=True)
    assert list(data) == ["g_ema", "latent_avg", "d"]
    assert data["g_ema"]["to_rgb1.bias"].shape == (1, 3, 1, 1)
    assert data["g_ema"]["convs.0.conv.blur.kernel"].sum() == 4
    assert data["d"]["convs.1.skip.0.kernel"].sum() == 1


def test_a_training_file_names_its_options_without_executing_them(tmp_path: Path) -> None:
    data = {"g_ema": rosinality.state_dict("G_ema", tiny_generator()), "args": argparse.Namespace(arch="stylegan2")}
    torch.save(data, tmp_path / "x.pt")
    with open(tmp_path / "x.pt", "rb") as f:
        result = checkpoint.read(f, keep_foreign=True)
    assert result["args"].name == "argparse.Namespace"
    assert rosinality.reads(result)


def test_without_an_average_many_latents_give_one(caplog: pytest.LogCaptureFixture) -> None:
    data = content("rosinality_64")
    with caplog.at_level(logging.WARNING):
        G = rosinality.build("G_ema", data)
    assert "the file has no latent_avg; the mean of 16384 latents takes its place" in caplog.text
    reference = torch.from_numpy(golden("rosinality_64")["mean_latent"]).flatten()
    assert float((G.mapping.w_avg - reference).abs().max()) < 0.02 * float(reference.abs().max())
    assert torch.equal(rosinality.build("G_ema", data).mapping.w_avg, G.mapping.w_avg)


def test_noises_that_a_file_lacks_are_drawn(caplog: pytest.LogCaptureFixture) -> None:
    data = content("cagc_64_uniform")
    old = {name: value for name, value in data["g_ema"].items() if not name.startswith("noises.")}
    with caplog.at_level(logging.WARNING):
        G = rosinality.build("G_ema", {"g_ema": old})
    assert "the file has no noise inputs; they are drawn from seed 0" in caplog.text
    assert G.synthesis.b64.conv1.noise_const.std() == pytest.approx(1, abs=0.1)


def test_one_generator_serves_as_both(caplog: pytest.LogCaptureFixture) -> None:
    data = content("rosinality_64")
    with caplog.at_level(logging.WARNING):
        G = rosinality.build("G_ema", {"g": data["g"]})
    assert "G_ema: the file has no g_ema, so its g is used" in caplog.text
    assert torch.equal(G.synthesis.b4.const, data["g"]["input.input"][0])
    assert rosinality.build("D", {"g": data["g"]}) is None


@pytest.mark.parametrize("rows", [1, 8])
def test_bundles_of_encoders(rows: int) -> None:
    data = content("rosinality_32_latent_avg")
    state = {f"decoder.{name}": value for name, value in data["g_ema"].items()} | {"encoder.x": torch.zeros(3)}
    bundle = {"state_dict": state, "latent_avg": data["latent_avg"].expand(rows, -1).clone(), "opts": {}}
    assert rosinality.reads(bundle)
    G = rosinality.build("G_ema", bundle)
    assert torch.equal(G.mapping.w_avg, data["latent_avg"])
    assert torch.equal(G.synthesis.b4.const, data["g_ema"]["input.input"][0])
    bundle["latent_avg"] = torch.arange(rows * 20.0).reshape(rows, 20)
    if rows > 1:
        with pytest.raises(CheckpointError, match="latent_avg: its rows differ"):
            rosinality.build("G_ema", bundle)


def test_names_of_a_parallel_wrapper() -> None:
    data = content("rosinality_64")
    wrapped = {f"module.{name}": value for name, value in data["d"].items()}
    assert rosinality.reads({"d": wrapped})
    assert rosinality.build("D", {"d": wrapped}) is not None


def changed(**tensors: Any) -> dict[str, Any]:
    """A state dict of G_ema with further tensors; None takes one away."""
    state = dict(content("rosinality_64")["g_ema"])
    for name, value in tensors.items():
        key = name.replace("__", ".")
        state.pop(key, None)
        if value is not None:
            state[key] = value
    return {"g_ema": state}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: changed(extra=torch.zeros(1)), r"a StyleGAN2 of 64x64; missing: none; unknown: extra"),
        (lambda: changed(conv1__noise__weight=None), r"missing: conv1\.noise\.weight; unknown: none"),
        (lambda: changed(to_rgb1__bias=torch.zeros(3)), r"to_rgb1\.bias: expected shape \[1, 3, 1, 1\], found \[3\]"),
        (lambda: changed(to_rgb1__bias=torch.zeros(1, 3, 1, 1).half()), "a float32 tensor, found torch.float16"),
        (lambda: changed(convs__0__conv__blur__kernel=torch.ones(4, 4)), r"only networks with the resampling filter"),
        (lambda: changed(convs__1__conv__weight=torch.zeros(1, 16, 16, 1, 1)), r"expected 3x3, found sizes \[1, 3\]"),
        (lambda: changed(convs__0__iwt__ll=torch.zeros(1)), "this is a SWAGAN"),
        (lambda: changed(style__1__weight=None), r"style\.1\.weight: expected a tensor of 2 axes, found nothing"),
        (lambda: {"g_ema": checkpoint.Foreign("model.Generator")}, "expected a state dict of tensors, found model"),
        (lambda: {**changed(), "latent_avg": torch.zeros(7)}, "latent_avg: expected a tensor of 24 numbers"),
    ],
)
def test_refusals(data: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        rosinality.build("G_ema", data())


@pytest.mark.parametrize(
    ("role", "network", "message"),
    [
        ("G_ema", lambda: tiny_generator(c_dim=3), "it has 3 classes, and this layout has no labels"),
        ("G_ema", lambda: tiny_generator(channels=1), "it has 1 image channels, and this layout has 3"),
        ("G_ema", lambda: tiny_generator("resnet"), "its architecture is 'resnet', and this layout is 'skip'"),
        ("G_ema", lambda: tiny_generator(use_noise=False), "its layers have no noise inputs"),
        ("G_ema", lambda: tiny_generator(resample_filter=[1, 2, 1]), r"its resampling filter is not \[1, 3, 3, 1\]"),
        ("D", lambda: tiny_discriminator("skip"), "its architecture is 'skip', and this layout is 'resnet'"),
        ("D", tiny_discriminator, "not of one channel over groups of 4"),
        ("D", tiny_generator, r"it is a training\.networks\.Generator, and only a StyleGAN2 has this layout"),
    ],
)
def test_what_cannot_be_written(role: str, network: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        rosinality.state_dict(role, network())


def test_a_discriminator_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    networks = {"G": tiny_generator(conv_clamp=256), "D": tiny_discriminator("skip"), "G_ema": tiny_generator()}
    lines = rosinality.save(networks, tmp_path / "x.pt")
    assert lines[0].startswith("D cannot be written in rosinality's layout: its architecture is 'skip'")
    assert lines[1].startswith("clamps of activations are not part of this layout")


def test_other_content_is_not_of_this_layout() -> None:
    assert not rosinality.reads({"G": 1})
    assert not rosinality.reads([1])
    assert not rosinality.reads({"d": {"blocks.0.weight": 1}})
    assert not rosinality.reads({"state_dict": {"weight": torch.zeros(1)}})
