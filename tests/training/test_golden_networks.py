"""Networks, losses and pickles against reference numbers of the original implementations."""
import io
import pickle

import numpy as np
import pytest
import torch

from tests.helpers import GOLDEN, golden
from torch_utils import training_stats
from training import loss as losses
from training.checkpoints import pickles

pytestmark = pytest.mark.usefixtures("cpu_path")
IMAGE_TOLERANCE = 1e-4  # of the standard deviation of the reference
LOGIT_TOLERANCE = 1e-4  # of max |reference|
GRADIENT_TOLERANCE = 1e-4  # relative

SG2ADA = ["ffhq64", "cifar32", "gray32"]


def load(name: str) -> dict:
    with open(GOLDEN / f"{name}.pkl", "rb") as f:
        return pickles.load_networks(f)


def assert_image(result: torch.Tensor, reference: np.ndarray) -> None:
    assert result.shape == reference.shape
    assert np.abs(result.numpy() - reference).max() <= IMAGE_TOLERANCE * reference.std()


def assert_logits(result: torch.Tensor, reference: np.ndarray) -> None:
    assert result.shape == reference.shape
    assert np.abs(result.numpy() - reference).max() <= LOGIT_TOLERANCE * np.abs(reference).max()


@pytest.mark.parametrize("name", SG2ADA)
@torch.no_grad()
def test_sg2ada_pickle(name: str) -> None:
    nets, ref = load(name), golden(name)
    G, D, z, c = nets["G_ema"], nets["D"], torch.from_numpy(ref["z"]), torch.from_numpy(ref["c"])
    ws = G.mapping(z, c)
    assert_image(ws, ref["ws"])
    assert_image(G.mapping(z, c, truncation_psi=0.7, truncation_cutoff=4), ref["ws_psi0.7_cutoff4"])
    for fused in (False, True, None):
        assert_image(G.synthesis(ws, noise_mode="const", force_fp32=True, fused_modconv=fused), ref["img_const"])
    assert_image(G.synthesis(ws, noise_mode="none", force_fp32=True), ref["img_none"])
    assert_image(G(z, c, truncation_psi=0.5, noise_mode="const", force_fp32=True), ref["img_psi0.5"])
    assert_image(nets["G"](z, c, noise_mode="const", force_fp32=True), ref["G_img_const"])
    assert_logits(D(torch.from_numpy(ref["img_const"]), c, force_fp32=True), ref["logits"])
    assert_logits(D(torch.from_numpy(ref["real"]), c, force_fp32=True), ref["logits_real"])


@pytest.mark.parametrize("name", SG2ADA)
def test_gradients_of_the_four_phases(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nets, ref = load(name), golden(name)
    device = torch.device("cpu")
    G, D = nets["G_ema"].train(), nets["D"].train()
    for module_name, parameter in G.named_parameters():
        if module_name.endswith("noise_strength"):
            parameter.data.zero_()
    loss = losses.StyleGAN2Loss(device, G, D, r1_gamma=3, style_mixing_prob=0)
    loss.pl_mean.fill_(0.1)
    noise = torch.from_numpy(ref["pl_noise_unit"])
    original = torch.randn_like
    monkeypatch.setattr(torch, "randn_like", lambda x, **kw: noise if x.shape == noise.shape else original(x, **kw))
    batch = [torch.from_numpy(ref[key]) for key in ("real", "c", "z", "c")]
    training_stats.Collector()
    for phase in ("Gmain", "Greg", "Dmain", "Dreg"):
        module = G if phase[0] == "G" else D
        module.requires_grad_(True)
        module.zero_grad(set_to_none=True)
        step = losses.Step(*batch, gain=1, cur_nimg=0)
        loss.accumulate_gradients(phase[0], losses.Part(phase[1:]), step)
        module.requires_grad_(False)
        for parameter_name, parameter in module.named_parameters():
            key = f"grad/{phase}/{parameter_name}"
            if key not in ref:
                assert "noise_strength" in key
                continue
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            result = torch.stack([gradient.sum(), gradient.abs().sum(), gradient.norm()]).double().numpy()
            scale = max(abs(ref[key][1]), 1e-12)  # of the sum of absolute values, which bounds the sum
            assert abs(result[0] - ref[key][0]) <= GRADIENT_TOLERANCE * scale, key
            assert np.all(np.abs(result[1:] - ref[key][1:]) <= GRADIENT_TOLERANCE * np.abs(ref[key][1:]) + 1e-12), key
        assert_image(G.mapping.w_avg, ref[f"after/{phase}/w_avg"])
        assert float(loss.pl_mean) == pytest.approx(float(ref[f"after/{phase}/pl_mean"]), rel=1e-5)


@torch.no_grad()
def test_sg3_tree_pickle() -> None:
    nets, ref = load("sg3tree_sg2"), golden("sg3tree_sg2")
    z, c = torch.from_numpy(ref["z"]), torch.from_numpy(ref["c"])
    img = nets["G_ema"](z, c, truncation_psi=0.6, noise_mode="const", force_fp32=True)
    assert_image(img, ref["img_psi06_const"])
    assert_logits(nets["D"](img, c, force_fp32=True), ref["logits"])


@pytest.mark.parametrize("name", ["tf_config_f_64", "tf_ada_cond_32"])
@torch.no_grad()
def test_tensorflow_pickles(name: str) -> None:
    nets, ref = load(name), golden(name)
    z, c = torch.from_numpy(ref["z"]), torch.from_numpy(ref["c"])
    img = nets["G_ema"](z, c, truncation_psi=0.7, noise_mode="const", force_fp32=True)
    assert_image(img, ref["img_psi07_const"])
    assert_image(nets["G"](z, c, noise_mode="const", force_fp32=True), ref["G_img_const"])
    assert_logits(nets["D"](img, c, force_fp32=True), ref["logits"])


def test_reading_leaves_the_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    load("cifar32")
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", [*SG2ADA, "sg3tree_sg2", "tf_ada_cond_32"])
@torch.no_grad()
def test_round_trip_through_our_own_pickle(name: str) -> None:
    nets = load(name)
    stream = io.BytesIO()
    data = pickles.snapshot_data(nets, nets["training_set_kwargs"])
    pickle.dump(data, stream, protocol=4)
    stream.seek(0)
    again = pickles.load_networks(stream)
    for key in ("G", "D", "G_ema"):
        old, new = nets[key].state_dict(), again[key].state_dict()
        assert list(old) == list(new)
        assert all(torch.equal(old[k], new[k]) for k in old)
        if not name.startswith("tf"):  # a TensorFlow file spells out what are defaults here
            assert again[key].init_kwargs == nets[key].init_kwargs
