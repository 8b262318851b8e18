"""Winograd's convolution against torch's in float64: error, where it is used, and the networks that use it."""
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from dnnlib.errors import UserError
from torch_utils.ops import (
    conv2d_resample,
    cpu_build,
    cpu_kernels,
    registry,
    settings,
    up_convolution,
    upfirdn2d,
    winograd,
)
from training import networks

pytestmark = pytest.mark.skipif(
    cpu_kernels.library()[0] is None, reason=f"no native CPU kernels here: {cpu_kernels.library()[1]}"
)
TOLERANCE = 3e-5  # of the standard deviation, for the largest difference; direct convolution has 2e-6
LAST = torch.channels_last


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the images that the kernels transform."""
    shapes = []
    original = cpu_kernels.winograd_convolve

    def counted(x: torch.Tensor, *args: Any) -> torch.Tensor:
        shapes.append(tuple(x.shape))
        return original(x, *args)

    monkeypatch.setattr(cpu_kernels, "winograd_convolve", counted)
    return shapes


@pytest.mark.parametrize(
    ("n", "c", "o", "h", "w"),
    [(1, 128, 128, 32, 32), (2, 128, 160, 33, 38), (1, 130, 129, 35, 70), (1, 3, 5, 1, 1), (1, 17, 2, 6, 3),
     (1, 260, 128, 68, 67)],
)  # fmt: skip
@pytest.mark.parametrize("layout", [torch.contiguous_format, LAST])
def test_equals_direct_convolution(n: int, c: int, o: int, h: int, w: int, layout: torch.memory_format) -> None:
    x = randn(n, c, h, w).contiguous(memory_format=LAST)
    weights = randn(o, c, 3, 3, seed=1).contiguous(memory_format=layout)
    expected = F.conv2d(x.double(), weights.double(), padding=1)
    y = winograd.CONV3X3.cpu(x, weights)  # type: ignore[misc]
    assert y.is_contiguous(memory_format=LAST)
    assert y.dtype == torch.float32
    assert (y - expected).abs().max() <= TOLERANCE * (9 * c) ** 0.5


def test_small_whole_numbers_are_exact_to_rounding() -> None:
    """One tap at a time moves the image by a pixel."""
    x = torch.arange(8 * 9.0).reshape(1, 1, 8, 9).contiguous(memory_format=LAST)
    for ky in range(3):
        for kx in range(3):
            w = torch.zeros(1, 1, 3, 3)
            w[0, 0, ky, kx] = 1
            moved = F.pad(x, [1, 1, 1, 1])[:, :, ky : ky + 8, kx : kx + 9]
            torch.testing.assert_close(winograd.CONV3X3.cpu(x, w), moved, rtol=0, atol=1e-4)  # type: ignore[misc]


def layer(n: int, c: int, o: int, h: int, w: int, up: int = 1) -> tuple[dict[str, Any], torch.Tensor]:
    """The arguments of a whole layer, and what it gives by the definition, in float64."""
    x = randn(n, c, h, w).contiguous(memory_format=LAST)
    weights, styles, scale, b = randn(o, c, 3, 3, seed=1), randn(n, c, seed=2), randn(n, o, seed=3), randn(o, seed=4)
    noise, f = randn(n, 1, h * up, w * up, seed=5), upfirdn2d.setup_filter([1, 3, 3, 1])
    scaled = x.double() * styles.double()[:, :, None, None]
    y = conv2d_resample.conv2d_resample(
        scaled.contiguous(), weights.double(), f, up, padding=1, flip_weight=up == 1) * scale[:, :, None, None]
    y = F.leaky_relu(y + noise + b[:, None, None], 0.2) * 1.3
    names = {"w": weights, "f": f, "up": up, "padding": 1, "flip_weight": up == 1, "styles": styles, "scale": scale,
             "noise": noise, "b": b, "act": "lrelu", "gain": 1.3, "clamp": 40.0}  # fmt: skip
    return {"x": x, **names}, y.clamp(-40, 40)


@pytest.mark.parametrize("shape", [(1, 64, 80, 33, 38), (2, 130, 96, 32, 35)])
def test_a_whole_layer_is_one_pass(shape: tuple[int, ...], calls: list[tuple[int, ...]]) -> None:
    arguments, expected = layer(*shape)
    y = conv2d_resample.scaled_conv2d(**arguments)
    assert len(calls) == 1
    assert (y - expected).abs().max() <= TOLERANCE * 10 * expected.std()
    with_graph = conv2d_resample.scaled_conv2d(**{**arguments, "w": arguments["w"].requires_grad_()})
    torch.testing.assert_close(with_graph.detach(), y, rtol=1e-3, atol=1e-2)


UP_SHAPES = [(1, 6, 5, 9, 8), (3, 3, 7, 40, 4), (2, 1, 2, 1, 1), (1, 20, 40, 33, 70), (2, 260, 50, 17, 16)]


@pytest.mark.parametrize("shape", UP_SHAPES)
def test_up_convolution_filter_and_the_rest(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, expected = layer(*shape, up=2)
    assert up_convolution.UP_CONVOLUTION.compiled(arguments["x"], arguments["w"], arguments["f"]) is not None
    monkeypatch.setattr(settings, "conv", "direct")
    y = conv2d_resample.scaled_conv2d(**arguments)
    assert y.is_contiguous(memory_format=LAST)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=2e-5 * shape[1] ** 0.5)
    monkeypatch.setattr(cpu_kernels, "enabled", False)
    again = conv2d_resample.scaled_conv2d(**arguments).double()
    torch.testing.assert_close(again, expected, rtol=1e-5, atol=2e-5 * shape[1] ** 0.5)


@pytest.fixture
def up_calls(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the kernels for large up-convolutions computed it, for each that they were given."""
    results = []
    original = cpu_kernels.winograd_up_convolve

    def noted(*args: Any) -> bool:
        results.append(original(*args))
        return results[-1]

    monkeypatch.setattr(cpu_kernels, "winograd_up_convolve", noted)
    return results


@pytest.mark.parametrize("shape", UP_SHAPES)
def test_large_up_convolutions(shape: tuple[int, ...], up_calls: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """Borders, remainders of tiles and channels; each number of threads gives the same bits."""
    monkeypatch.setattr(up_convolution, "is_large", lambda x, w: True)
    arguments, expected = layer(*shape, up=2)
    results = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(cpu_build, "threads", lambda threads=threads: threads)
        results.append(conv2d_resample.scaled_conv2d(**arguments))
    assert up_calls == [True] * 3
    assert (results[0] - expected).abs().max() <= TOLERANCE * 10 * expected.std()
    assert all(torch.equal(result, results[0]) for result in results)
    assert results[0].is_contiguous(memory_format=LAST)


def test_filters_of_large_up_convolutions(up_calls: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is not symmetric, one that is no product of two lines, and one of another size."""
    monkeypatch.setattr(up_convolution, "is_large", lambda x, w: True)
    arguments, _ = layer(1, 17, 18, 11, 9, up=2)
    whole = torch.rand(4, 4, generator=torch.Generator().manual_seed(3))
    for f in (upfirdn2d.setup_filter([1, 2, 5, 1]), whole, upfirdn2d.setup_filter([1, 2, 3, 3, 2, 1])):
        y = conv2d_resample.scaled_conv2d(**{**arguments, "f": f, "clamp": None})
        plain = up_convolution.UP_CONVOLUTION.plain
        names = ("x", "w", "styles", "scale", "noise", "b")
        x, w, *others = (arguments[name].double() for name in names)
        expected = plain(x, w, f, *others, 0.2, 1.3, None)
        torch.testing.assert_close(y.double(), expected, rtol=1e-4, atol=1e-3)
    assert up_calls == [True, False]


def test_which_up_convolutions_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    channels, tiles = up_convolution.MIN_CHANNELS, up_convolution.MIN_TILES
    w = torch.empty(channels, channels, 3, 3)
    x = torch.empty(1, channels, 4, 4 * tiles)
    assert up_convolution.is_large(x, w)
    assert not up_convolution.is_large(x[:, :, :, :-4], w)
    assert not up_convolution.is_large(x, w[1:])
    assert not up_convolution.is_large(x, w[:, 1:])
    monkeypatch.setattr(settings, "conv", "direct")
    assert not up_convolution.is_large(x, w)


def conv(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return conv2d_resample.conv2d_resample(x, w, padding=1)


def test_it_is_used_where_it_is_faster(calls: list[tuple[int, ...]]) -> None:
    x, w = randn(2, 128, 32, 32).contiguous(memory_format=LAST), randn(128, 128, 3, 3, seed=1)
    conv(x, w)
    assert calls == [(2, 128, 32, 32)]
    calls.clear()
    conv(x.contiguous(), w)  # planes
    conv(x[:1, :, :12, :20].contiguous(memory_format=LAST), w)  # few tiles
    conv(x, w[:15])  # few channels
    conv(x[:, :15].contiguous(memory_format=LAST), w[:, :15])
    conv(x, w[:, :, :1, :1])
    conv2d_resample.conv2d_resample(x, w, down=2, padding=1)
    conv(x.double(), w.double())
    assert calls == []


def test_gradients(calls: list[tuple[int, ...]]) -> None:
    """Those of the input are such convolutions, outputs with a graph are not; two orders against float64."""
    x, w = randn(2, 33, 16, 20).contiguous(memory_format=LAST), randn(40, 33, 3, 3, seed=1)
    results = []
    for dtype in (torch.float32, torch.float64):
        a, b = (t.to(dtype).detach().requires_grad_() for t in (x, w))
        y = conv(a, b)
        assert dtype == torch.float64 or calls == []
        first = torch.autograd.grad(y.square().mean(), [a, b], create_graph=True)
        second = torch.autograd.grad(first[0].square().mean() + first[1].square().mean(), [a, b])
        once = torch.autograd.grad(conv(a, b).square().mean(), [a, b])
        results.append([y, *first, *second, *once])
    assert len(calls) >= 2
    for actual, expected in zip(*results):
        assert (actual - expected).abs().max() <= 1e-4 * expected.std()


def test_sg_conv(calls: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = randn(1, 128, 32, 32).contiguous(memory_format=LAST), randn(128, 128, 3, 3, seed=1)
    monkeypatch.setattr(settings, "conv", "direct")
    assert torch.equal(conv(x, w), F.conv2d(x, w, padding=1))
    assert calls == []
    monkeypatch.setattr(settings, "conv", "fast")
    with pytest.raises(UserError, match=r"^environment variable SG_CONV: expected auto or direct, found 'fast'$"):
        conv(x, w)


def test_changed_weights_are_used() -> None:
    x, w = randn(1, 128, 32, 32).contiguous(memory_format=LAST), randn(128, 128, 3, 3, seed=1)
    before = conv(x, w)
    w.data.mul_(2)
    torch.testing.assert_close(conv(x, w), before * 2, rtol=1e-5, atol=1e-2)


@torch.no_grad()
@pytest.mark.parametrize("num", [1, 2])
def test_images_and_logits_are_the_same(
    num: int, calls: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    widths = {"channel_base": 8192, "channel_max": 128, "conv_clamp": 256}
    G = networks.Generator(16, 0, 16, 64, 3, mapping_kwargs={"num_layers": 2}, synthesis_kwargs=widths).eval()
    D = networks.Discriminator(0, 64, 3, **widths).eval()
    ws = G.mapping(randn(num, 16), None)
    images = G.synthesis(ws, noise_mode="const")
    logits = D(images, None)
    sides = {shape[2] for shape in calls}
    assert sides == {16, 32, 64}
    calls.clear()
    monkeypatch.setattr(settings, "conv", "direct")
    direct = G.synthesis(ws, noise_mode="const")
    assert calls == []
    assert (images - direct).abs().max() <= 1e-4 * direct.std()
    torch.testing.assert_close(logits, D(direct, None), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_an_image_of_1024_pixels(calls: list[tuple[int, ...]], up_calls: list[bool],
                                 monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of all resolutions add up to less than 1e-4 of the image's standard deviation, at most."""
    torch.manual_seed(0)
    widths = {"channel_base": 1024 * winograd.MIN_CHANNELS, "channel_max": winograd.MIN_CHANNELS}
    G = networks.Generator(16, 0, 16, 1024, 3, mapping_kwargs={"num_layers": 2}, synthesis_kwargs=widths).eval()
    for name, tensor in G.named_parameters():
        if name.endswith("noise_strength"):
            tensor.fill_(0.1)
    ws = G.mapping(randn(1, 16), None)
    image = G.synthesis(ws, noise_mode="const")
    assert {shape[2] for shape in calls} == {16, 32, 64, 128, 256, 512, 1024}
    assert up_calls == [True] * 5  # from 64 px on
    monkeypatch.setattr(settings, "conv", "direct")
    direct = G.synthesis(ws, noise_mode="const")
    assert (image - direct).abs().max() <= 1e-4 * direct.std()


def test_its_row_in_the_table() -> None:
    assert registry.operations()["conv3x3"] is winograd.CONV3X3
