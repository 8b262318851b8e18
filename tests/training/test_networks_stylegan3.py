"""StyleGAN3 networks: schedules, arguments, widths, precision, and what tools rely on."""
import copy
import math
from typing import Any

import pytest
import torch

from torch_utils import misc
from training import networks_stylegan3 as networks
from training.stylegan3 import widths

SCHEDULES = {  # resolution: sampling rates and channels of config T from L0 on, without the RGB layer's channels
    32: ([16] * 5 + [32] * 10, [512] * 14),
    64: ([16] * 4 + [32] * 4 + [64] * 7, [512] * 14),
    128: ([16] * 3 + [32] * 3 + [64] * 3 + [128] * 6, [512] * 10 + [456, 342, 256, 256]),
    256: ([16] * 3 + [32] * 2 + [64] * 2 + [128] * 3 + [256] * 5, [512] * 9 + [362, 256, 181, 128, 128]),
    512: ([16, 16, 32, 32, 64, 64, 128, 128, 256, 256] + [512] * 5, [512] * 7 + [483, 323, 215, 144, 96, 64, 64]),
    1024: ([16, 16, 32, 32, 64, 128, 128, 256, 256, 512] + [1024] * 5,
           [512] * 7 + [323, 203, 128, 81, 51, 32, 32]),
}
PARAMETERS = {  # config T, config R at c_dim 0
    256: (28_472_133, 18_816_387), 512: (24_873_519, 16_665_594), 1024: (22_313_167, 15_093_151),
}
R_OPTIONS = {"channel_base": 65536, "channel_max": 1024, "conv_kernel": 1, "use_radial_filters": True}


def tiny(seed: int = 0, **kwargs: Any) -> Any:
    """A small generator of 32 px whose biases, magnitudes and w_avg are not those of a new one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        options = {"z_dim": 8, "c_dim": 0, "w_dim": 8, "img_resolution": 32, "img_channels": 3, "channel_base": 256,
                   "channel_max": 8}
        G = networks.Generator(**{**options, **kwargs})
        for name, tensor in misc.named_params_and_buffers(G):
            if name.endswith("w_avg") or (name.endswith("bias") and "affine" not in name):
                tensor.data.normal_(std=0.3)
            if name.endswith("magnitude_ema"):
                tensor.fill_(1.3)
    return G.eval().requires_grad_(False)


def meta(**kwargs: Any) -> Any:
    """A generator of full size without memory for its weights."""
    with torch.device("meta"):
        return networks.Generator(**{"z_dim": 512, "c_dim": 0, "w_dim": 512, "img_channels": 3, **kwargs})


def layers_of(G: Any) -> list[Any]:
    return [G.synthesis.get_submodule(name) for name in G.synthesis.layer_names]


@pytest.mark.parametrize("resolution", SCHEDULES)
def test_schedule(resolution: int) -> None:
    G = meta(img_resolution=resolution)
    rates, channels = SCHEDULES[resolution]
    layers = layers_of(G)
    assert [layer.out_sampling_rate for layer in layers] == rates
    assert [layer.out_channels for layer in layers] == [*channels, 3]
    assert [layer.out_size[0] for layer in layers] == [rate + 20 for rate in rates[:-2]] + [resolution] * 2
    first_half = {32: 0, 64: 0, 128: 0, 256: 3, 512: 4, 1024: 5}[resolution]
    assert [layer.use_fp16 for layer in layers] == [i >= first_half for i in range(15)]
    assert G.num_ws == 16


@pytest.mark.parametrize("resolution", PARAMETERS)
def test_number_of_parameters(resolution: int) -> None:
    for options, expected in zip(({}, R_OPTIONS), PARAMETERS[resolution], strict=True):
        assert sum(p.numel() for p in meta(img_resolution=resolution, **options).parameters()) == expected


@pytest.mark.parametrize(("kernel", "paddings"), [
    (3, {"same": [9, 8, 9, 8], "double": [-6, -9, -6, -9], "last": [-11, -12, -11, -12]}),
    (1, {"same": [11, 10, 11, 10], "double": [-2, -5, -2, -5], "last": [-9, -10, -9, -10]}),
])
def test_padding(kernel: int, paddings: dict[str, list[int]]) -> None:
    layers = layers_of(meta(img_resolution=256, conv_kernel=kernel))
    assert layers[1].padding == paddings["same"]
    assert layers[3].padding == paddings["double"]
    assert layers[13].padding == paddings["last"]
    assert layers[14].padding == [0, 0, 0, 0]
    assert layers[14].up_filter is None
    assert layers[14].down_filter is None


def test_numbers_of_a_seeded_network() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        G = networks.Generator(z_dim=8, c_dim=2, w_dim=8, img_resolution=32, img_channels=3, channel_base=256,
                               channel_max=8)
    assert len(list(G.parameters())) == 69
    for tensor, expected in (
        (G.synthesis.input.freqs[0], [-0.7305, -0.7477]), (G.synthesis.input.weight[0, :2], [0.4681, -0.1577]),
        (G.synthesis.L13_32_8.weight[0, 0, 0], [0.2794, 0.6949, 0.1433]),
        (G.mapping.fc1.weight[0, :2], [-9.9405, -15.9433]),
    ):
        torch.testing.assert_close(tensor.detach(), torch.tensor(expected), atol=6e-5, rtol=0)


def test_widths_layer_by_layer() -> None:
    given = [5, 7, 6, 5, 4, 3, 7, 6, 5, 4, 3, 2, 6, 5, 4]
    G = tiny(layer_channels=given)
    assert G.synthesis.layer_names[0] == "L0_36_7"
    assert [layers_of(G)[0].in_channels, *(layer.out_channels for layer in layers_of(G)[:-1])] == given
    assert G(torch.randn(2, 8), None).shape == (2, 3, 32, 32)
    with pytest.raises(ValueError, match="layer_channels: expected 15 widths for 14 layers, found 3"):
        tiny(layer_channels=[1, 2, 3])


def test_stock_arguments_for_widths() -> None:
    G = meta(img_resolution=256)
    cutoffs = [layer.out_cutoff for layer in layers_of(G)[:-1]]
    for base, limit in ((32768, 512), (16384, 256), (9999, 77), (50, 512)):
        wanted = widths.stock_widths(cutoffs, base, limit)
        result = widths.stock_arguments(cutoffs, wanted)
        assert result is not None
        assert widths.stock_widths(cutoffs, **result) == wanted
    assert widths.width_arguments(cutoffs, [3, *[4] * 14]) == {"layer_channels": [3, *[4] * 14]}


def test_nested_options_override_flat_ones() -> None:
    G = tiny(num_fp16_res=0, conv_clamp=None, synthesis_kwargs={"num_fp16_res": 4, "conv_clamp": 7})
    assert G.synthesis.num_fp16_res == 4
    assert {layer.conv_clamp for layer in layers_of(G)} == {7}


def test_without_the_fused_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    G, z = tiny(conv_clamp=0.5, use_radial_filters=True), torch.randn(2, 8)
    expected = G(z, None)
    monkeypatch.setattr(networks, "_op", None)
    torch.testing.assert_close(G(z, None), expected, atol=1e-5, rtol=0)


def test_float64_weights_compute_in_float64() -> None:
    G, z = tiny(), torch.randn(2, 8)
    double = copy.deepcopy(G).double()(z, None)
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), G(z, None), atol=1e-5, rtol=0)


def test_a_shift_of_the_input_shifts_the_image() -> None:
    G, z = tiny(channel_max=16, channel_base=1024), torch.randn(1, 8)
    image = G(z, None)
    matrix = torch.eye(3)
    matrix[0, 2] = 4 / 32  # four pixels to the right
    G.synthesis.input.transform.copy_(torch.linalg.inv(matrix))
    moved = G(z, None)
    margin = 6
    error = (moved[..., margin:-margin, margin + 4 : -margin] - image[..., margin:-margin, margin : -margin - 4])
    assert float(error.square().mean()) < 1e-2 * float(image.square().mean())


def test_truncation_cutoff_zero_leaves_all() -> None:
    G, z = tiny(), torch.randn(2, 8)
    ws = G.mapping(z, None)
    assert torch.equal(G.mapping(z, None, truncation_psi=0.5, truncation_cutoff=0), ws)
    torch.testing.assert_close(G.mapping(z, None, truncation_psi=0.5), G.mapping.w_avg.lerp(ws, 0.5))


def test_bias_of_a_dense_layer_is_divided_by_its_learning_rate() -> None:
    layer = networks.FullyConnectedLayer(4, 2, lr_multiplier=0.5, bias_init=[1, 3])
    assert layer.bias.tolist() == [2, 6]
    assert layer(torch.zeros(1, 4)).tolist() == [[1, 3]]
    assert networks.FullyConnectedLayer(4, 2, bias=False)(torch.zeros(1, 4)).tolist() == [[0, 0]]
    assert math.isclose(layer.weight_gain, 0.25)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda G: G.synthesis(torch.zeros(1, 3, 8)), r"expected ws \[N, 16, 8\], found \[1, 3, 8\]"),
        (lambda G: G.synthesis(torch.zeros(1, 16, 8), noise_mode="loud"), "noise_mode: expected .*, found 'loud'"),
        (lambda G: layers_of(G)[0](torch.zeros(1, 8, 3, 3), torch.zeros(1, 8)),
         r"expected features \[N, 8, 36, 36\], found \[1, 8, 3, 3\]"),
        (lambda G: networks.SynthesisLayer(8, False, False, False, 4, 4, 36, 36, 12, 16, 2, 2, 6, 6),
         "sampling rate: 32 is no multiple of 12"),
    ],
)
def test_errors(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(tiny())
