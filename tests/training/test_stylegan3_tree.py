"""StyleGAN2 networks of the stylegan3 tree: arguments stay flat, and w_avg moves only where that tree moves it."""
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import legacy
from tests import tiny
from tests.helpers import GOLDEN
from tests.training import foreign_pickles as foreign
from tests.training.test_pickles import round_trip
from training import networks
from training.checkpoints import pickles, resizing, safetensors_files
from training.loss import Part, Step, StyleGAN2Loss

# What the constructors of that tree know, its Generator's own arguments and those that it hands down.
THEIR_ARGUMENTS = {
    "z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "mapping_kwargs", "channel_base", "channel_max",
    "num_fp16_res", "architecture", "resample_filter", "conv_clamp", "fp16_channels_last", "kernel_size", "use_noise",
    "activation",
}


def flat(c_dim: int = 0) -> Any:
    """A generator as that tree constructs it."""
    G = networks.Generator(
        z_dim=16, c_dim=c_dim, w_dim=16, img_resolution=16, img_channels=3,
        mapping_kwargs={"num_layers": 2, "w_avg_beta": 0.998}, **tiny.WIDTHS,
    )  # fmt: skip
    return G.eval().requires_grad_(False)


def test_a_file_of_that_tree_keeps_its_arguments_when_it_is_rewritten(tmp_path: Path) -> None:
    result = CliRunner().invoke(legacy.main, [f"--source={GOLDEN / 'sg3tree_sg2.pkl'}", f"--dest={tmp_path / 'x.pkl'}"])
    assert result.exit_code == 0, result.output
    nets = pickles.open_networks(str(tmp_path / "x.pkl"))
    for role in ("G", "G_ema"):
        arguments = nets[role].init_kwargs
        assert arguments.keys() <= THEIR_ARGUMENTS
        assert (arguments.channel_base, arguments.num_fp16_res, arguments.conv_clamp) == (1024, 4, 256)
        assert not nets[role].mapping.tracks_in_training


@pytest.mark.parametrize("make", [flat, tiny.tiny_generator])
def test_the_flavour_survives(make: Any, tmp_path: Path) -> None:
    """Whatever becomes of a generator: a copy in a file, half precision, another resolution, safetensors."""
    G = make()
    is_flat = make is flat
    forced = pickles.load_networks(io.BytesIO(_pickle(G)), force_fp16=True)["G_ema"]
    resized = resizing.resized({"G_ema": G}, 32)[0]["G_ema"]
    for made in (round_trip(G), forced, resized, _through_safetensors(G, tmp_path)):
        assert ("synthesis_kwargs" not in made.init_kwargs) is is_flat
        assert made.mapping.tracks_in_training is not is_flat
    options = forced.init_kwargs if is_flat else forced.init_kwargs.synthesis_kwargs
    assert (options.num_fp16_res, options.conv_clamp) == (4, 256)


def _pickle(G: Any) -> bytes:
    return foreign.write({"G": G, "D": tiny.tiny_discriminator(), "G_ema": G})


def _through_safetensors(G: Any, folder: Path) -> Any:
    safetensors_files.write({"G_ema": G}, folder / "x.safetensors")
    return pickles.open_networks(str(folder / "x.safetensors"))["G_ema"]


def test_a_constructor_call_without_options_is_recognised_by_an_attribute() -> None:
    """That tree's synthesis network notes its number of half precision resolutions."""
    def edit(meta: dict[str, Any]) -> None:
        meta["state"].pop("tracks_in_training", None)  # which is ours
        if meta["class_name"] == "SynthesisNetwork":
            meta["state"]["num_fp16_res"] = 0
        if meta["class_name"] == "Generator":
            meta["state"]["_init_kwargs"] = {}

    assert not round_trip(tiny.tiny_generator(), edit).mapping.tracks_in_training
    edited = round_trip(tiny.tiny_generator(), lambda meta: meta["state"].update(_init_kwargs={}))
    assert edited.mapping.tracks_in_training


@pytest.mark.parametrize("c_dim", [0, 3])
def test_w_avg_of_a_mapping_network(c_dim: int) -> None:
    z, c = tiny.latents(c_dim=c_dim)
    G = flat(c_dim).train()
    before = G.mapping.w_avg.clone()
    w = G.mapping(z, c)[:, 0]
    G(z, c)
    assert torch.equal(G.mapping.w_avg, before)
    for call in (G.mapping, G, G.eval()):
        before = G.mapping.w_avg.clone()
        call(z, c, update_emas=True)
        torch.testing.assert_close(G.mapping.w_avg, w.mean(dim=0).lerp(before, 0.998))
    G.synthesis(G.mapping(z, c), update_emas=True)
    assert tiny.tiny_discriminator()(tiny.images(), None, update_emas=True).shape == (4, 1)

    ours = tiny.tiny_generator(c_dim=c_dim).train()
    before = ours.mapping.w_avg.clone()
    ours.mapping(z, c, skip_w_avg_update=True)
    assert torch.equal(ours.mapping.w_avg, before)
    ours.mapping(z, c)
    assert not torch.equal(ours.mapping.w_avg, before)


@pytest.mark.parametrize(("make", "phases"), [(flat, {"Dmain"}), (tiny.tiny_generator, {"Dmain", "Gmain", "Greg"})])
def test_phases_that_move_w_avg(make: Any, phases: set[str]) -> None:
    """Once in the discriminator's main phase with the flat form; in all that map latents with the other."""
    G, D = make().train(), tiny.tiny_discriminator()
    loss = StyleGAN2Loss(torch.device("cpu"), G, D)
    for phase in ("Gmain", "Greg", "Dmain", "Dreg"):
        before = G.mapping.w_avg.clone()
        tiny.gradients(loss, phase, G if phase[0] == "G" else D)
        assert torch.equal(G.mapping.w_avg, before) is (phase not in phases), phase
    z, _ = tiny.latents()
    before = G.mapping.w_avg.clone()
    tiny.gradients(loss, "Dmain", D)
    expected = G.mapping(z, None, skip_w_avg_update=True)[:, 0].mean(dim=0).lerp(before, G.mapping.w_avg_beta)
    torch.testing.assert_close(G.mapping.w_avg, expected)


def test_another_discriminator_moves_nothing() -> None:
    G, D = flat().train(), tiny.tiny_discriminator()
    loss = StyleGAN2Loss(torch.device("cpu"), G, D)
    before = G.mapping.w_avg.clone()
    z, c = tiny.latents()
    step = Step(tiny.images(), c, z, c, 1, 0)
    other = tiny.tiny_discriminator(seed=5).requires_grad_(True)
    loss.d_step(other, Part.MAIN, step, loss.augment)
    assert torch.equal(G.mapping.w_avg, before)
