"""Images computed in bands of rows are those of the network."""
from typing import Any

import pytest
import torch

from training.inference import bands
from training.networks import Generator


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bands of 8 rows from 16 px on: of two, four and more bands, at both edges and between them."""
    monkeypatch.setattr(bands, "FROM_RESOLUTION", 16)
    monkeypatch.setattr(bands, "ROWS", 8)


def generator(**synthesis: Any) -> Any:
    torch.manual_seed(0)
    options = {"channel_base": 512, "channel_max": 20, "conv_clamp": 256, **synthesis}
    G = Generator(8, 0, 8, 64, 3, mapping_kwargs={"num_layers": 1}, synthesis_kwargs=options)
    for name, tensor in G.named_parameters():
        if name.endswith("noise_strength"):
            tensor.data.fill_(0.3)
    return G.eval().requires_grad_(False)


@pytest.mark.parametrize("synthesis", [{}, {"architecture": "orig"}, {"architecture": "resnet"}, {"base_size": [3, 4]},
                                       {"use_noise": False}])
def test_every_kind_of_network(synthesis: dict[str, Any]) -> None:
    G = generator(**synthesis)
    z = torch.randn([2, 8])
    expected = G(z, None, noise_mode="const", truncation_psi=0.5)
    actual = bands.generate(G, z, None, noise_mode="const", truncation_psi=0.5)
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= 1e-5 * expected.std()


@pytest.mark.parametrize("noise_mode", ["random", "none"])
def test_noise(noise_mode: str) -> None:
    """Random noise is the same after the same random seed."""
    G, images = generator(), []
    ws = torch.randn([2, G.num_ws, 8])
    for draw in (lambda: G.synthesis(ws, noise_mode=noise_mode), lambda: bands.synthesize(G.synthesis, ws, noise_mode)):
        torch.manual_seed(1)
        images.append(draw())
    assert (images[0] - images[1]).abs().max() <= 1e-5 * images[0].std()
    with pytest.raises(ValueError, match="noise_mode: expected 'random', 'const' or 'none', found 'all'"):
        bands.synthesize(G.synthesis, ws, "all")


def test_no_layer_of_a_large_block_is_whole() -> None:
    G, heights = generator(), []
    G.synthesis.b64.torgb.register_forward_hook(lambda module, args, output: heights.append(output.shape[2]))
    bands.synthesize(G.synthesis, torch.randn([1, G.num_ws, 8]), "const")
    assert heights == [8] * 8


def test_other_networks_are_called_as_they_are() -> None:
    calls = []

    def other(z: torch.Tensor, c: torch.Tensor, **options: Any) -> torch.Tensor:
        calls.append(options)
        return z

    z = torch.zeros([1, 8])
    assert bands.generate(other, z, z, noise_mode="const", truncation_psi=1) is z
    assert calls == [{"noise_mode": "const", "truncation_psi": 1}]
