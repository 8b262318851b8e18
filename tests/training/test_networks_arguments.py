"""What networks refuse, and a mapping network that makes single styles."""
from typing import Any

import pytest
import torch

from tests import tiny
from training import networks

SYNTHESIS = {"w_dim": 16, "img_resolution": 16, "img_channels": 1, "channel_base": 64, "channel_max": 8}


@pytest.mark.parametrize("shape", [[2, 3, 16], [2, 6, 15], [6, 16]])
def test_synthesis_names_the_shape_that_it_expects(shape: list[int]) -> None:
    G = tiny.tiny_generator()
    with pytest.raises(ValueError, match=r"synthesis: expected ws \[N, \d, 16\], found \[\d"):
        G.synthesis(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"synthesis block b4: expected ws \[N, 2, 16\], found \[\d"):
        G.synthesis.b4(None, None, torch.zeros(shape))


def test_noise_mode() -> None:
    G = tiny.tiny_generator()
    with pytest.raises(ValueError, match="noise_mode: expected 'random', 'const' or 'none', found 'fixed'"):
        G.synthesis(torch.zeros([1, G.num_ws, 16]), noise_mode="fixed")


@pytest.mark.parametrize(("changes", "message"), [
    ({"img_resolution": 24}, "img_resolution: expected a power of two of at least 4, found 24"),
    ({"architecture": "dense"}, "architecture: expected 'orig', 'skip' or 'resnet', found 'dense'"),
    ({"layer_channels": [8] * 5}, "layer_channels: expected 6 widths for 16x16 images, found 5"),
])
def test_arguments_of_a_synthesis_network(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        networks.SynthesisNetwork(**{**SYNTHESIS, **changes})


@pytest.mark.parametrize(("changes", "message"), [
    ({"img_resolution": 24}, "img_resolution: expected a power of two of at least 4, found 24"),
    ({"architecture": "dense"}, "architecture: expected 'orig', 'skip' or 'resnet', found 'dense'"),
    ({"layer_channels": [8] * 5}, "layer_channels: expected 7 widths for 16x16 images, found 5"),
])
def test_arguments_of_a_discriminator(changes: dict[str, Any], message: str) -> None:
    arguments = {name: value for name, value in SYNTHESIS.items() if name != "w_dim"}
    with pytest.raises(ValueError, match=message):
        networks.Discriminator(**{"c_dim": 0, **arguments, **changes})


def test_batches_that_groups_do_not_divide() -> None:
    with pytest.raises(ValueError, match="minibatch std: batch of 6 is not a multiple of the group size 4"):
        networks.MinibatchStdLayer(4)(torch.zeros([6, 2, 4, 4]))


@pytest.mark.parametrize(("num_ws", "beta"), [(None, 0.995), (None, None), (3, None)])
def test_a_mapping_network_without_an_average(num_ws: int | None, beta: float | None) -> None:
    mapping = networks.MappingNetwork(4, 0, 5, num_ws, num_layers=2, w_avg_beta=beta)
    assert not list(mapping.buffers())
    z, c = torch.randn([2, 4]), torch.zeros([2, 0])
    w = mapping.train()(z, c)
    assert w.shape == ((2, 5) if num_ws is None else (2, 3, 5))
    torch.testing.assert_close(w, mapping.eval()(z, c))
    with pytest.raises(ValueError, match="truncation_psi: this mapping network keeps no average w"):
        mapping(z, c, truncation_psi=0.5)
