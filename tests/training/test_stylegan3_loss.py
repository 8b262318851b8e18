"""The loss of StyleGAN3 against reference numbers, in float64, and what it does on its own."""
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers import GOLDEN, golden
from tests.tiny import double_precision, images, latents, tiny_discriminator
from torch_utils.ops import upfirdn2d
from training import networks_stylegan3
from training.checkpoints import pickles
from training.loss import Part, Step
from training.stylegan3.loss import StyleGAN3Loss

GRADIENTS = 1e-9  # relative
PHASES = {"Gmain": ("G", Part.MAIN), "Greg": ("G", Part.REG), "Dmain": ("D", Part.MAIN), "Dreg": ("D", Part.REG)}


def magnitudes(G: Any) -> torch.Tensor:
    return torch.stack([G.synthesis.get_submodule(name).magnitude_ema for name in G.synthesis.layer_names])


@pytest.mark.parametrize("name", ["sg3t64", pytest.param("sg3r32", marks=pytest.mark.slow), "sg3odd32"])
def test_phases(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ref, nets = golden(name), pickles.open_networks(str(GOLDEN / f"{name}.pkl"))
    G, D = nets["G_ema"].double(), nets["D"].double()
    loss = StyleGAN3Loss(torch.device("cpu"), G, D, r1_gamma=3, pl_weight=2, blur_init_sigma=2, blur_fade_kimg=1)
    loss.pl_mean = torch.tensor(0.1, dtype=torch.float64)
    noise = torch.from_numpy(ref["pl_noise_unit"]).double()
    monkeypatch.setattr(torch, "randn_like", lambda x, **kwargs: noise)
    real, c, z = (torch.from_numpy(ref[key]).double() for key in ("real", "c", "z"))
    for phase, (network, part) in PHASES.items():
        module = G if network == "G" else D
        module.requires_grad_(True).zero_grad(set_to_none=True)
        with double_precision():
            loss.accumulate_gradients(network, part, Step(real, c, z, c, gain=1, cur_nimg=250))
        module.requires_grad_(False)
        triples = {n: ref[f"grad/{phase}/{n}"] for n, _ in module.named_parameters()}
        largest = max(triple[2] for triple in triples.values())
        for parameter_name, p in module.named_parameters():
            gradient = torch.zeros_like(p) if p.grad is None else p.grad
            actual = np.array([gradient.sum(), gradient.abs().sum(), gradient.norm()])
            expected = triples[parameter_name]
            allowed = GRADIENTS * np.maximum(np.abs(expected[[1, 1, 2]]), 1e-3 * largest)
            assert np.all(np.abs(actual - expected) <= allowed), (phase, parameter_name, actual, expected)
        np.testing.assert_allclose(G.mapping.w_avg, ref[f"after/{phase}/w_avg"], rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(magnitudes(G), ref[f"after/{phase}/magnitude_ema"], rtol=1e-6)
        assert float(loss.pl_mean) == pytest.approx(float(ref[f"after/{phase}/pl_mean"]), rel=1e-6)


def tiny_loss(**kwargs: Any) -> StyleGAN3Loss:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        G = networks_stylegan3.Generator(16, 0, 16, 16, 3, channel_base=128, channel_max=8, num_layers=4)
    return StyleGAN3Loss(torch.device("cpu"), G, tiny_discriminator(), **kwargs)


def step(cur_nimg: int = 0) -> Step:
    z, c = latents()
    return Step(images(), c, z, c, gain=1, cur_nimg=cur_nimg)


@pytest.mark.parametrize(("cur_nimg", "sigma"), [(0, 10), (50_000, 7.5), (100_000, 5), (200_000, 0), (300_000, 0)])
def test_blur_fades(cur_nimg: int, sigma: float) -> None:
    loss = tiny_loss(blur_init_sigma=10, blur_fade_kimg=200)
    assert loss.blur_sigma(cur_nimg) == sigma
    assert tiny_loss(blur_init_sigma=10).blur_sigma(cur_nimg) == 0


def test_what_the_discriminator_sees_is_blurred() -> None:
    loss = tiny_loss(blur_init_sigma=0.5, blur_fade_kimg=1)
    noted: list[torch.Tensor] = []
    loss.D.register_forward_hook(lambda module, inputs, output: noted.append(inputs[0].detach()))
    loss.accumulate_gradients("D", Part.REG, step())
    taps = torch.tensor([2**-4.0, 1, 2**-4.0])
    expected = upfirdn2d.filter2d(images(), taps / taps.sum())
    torch.testing.assert_close(noted[0], expected)
    loss.accumulate_gradients("D", Part.REG, step(cur_nimg=1000))
    torch.testing.assert_close(noted[1], images())


def test_averages_move_in_the_main_phase_of_the_discriminator_alone() -> None:
    loss = tiny_loss()
    loss.D.requires_grad_(True)
    for network, part in (("G", Part.BOTH), ("D", Part.REG)):
        (loss.G if network == "G" else loss.D).requires_grad_(True)
        loss.accumulate_gradients(network, part, step())
        assert not loss.G.mapping.w_avg.any()
        assert torch.equal(magnitudes(loss.G), torch.ones(5))
    loss.accumulate_gradients("D", Part.MAIN, step())
    assert loss.G.mapping.w_avg.any()
    assert (magnitudes(loss.G) != 1).all()
    before = magnitudes(loss.G)
    loss.d_step(tiny_discriminator(seed=9).requires_grad_(True), Part.MAIN, step(), loss.augment, "other/")
    assert torch.equal(magnitudes(loss.G), before)  # another discriminator learns from the same images


def test_style_mixing_can_be_asked_for() -> None:
    loss = tiny_loss(style_mixing_prob=1.0)
    _, ws = loss.generate(*latents())
    assert not torch.equal(ws[:, 0], ws[:, -1])
