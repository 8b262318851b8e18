"""State dictionaries without their objects: the architecture is inferred, the images are the same."""
from pathlib import Path
from typing import Any

import pytest
import torch

from dnnlib.errors import UserError
from tests import tiny
from tests.training.test_networks_stylegan3 import R_OPTIONS
from tests.training.test_networks_stylegan3 import tiny as stylegan3
from torch_utils.checkpoint import CheckpointError
from training.checkpoints import pickles, state_dicts

FEW = {"num_layers": 4, "margin_size": 2, "conv_clamp": None}
NETWORKS = [
    pytest.param("G_ema", lambda: tiny.tiny_generator(c_dim=3), id="labels"),
    pytest.param("G_ema", lambda: tiny.tiny_generator("resnet", channels=1, use_noise=False), id="resnet"),
    pytest.param("G_ema", lambda: tiny.tiny_generator("orig", resolution=4), id="4px"),
    pytest.param("G_ema", lambda: tiny.tiny_generator("orig", layer_channels=[5, 9, 7, 12, 3, 8], resample_filter=[
        1, 2, 1]), id="orig-uneven"),
    pytest.param("D", lambda: tiny.tiny_discriminator(epilogue_kwargs={}), id="D"),
    pytest.param("D", lambda: tiny.tiny_discriminator("skip", c_dim=3, channels=1, cmap_dim=5, epilogue_kwargs={
        "mbstd_num_channels": 2}), id="D-skip-labels"),
    pytest.param("D", lambda: tiny.tiny_discriminator("orig", layer_channels=[2, 3, 4, 5, 6, 7, 8], epilogue_kwargs={}),
                 id="D-orig-uneven"),
    pytest.param("G_ema", lambda: stylegan3(**FEW), id="T"),
    pytest.param("G_ema", lambda: stylegan3(**FEW, c_dim=3, **{key: R_OPTIONS[key] for key in (
        "conv_kernel", "use_radial_filters")}), id="R"),
    pytest.param("G_ema", lambda: stylegan3(**FEW, layer_channels=[4, 5, 6, 7, 8], img_channels=1), id="T-uneven"),
]  # fmt: skip


def outputs(network: Any) -> torch.Tensor:
    """Images or logits; labels are the first class."""
    c = torch.eye(network.c_dim)[:1].repeat(4, 1) if network.c_dim else torch.zeros([4, 0])
    if hasattr(network, "z_dim"):
        z = torch.randn([4, network.z_dim], generator=torch.Generator().manual_seed(0))
        return network(z, c, noise_mode="const")
    return network(tiny.images(channels=network.img_channels), c)


@pytest.mark.parametrize(("role", "make"), NETWORKS)
def test_the_architecture_is_inferred(
    role: str, make: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = make()
    torch.save({f"module.{name}": tensor for name, tensor in network.state_dict().items()}, tmp_path / "x.pt")
    nets = pickles.open_networks(str(tmp_path / "x.pt"))
    assert [name for name in pickles.NETWORKS if name in nets] == [role]
    assert torch.equal(outputs(nets[role]), outputs(network))
    assert "a state dictionary does not say everything" in caplog.text


@pytest.mark.parametrize("ending", ["pt", "pth"])
def test_a_dictionary_of_state_dictionaries(ending: str, tmp_path: Path) -> None:
    networks = tiny.tiny_networks()
    states = {role: networks[role].state_dict() for role in ("G", "D", "G_ema")}
    torch.save({**states, "step": 3}, tmp_path / f"x.{ending}")
    nets = pickles.open_networks(str(tmp_path / f"x.{ending}"))
    for role in ("G", "G_ema"):
        assert torch.equal(outputs(nets[role]), outputs(networks[role]))
    assert nets["D"].img_resolution == 16


def test_what_makes_no_network_is_named() -> None:
    tensors = tiny.tiny_generator().state_dict()
    missing = {name: tensor for name, tensor in tensors.items() if name != "synthesis.b8.conv0.weight"}
    with pytest.raises(CheckpointError, match=r"G_ema: the state dictionary has no synthesis\.b8\.conv0\.weight"):
        state_dicts.build("G_ema", missing)
    with pytest.raises(CheckpointError, match=r"missing in the file: .*; unknown here: extra"):
        state_dicts.build("G_ema", {**tensors, "extra": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="D: expected a state dictionary of a StyleGAN2 or StyleGAN3 network"):
        state_dicts.build("D", {"a": 1})
    layers = stylegan3(**FEW).state_dict()
    layers = {name: tensor for name, tensor in layers.items() if not name.startswith("synthesis.L1_")}
    with pytest.raises(CheckpointError, match="layers: not that of a network, found L0_"):
        state_dicts.build("G_ema", layers)
    huge = {**tensors, "synthesis.b1048576.conv1.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match="resolution: not that of a network, found 1048576"):
        state_dicts.build("G_ema", huge)


def test_labels_that_are_projected_on_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="cmap_dim: a discriminator with labels projects them on at least 1 number"):
        tiny.tiny_discriminator(c_dim=2, cmap_dim=0)


def test_a_damaged_archive_is_a_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"PK\3\4")
    with pytest.raises(UserError, match=r"x\.pt"):
        pickles.open_networks(str(tmp_path / "x.pt"))
