"""The augmentation pipeline against reference numbers, its gates, its derivatives, and the pickles that carry it."""
import ast
import copy
import math
import pickle
import sys

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from tests.helpers import golden
from torch_utils import persistence
from torch_utils.ops import grid_sample_gradfix, upfirdn2d
from training import augment
from training.augment import AUGPIPE_PRESETS, AugmentPipe

STD_TOLERANCE = 1e-4  # of the reference's standard deviation: float32 resampling in another order of operations
SINGLE = [member for members in augment._GROUPS.values() for member in members]


def waves() -> torch.Tensor:
    """The image of the printed reference figures, [2, 3, 32, 32]."""
    n, c, y, x = np.ogrid[:2, :3, :32, :32]
    image = 0.5 * np.sin(0.2 * x + 0.35 * y + 0.9 * c + 2 * n) + 0.3 * np.cos(0.5 * x - 0.15 * y * (c + 1))
    return torch.as_tensor(image, dtype=torch.float32)


def pipe_for(name: str, p: float = 1, **kwargs) -> AugmentPipe:
    """A preset, or a single transform at full strength, at probability p."""
    pipe = AugmentPipe(**{**AUGPIPE_PRESETS.get(name, {name: 1}), **kwargs})
    pipe.p.fill_(p)
    return pipe


# Reference numbers


@pytest.mark.parametrize("key", [key for key in golden("augment") if key != "images"])
def test_reference_images(key):
    name, percentile = key.split("/")
    want = golden("augment")[key]
    images = torch.as_tensor(golden("augment")["images"])[:, : want.shape[1]]
    result = pipe_for(name.removeprefix("gray_"))(images, debug_percentile=float(percentile)).numpy()
    assert np.abs(result - want).max() <= STD_TOLERANCE * want.std()


@pytest.mark.parametrize(
    ("name", "percentile", "kwargs", "mean", "std", "first", "second"),
    [
        ("xflip", 0.8, {}, 0.005469, 0.412471, [-0.336296, -0.361394, -0.338137], [0.366516, 0.572814, 0.720851]),
        ("rotate90", 0.3, {}, 0.005469, 0.412471, [-0.336296, -0.149892, 0.027060], [0.144875, 0.064844, -0.043468]),
        ("rotate90", 0.8, {}, 0.005599, 0.412254, [-0.513583, -0.497499, -0.430658], [0.527632, 0.555779, 0.504711]),
        ("xint", 0.3, {}, 0.009210, 0.409262, [0.675056, 0.590486, 0.460094], [0.268224, 0.209615, 0.202099]),
        ("scale", 0.8, {}, 0.007929, 0.409808, [0.593706, 0.570784, 0.503197], [-0.167782, -0.112579, -0.002388]),
        ("rotate", 0.3, {}, -0.014876, 0.406268, [-0.195293, -0.003712, 0.177450], [0.460792, 0.657221, 0.732028]),
        ("aniso", 0.8, {}, 0.006919, 0.411578, [0.608679, 0.585049, 0.515733], [0.016134, 0.019792, 0.071074]),
        ("xfrac", 0.3, {}, 0.008548, 0.409413, [0.640881, 0.590310, 0.493698], [0.221293, 0.186653, 0.203488]),
        ("brightness", 0.8, {}, 0.124566, 0.412279, [0.419023, 0.481633, 0.475823], [0.038685, 0.048170, 0.118062]),
        ("contrast", 0.8, {}, 0.006813, 0.506716, [0.368719, 0.445670, 0.438529], [-0.098741, -0.087083, -0.001181]),
        ("lumaflip", 0.8, {}, -0.005543, 0.412279, [-0.885725, -0.830331, -0.687872], [0.487765, 0.437369, 0.391865]),
        ("hue", 0.3, {}, 0.005543, 0.412279, [0.450056, 0.519237, 0.513754], [-0.483491, -0.619395, -0.643951]),
        ("saturation", 0.8, {}, 0.005543, 0.532040, [0.150466, 0.243201, 0.272278], [0.023677, 0.022717, 0.098836]),
        (
            *("imgfilter", 0.8, {"imgfilter_bands": [1, 0, 0, 0]}),
            *(0.006827, 0.385323, [0.469902, 0.516276, 0.502923], [-0.016220, 0.021810, 0.095851]),
        ),
        (
            *("imgfilter", 0.8, {"imgfilter_bands": [0, 1, 0, 0]}),
            *(0.004958, 0.484471, [0.215442, 0.274236, 0.266392], [-0.177610, -0.208335, -0.139418]),
        ),
        (
            *("imgfilter", 0.8, {"imgfilter_bands": [0, 0, 0, 1]}),
            *(0.004869, 0.377087, [0.225408, 0.301574, 0.292240], [-0.074607, -0.066552, -0.002948]),
        ),
        ("cutout", 0.3, {}, -0.001908, 0.357516, None, [-0.080338, -0.070853, -0.000961]),
        ("bg", 0.3, {}, -0.002080, 0.409984, [0.385179, 0.250632, 0.181854], [0.466173, 0.570730, 0.606236]),
        ("bgc", 0.3, {}, -0.067047, 0.318721, [0.378224, 0.243595, 0.157308], [0.085381, 0.074833, 0.031009]),
        ("bgc", 0.8, {}, -0.169916, 0.648248, [-1.065016, -0.827632, -0.520962], [0.298259, 0.455878, 0.447839]),
        ("bgcf", 0.8, {}, -0.147234, 0.561713, [-0.922845, -0.717150, -0.451418], [0.258444, 0.395022, 0.388056]),
    ],
)
def test_printed_reference_figures(name, percentile, kwargs, mean, std, first, second):
    images = waves()
    result = pipe_for(name, **kwargs)(images, debug_percentile=percentile)
    first = images[0, 0, 0, :3].tolist() if first is None else first
    assert_figures(result, mean, std, first, second)


def test_random_draws_come_in_the_reference_order():
    torch.manual_seed(5)
    result = pipe_for("bgcfnc", p=0.7)(waves())
    assert_figures(result, 0.013520, 0.722997, [-0.464393, -0.460117, -0.366494], [-0.275940, -1.019992, -1.566883])


def assert_figures(result: torch.Tensor, mean: float, std: float, first: list[float], second: list[float]) -> None:
    values = [result.mean().item(), result.std(unbiased=False).item(), *result[0, 0, 0, :3].tolist()]
    values += result[1, 2, 20, 10:13].tolist()
    assert values == pytest.approx([mean, std, *first, *second], abs=STD_TOLERANCE * std)


def test_noise_is_a_half_normal_amplitude_times_white_noise():
    images, q = waves(), 0.8
    torch.manual_seed(1)
    torch.randn([2, 1]), torch.rand([2, 1])
    white = torch.randn(images.shape)
    torch.manual_seed(1)
    result = pipe_for("noise", noise_std=0.3)(images, debug_percentile=q)
    amplitude = 0.3 * torch.erfinv(torch.tensor(q)).item()
    assert torch.allclose(result, images + amplitude * white, atol=1e-6)


def test_noise_amplitudes_have_the_standard_deviation_asked_for():
    torch.manual_seed(0)
    result = pipe_for("noise")(torch.zeros([4000, 1, 8, 8]))
    amplitudes = result.square().mean(dim=[1, 2, 3])  # expectation: std², over the half-normal distribution
    assert amplitudes.mean().sqrt().item() == pytest.approx(0.1, rel=0.03)


# Filters


def test_geometry_filter_is_an_orthonormal_wavelet():
    taps = torch.as_tensor(augment._SYM6, dtype=torch.float64)
    assert taps.sum().item() == pytest.approx(math.sqrt(2), abs=1e-11)
    for shift in range(0, 12, 2):
        assert (taps[shift:] * taps[: 12 - shift]).sum().item() == pytest.approx(float(shift == 0), abs=1e-11)
    assert AugmentPipe().Hz_geom.tolist() == pytest.approx(
        [
            *[0.010892, 0.002468, -0.083432, -0.034162, 0.347229, 0.556946],
            *[0.238952, -0.051362, -0.014892, 0.031625, 0.001250, -0.005516],
        ],
        abs=1e-6,
    )


def test_octave_filters():
    bank = AugmentPipe().Hz_fbank
    assert bank.shape == (4, 43)
    assert torch.allclose(bank, bank.flip(1), atol=1e-7)
    assert torch.allclose(bank.sum(dim=1), torch.tensor([1.0, 0, 0, 0]), atol=1e-6)
    assert torch.allclose(bank.sum(dim=0), torch.eye(43)[21], atol=1e-6)
    assert bank[0, 21:25].tolist() == pytest.approx([0.125, 0.118652344, 0.10546875, 0.089050293], abs=1e-7)
    assert bank[1, 21:25].tolist() == pytest.approx([0.125, 0.092285156, 0.03515625, -0.024597168], abs=1e-7)
    assert bank[2, 21:26].tolist() == pytest.approx([0.25, 0.0703125, -0.140625, -0.095703125, 0], abs=1e-7)
    assert bank[3, 21:26].tolist() == pytest.approx([0.5, -0.28125, 0, 0.03125, 0], abs=1e-7)


@pytest.mark.parametrize("size", [1, 2, 8, 21, 22, 40])
def test_filtering_by_matrix_is_filtering_the_mirrored_image(size):
    taps = torch.randn([2, 21], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    taps = torch.cat([taps, torch.ones(2, 1, dtype=taps.dtype), taps.flip(1)], dim=1)  # 43, symmetric
    row = torch.randn([size], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mirrored = np.pad(row.numpy(), 21, mode="reflect") if size > 1 else np.repeat(row.numpy(), 43)
    for filtered, f in zip(row @ augment._filter_matrices(taps, size), taps, strict=True):
        want = np.convolve(mirrored, f.numpy(), mode="valid")
        assert np.allclose(filtered.numpy(), want, atol=1e-12)


# Gates


@pytest.mark.parametrize("preset", AUGPIPE_PRESETS)
def test_nothing_happens_at_probability_zero(preset):
    images = waves()
    result = pipe_for(preset, p=0)(images)
    assert torch.allclose(result, images, atol=1e-6)


@pytest.mark.parametrize("preset", AUGPIPE_PRESETS)
def test_something_happens_at_probability_one(preset):
    torch.manual_seed(0)
    images = waves()[:1].repeat(4, 1, 1, 1)
    result = pipe_for(preset)(images)
    assert result.shape == images.shape
    assert result.isfinite().all()
    assert len({tuple(image.flatten().tolist()) for image in result}) > 1  # images are treated on their own


@pytest.mark.parametrize(("p", "multiplier"), [(0.3, 1), (0.6, 0.5)])
def test_gates_open_with_probability_multiplier_times_p(p, multiplier):
    torch.manual_seed(0)
    images = torch.zeros([3000, 1, 4, 4])
    result = pipe_for("brightness", p=p, brightness=multiplier)(images)
    share = (result[:, 0, 0, 0] != 0).float().mean().item()
    assert share == pytest.approx(p * multiplier, abs=0.03)


def test_either_rotation_happens_with_probability_p():
    torch.manual_seed(0)
    draws = augment._Draws(4000, torch.device("cpu"), None)
    matrices = pipe_for("rotate", p=0.5)._matrices(augment._GEOMETRY, torch.zeros([4000, 1, 4, 4]), draws)
    turned = torch.stack([(m != torch.eye(3)).flatten(1).any(1) for m in matrices])
    assert turned.shape == (2, 4000)
    assert turned.float().mean(dim=1).tolist() == pytest.approx([1 - math.sqrt(0.5)] * 2, abs=0.03)
    assert turned.any(dim=0).float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_images_that_nothing_moves_are_left_out_without_a_difference(monkeypatch):
    images = torch.cat([waves(), waves().flip(3)])
    pipe = pipe_for("bgcf", p=0.15)
    torch.manual_seed(3)
    fast = pipe(images)
    monkeypatch.setattr(augment, "_on_active", lambda images, active, transform: transform(images, slice(None)))
    torch.manual_seed(3)
    assert torch.allclose(fast, pipe(images), atol=1e-6)


def test_a_disabled_pipe_returns_its_input():
    images = waves()
    before = torch.get_rng_state()
    assert AugmentPipe()(images) is images
    assert torch.equal(before, torch.get_rng_state())  # and draws nothing


# Presets, shapes, arguments


def test_presets():
    assert list(AUGPIPE_PRESETS) == [
        *["blit", "geom", "color", "filter", "noise", "cutout"],
        *["bg", "bgc", "bgcf", "bgcfn", "bgcfnc"],
    ]
    assert AUGPIPE_PRESETS["blit"] == {"xflip": 1, "rotate90": 1, "xint": 1}
    assert AUGPIPE_PRESETS["bg"] == {**AUGPIPE_PRESETS["blit"], **AUGPIPE_PRESETS["geom"]}
    assert AUGPIPE_PRESETS["bgc"] == {**AUGPIPE_PRESETS["bg"], **AUGPIPE_PRESETS["color"]}
    assert len(AUGPIPE_PRESETS["bgcfnc"]) == len(SINGLE) == 15


@pytest.mark.parametrize(
    "shape", [(1, 3, 8, 8), (3, 1, 16, 16), (2, 3, 20, 20), (2, 3, 64, 64), (2, 1, 33, 33), (2, 3, 12, 24)]
)
def test_any_size_of_grey_and_colour_images(shape):
    torch.manual_seed(0)
    result = pipe_for("bgcfnc")(torch.randn(shape))
    assert result.shape == shape
    assert result.isfinite().all()


def test_grey_images_get_the_mean_of_the_colour_map():
    grey = waves()[:, :1]
    names = {"brightness": 1, "contrast": 1, "lumaflip": 1}
    coloured = AugmentPipe(**names)(grey.repeat(1, 3, 1, 1), debug_percentile=0.8)
    result = AugmentPipe(**names, hue=1, saturation=1)(grey, debug_percentile=0.8)
    assert torch.allclose(result, coloured.mean(dim=1, keepdim=True), atol=1e-6)


def test_whole_pixel_shifts_move_the_mirrored_image():
    images = waves()
    mirrored = torch.nn.functional.pad(images, [2, 0, 2, 0], mode="reflect")
    result = pipe_for("xint")(images, debug_percentile=0.8)  # round(0.6 * 0.125 * 32) = 2 pixels right and down
    assert torch.allclose(result, mirrored[:, :, :-2, :-2], atol=1e-5)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"expected images \[N, C, H, W\], found shape \(3, 8, 8\)"):
        AugmentPipe()(torch.zeros([3, 8, 8]))
    with pytest.raises(ValueError, match="images of 1 or 3 channels, found 4"):
        pipe_for("color")(torch.zeros([1, 4, 8, 8]))
    assert pipe_for("blit")(torch.zeros([1, 4, 8, 8])).shape == (1, 4, 8, 8)


# Derivatives


@pytest.fixture(params=["torch", "own"])
def each_grid_sample(request, monkeypatch):
    if request.param == "torch" and not grid_sample_gradfix._torch_differentiates_twice("cpu"):
        pytest.skip("this PyTorch has no second derivative of grid_sample")
    monkeypatch.setattr(grid_sample_gradfix, "implementation", request.param)


@pytest.mark.usefixtures("each_grid_sample")
@pytest.mark.parametrize(("preset", "channels", "p"), [("bgcfnc", 1, 1), ("bgc", 3, 0.3)])
def test_first_and_second_derivatives(preset, channels, p):
    rng = torch.Generator().manual_seed(0)
    images = torch.randn([2, channels, 4, 4], generator=rng, dtype=torch.float64, requires_grad=True)
    pipe = pipe_for(preset, p=p)

    def same_draws(images):
        torch.manual_seed(4)  # at p = 0.3 this moves one image of two
        return pipe(images)

    assert gradcheck(same_draws, [images])
    assert gradgradcheck(lambda images: same_draws(images).pow(3), [images], fast_mode=True)


@pytest.mark.usefixtures("each_grid_sample")
def test_r1_through_the_pipeline():
    """For D(y) = sum of w*y the gradient is the adjoint of a linear map, and R1 its squared norm."""
    images = waves().requires_grad_()
    weight = torch.randn(images.shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    torch.manual_seed(4)
    logits = (pipe_for("bgc")(images) * weight).sum()
    (slope,) = torch.autograd.grad(logits, images, create_graph=True)
    r1 = slope.square().sum()
    (dw,) = torch.autograd.grad(r1, weight)
    # r1 is quadratic in w: Euler's theorem gives its value from its gradient.
    assert (dw * weight).sum().item() == pytest.approx(2 * r1.item(), rel=1e-4)


# State and pickles


def test_attributes_are_those_of_the_file_format():
    pipe = AugmentPipe(xflip=1, imgfilter_bands=(1, 0.5, 0, 1))
    module_fields = set(torch.nn.Module().__dict__)
    assert [name for name in vars(pipe) if name not in module_fields] == [
        *["xflip", "rotate90", "xint", "xint_max", "scale", "rotate", "aniso", "xfrac"],
        *["scale_std", "rotate_max", "aniso_std", "xfrac_std"],
        *["brightness", "contrast", "lumaflip", "hue", "saturation"],
        *["brightness_std", "contrast_std", "hue_max", "saturation_std"],
        *["imgfilter", "imgfilter_bands", "imgfilter_std"],
        *["noise", "cutout", "noise_std", "cutout_size"],
        *["_init_args", "_init_kwargs"],
    ]
    assert pipe.imgfilter_bands == [1, 0.5, 0, 1]
    assert all(type(vars(pipe)[name]) is float for name in SINGLE)
    assert {name: buffer.shape for name, buffer in pipe.named_buffers()} == {
        "p": (),
        "Hz_geom": (12,),
        "Hz_fbank": (4, 43),
    }
    assert list(pipe.parameters()) == []
    assert pipe.p.item() == 1
    assert dict(pipe.init_kwargs) == {"xflip": 1, "imgfilter_bands": (1, 0.5, 0, 1)}


def seeded(pipe: torch.nn.Module) -> torch.Tensor:
    torch.manual_seed(6)
    return pipe(waves())


def test_pickle_round_trip():
    pipe = pipe_for("bgcfnc", p=0.4)
    copied = pickle.loads(pickle.dumps(pipe))
    assert torch.equal(seeded(copied), seeded(pipe))
    assert torch.equal(seeded(copy.deepcopy(pipe)), seeded(pipe))


def test_the_embedded_text_runs_on_its_own():
    """As in a tree that has other code of its own: the text is executed, not looked up."""
    pipe = pipe_for("bgcfnc", p=0.4)
    ours = pickle.dumps(pipe)
    foreign = ours.replace(b'"""The adaptive', b'"""The ADAPTIVE')  # unknown text of the same length
    assert foreign != ours
    with persistence.trusted():
        loaded = pickle.loads(foreign)
    assert type(loaded) is not type(pipe)
    assert torch.equal(seeded(loaded), seeded(pipe))


def test_the_embedded_text_imports_only_what_every_tree_has():
    imported = set()
    for node in ast.walk(ast.parse(type(AugmentPipe())._orig_module_src)):
        if isinstance(node, ast.Import):
            imported |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {f"{node.module}.{name.name}" for name in node.names}
    assert {name for name in imported if name.split(".")[0] not in sys.stdlib_module_names} == {
        *["numpy", "torch", "torch.nn.functional", "torch_utils.misc", "torch_utils.persistence"],
        *["torch_utils.ops.grid_sample_gradfix", "torch_utils.ops.upfirdn2d"],
    }


def test_resampling_without_motion_is_the_identity():
    """Why images that do not move may skip it: the two filters are each other's inverse."""
    images = waves()
    pipe = AugmentPipe()
    still = torch.eye(3).expand(2, 3, 3)
    margins = augment._margins(still, 32, 32, 6)
    assert margins == (6, 6, 6, 6)
    assert torch.allclose(augment._warp(images, still, margins, pipe.Hz_geom), images, atol=1e-5)
    up = upfirdn2d.upsample2d(images, pipe.Hz_geom)
    again = upfirdn2d.downsample2d(up, pipe.Hz_geom, flip_filter=True)
    assert torch.allclose(again[:, :, 6:-6, 6:-6], images[:, :, 6:-6, 6:-6], atol=1e-5)


def test_margins_stop_at_one_mirror_image():
    far = torch.tensor([[[4.0, 0, 0], [0, 1, 3], [0, 0, 1]]])  # four times as wide, three pixels down
    assert augment._margins(far, 32, 16, 6) == (31, 31, 3, 9)
