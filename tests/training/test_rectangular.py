"""StyleGAN2 networks whose images are not square, as StyleGAN-Human's: they are read, run, projected and refused."""
import copy
import types
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from click.testing import CliRunner

import calc_metrics
import gen_video
import generate
import legacy
import projector
import style_mixing
from dnnlib.errors import UserError
from tests import tiny
from tests.contract.stock_host import foreign_forward
from tests.training import foreign_pickles as foreign
from tests.training.test_pickles import assert_same_tensors, plain_attributes, round_trip
from torch_utils.network_types import image_size
from training import networks
from training.checkpoints import pickles, resizing, rosinality, state_dicts, transfer

UPRIGHT, WIDE = [4, 2], [3, 4]
DETECTOR = Path(__file__).parents[2] / "metrics" / "detectors" / "clothing32.pt"


def generator(base: list[int], architecture: str = "skip", **kwargs: Any) -> Any:
    return tiny.tiny_generator(architecture, base_size=base, **kwargs)


def discriminator(base: list[int], architecture: str = "resnet", **kwargs: Any) -> Any:
    return tiny.tiny_discriminator(architecture, base_size=base, **kwargs)


@pytest.fixture(scope="module")
def pickle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as StyleGAN-Human's code writes them: with an argument of its own."""
    def edit(meta: dict[str, Any]) -> None:
        meta["module_src"] = foreign.FOREIGN_SOURCE
        kwargs = meta["state"]["_init_kwargs"]
        for options in (kwargs, kwargs.get("synthesis_kwargs", {})):
            options.pop("base_size", None)
        kwargs["square"] = meta["state"]["square"] = False

    path = tmp_path_factory.mktemp("human") / "human.pkl"
    nets = {"G": generator(UPRIGHT), "D": discriminator(UPRIGHT), "G_ema": generator(UPRIGHT, seed=2)}
    path.write_bytes(foreign.write({**nets, "training_set_kwargs": {"path": "here"}}, edit=edit))
    return path


def invoke(command: Any, *args: str) -> Any:
    return CliRunner().invoke(command.main, list(args))


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
@pytest.mark.parametrize("base", [UPRIGHT, WIDE])
@torch.no_grad()
def test_images_are_those_of_another_programs_forward(base: list[int], architecture: str) -> None:
    G = generator(base, architecture)
    z, c = tiny.latents()
    expected = copy.deepcopy(G)
    for part in expected.synthesis.modules():
        kind = type(part).__name__
        if kind in foreign_forward.FUNCTIONS:
            part.forward = types.MethodType(foreign_forward.FUNCTIONS[kind], part)
    img = G(z, c, noise_mode="const")
    assert list(img.shape) == [4, 3, 4 * base[0], 4 * base[1]]
    torch.testing.assert_close(img, expected(z, c, noise_mode="const"), atol=1e-5, rtol=1e-4)
    assert G(z, c).shape == G(z, c, noise_mode="none").shape == img.shape
    assert image_size(G) == tuple(img.shape[2:])
    logits = discriminator(base, "orig" if architecture == "orig" else "resnet")(img, c)
    assert logits.shape == (4, 1)


@pytest.mark.parametrize("base", [[4, 5], [2, 2], [0, 4], [4], [8, 4]])
def test_sizes_that_no_network_has(base: list[int]) -> None:
    for make in (generator, discriminator):
        with pytest.raises(ValueError, match="base_size: expected a height and a width from 1 to 4, one of them 4"):
            make(base)


def test_square_networks_have_the_same_record_as_ever() -> None:
    """Arguments that other code bases do not know are left out."""
    for network in (generator([4, 4]), discriminator([4, 4])):
        parts = [part for name, part in network.named_modules() if name and hasattr(part, "init_kwargs")]
        assert not any("base_size" in part.init_kwargs for part in parts if type(part).__name__ != "SynthesisNetwork")


@pytest.mark.parametrize("network", [generator(UPRIGHT, c_dim=3), generator(WIDE, "resnet"), discriminator(UPRIGHT),
                                     discriminator(WIDE, "skip", c_dim=3)])
def test_files(network: Any) -> None:
    loaded = round_trip(network)
    assert_same_tensors(loaded, network)
    assert plain_attributes(loaded) == plain_attributes(network)
    if hasattr(network, "z_dim"):
        assert loaded.init_kwargs.synthesis_kwargs.base_size == [
            side // 4 for side in network.img_size]
    again = state_dicts.build("D" if isinstance(network, networks.Discriminator) else "G_ema", network.state_dict())
    assert_same_tensors(again, network)


def test_a_constant_that_is_none() -> None:
    G = generator(UPRIGHT)
    state = {**G.state_dict(), "synthesis.b4.const": torch.zeros([16, 3, 3])}
    with pytest.raises(UserError, match="b4: expected a constant of 4x4, or a shorter side, found 3x3"):
        state_dicts.build("G_ema", state)


def test_rosinalitys_layout_is_read_and_not_written(tmp_path: Path) -> None:
    G = generator([4, 4])
    state = rosinality.state_dict("G_ema", G)
    narrow = {name: tensor[..., :2] if name == "input.input" else tensor for name, tensor in state.items()}
    narrow = {name: tensor[..., : tensor.shape[3] // 2] if name.startswith("noises.") else tensor
              for name, tensor in narrow.items()}
    torch.save({"g_ema": narrow, "latent_avg": G.mapping.w_avg}, tmp_path / "x.pt")
    read = pickles.open_networks(str(tmp_path / "x.pt"))["G_ema"]
    assert image_size(read) == (16, 8)
    torch.testing.assert_close(read.synthesis.b4.const, G.synthesis.b4.const[:, :, :2])
    with pytest.raises(UserError, match=r"images are 8x16 \(width x height\), and this layout has square ones"):
        rosinality.state_dict("G_ema", read)


def test_commands_that_only_draw(pickle: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    for command, *args in (
        (generate, "--seeds=1-2", f"--outdir={out}", "--grid"),
        (style_mixing, "--rows=1", "--cols=2", f"--outdir={out}/mixed"),
        (gen_video, "--seeds=0-1", "--w-frames=2", f"--output={tmp_path / 'x.gif'}"),
    ):
        result = invoke(command, f"--network={pickle}", "--device=cpu", *args)
        assert result.exit_code == 0, result.output
    with PIL.Image.open(tmp_path / "out" / "seed0001.png") as image:
        assert image.size == (8, 16)
    with PIL.Image.open(tmp_path / "x.gif") as video:
        assert video.size == (8, 16)


def test_projection(pickle: Path, tmp_path: Path) -> None:
    pixels = np.zeros([40, 60, 3], np.uint8)
    pixels[:, 20:40] = 200  # what a central part of 20x40 shows
    PIL.Image.fromarray(pixels).save(tmp_path / "target.png")
    result = invoke(projector, f"--network={pickle}", f"--target={tmp_path / 'target.png'}", "--num-steps=2",
                    "--detector=D", "--save-video=0", "--device=cpu", f"--outdir={tmp_path / 'out'}")
    assert result.exit_code == 0, result.output
    with PIL.Image.open(tmp_path / "out" / "target.png") as target:
        assert target.size == (8, 16)
        assert np.asarray(target).min() == 200
    assert (tmp_path / "out" / "proj.png").is_file()


def test_metrics(pickle: Path, tmp_path: Path) -> None:
    result = invoke(calc_metrics, f"--network={pickle}", f"--teacher={pickle}", "--metrics=agreement", "--num-gen=4",
                    "--device=cpu")
    assert result.exit_code == 0, result.output
    data = tiny.write_data(tmp_path / "data")
    result = invoke(calc_metrics, f"--network={pickle}", f"--data={data}", "--metrics=fid50k_full", "--device=cpu",
                    f"--detector={DETECTOR}")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == ("Error: --metrics: a comparison with a data set needs square images; "
                                              "those of this network are 8x16 (width x height)")


def test_another_resolution(pickle: Path, tmp_path: Path) -> None:
    """The shape stays; networks of two shapes do not start from each other."""
    nets = pickles.open_networks(str(pickle))
    grown, _ = resizing.resized({"G_ema": nets["G_ema"], "D": nets["D"]}, 32)
    z, c = tiny.latents()
    img = grown["G_ema"](z, c, noise_mode="const")
    assert list(img.shape[2:]) == [32, 16]
    assert torch.isfinite(grown["D"](img, c)).all()
    with pytest.raises(UserError, match=r"makes 8x16 images \(width x height\) and this one 16x16"):
        transfer.transplant(nets["G_ema"], tiny.tiny_generator())
    result = invoke(legacy, f"--source={pickle}", f"--dest={tmp_path / 'x.pt'}", "--format=rosinality")
    assert "this layout has square ones" in result.stderr


def test_stylegan3_of_another_shape_is_refused_by_name() -> None:
    from tests.training.test_networks_stylegan3 import tiny as stylegan3

    def edit(meta: dict[str, Any]) -> None:
        if meta["class_name"] in ("Generator", "SynthesisNetwork"):
            meta["state"]["_init_kwargs"]["square"] = False

    with pytest.raises(UserError, match="one of StyleGAN-Human for images that are not square"):
        round_trip(stylegan3(num_layers=4, margin_size=2), edit)
