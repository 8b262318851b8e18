"""Refit of StyleGAN2 slices: the linear systems, the fits, and what they do for whole networks."""
import copy
from fractions import Fraction
from typing import Any

import pytest
import torch

from dgl import prune
from dgl.architectures import plan_of
from dgl.refit import RefitOptions, Report, applies, generator, images_of, refit_network, rows, solve, walk
from dgl.student import Cut, slice_student
from dgl.teacher import Teacher
from dnnlib.errors import UserError
from tests import tiny
from tests.dgl.test_prune import random_keep, silence
from torch_utils.ops import conv2d_resample, upfirdn2d
from training import networks_stylegan3
from training.networks import Conv2dLayer, SynthesisLayer, modulated_conv2d

OPTIONS = RefitOptions(num_latents=16)
GENERATORS = [
    pytest.param({"architecture": architecture, "c_dim": c_dim}, id=f"{architecture}-{c_dim}")
    for architecture in ("skip", "resnet", "orig") for c_dim in (0, 3)
] + [
    pytest.param({"resolution": 4}, id="4px"),
    pytest.param({"channels": 1, "use_noise": False, "resolution": 8}, id="grey-without-noise"),
    pytest.param({"layer_channels": [5, 9, 7, 12, 3, 8]}, id="uneven"),
    pytest.param({"activation": "swish"}, id="swish"),
]
DISCRIMINATORS = [
    pytest.param({"architecture": architecture, "c_dim": c_dim}, id=f"{architecture}-{c_dim}")
    for architecture in ("skip", "resnet", "orig") for c_dim in (0, 3)
] + [
    pytest.param({"channels": 1, "resolution": 8}, id="grey"),
    pytest.param({"block_kwargs": {"freeze_layers": 3}}, id="frozen"),
    pytest.param({"epilogue_kwargs": {"mbstd_num_channels": 0}}, id="without-mbstd"),
    pytest.param({"epilogue_kwargs": {"mbstd_group_size": None}}, id="one-group"),
]


def tiny_stylegan3() -> Any:
    """A generator whose class has the name of StyleGAN2's."""
    return networks_stylegan3.Generator(
        z_dim=8, c_dim=0, w_dim=8, img_resolution=16, img_channels=3,
        synthesis_kwargs={"channel_base": 128, "channel_max": 8, "num_layers": 4},
    ).eval().requires_grad_(False)  # fmt: skip


def half(network: Any, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random halves of all sets."""
    plan = plan_of(network)
    random = torch.Generator().manual_seed(seed)
    kept = plan.scaled(Fraction(1, 2))
    return {name: torch.randperm(size, generator=random)[: kept[name]].sort().values
            for name, size in plan.sets.items()}


def refitted(network: Any, keep: dict[str, torch.Tensor], options: RefitOptions = OPTIONS) -> tuple[Any, Report]:
    """The refitted slice of a generator or discriminator."""
    narrow = prune.slice_network(network, keep)
    images = None
    if not hasattr(network, "z_dim"):
        images = images_of(tiny.tiny_generator(resolution=network.img_resolution, channels=network.img_channels), 3)
    report = refit_network("net", network, narrow, keep, options, images)
    assert report is not None
    return narrow, report


@pytest.mark.parametrize(("kernel", "up", "down", "padding"),
                         [(3, 1, 1, 1), (3, 2, 1, 1), (3, 1, 2, 1), (1, 1, 1, 0), (1, 2, 1, 0), (1, 1, 2, 0)])
@pytest.mark.parametrize("taps", [[1, 3, 3, 1], [1, 2, 1]])
def test_patches_times_weights_are_the_convolution_borders_included(
    kernel: int, up: int, down: int, padding: int, taps: list[int]
) -> None:
    torch.manual_seed(0)
    layer = Conv2dLayer(5, 4, kernel, up=up, down=down, resample_filter=taps).double()
    layer.resample_filter = layer.resample_filter.float()
    assert layer.padding == padding
    x = torch.randn([2, 5, 6, 6], dtype=torch.float64)
    expected = conv2d_resample.conv2d_resample(
        x, layer.weight, upfirdn2d.setup_filter(taps), up, down, padding, flip_weight=up == 1
    )
    positions = torch.arange(expected[0, 0].numel()).repeat(2, 1)
    actual = rows.patches(x, layer, positions) @ rows.weight_matrix(layer).t()
    assert torch.allclose(actual, rows.gather(expected, positions), rtol=1e-12, atol=1e-12)
    some = torch.tensor([[0, 7, 3], [8, 5, 0]])
    assert torch.equal(rows.patches(x, layer, some)[1, 1], rows.patches(x, layer, positions)[1, 5])
    before = layer.weight.clone()
    with torch.no_grad():
        rows.set_weight(layer, rows.weight_matrix(layer).clone())
    assert torch.equal(layer.weight, before)


def test_positions_are_enough_for_the_unknowns() -> None:
    layer = Conv2dLayer(200, 4, 3)
    random = torch.Generator().manual_seed(0)
    places = rows.Places(images=100, size=1000, layer=layer, max_rows=10**6, generator=random)(7)
    assert places.shape == (7, 8 * 1800 // 100)
    assert 0 <= int(places.min()) < int(places.max()) < 1000
    assert rows.Places(100, 1000, layer, 900, random)(7).shape == (7, 9)
    some = rows.Places(100, 16, layer, 900, random)(2)
    assert [len(set(row)) for row in some.tolist()] == [9, 9]
    assert torch.equal(rows.Places(10, 16, layer, 900, random)(2), torch.arange(16).repeat(2, 1))


def test_linear_solves_the_normal_equations_of_the_ridge() -> None:
    random = torch.Generator().manual_seed(0)
    u, y, w0 = (torch.randn(shape, generator=random, dtype=torch.float64) for shape in ([50, 6], [50, 3], [3, 6]))
    b0, ridge = torch.randn([3], generator=random, dtype=torch.float64), torch.arange(1, 7).double() / 10
    fit = solve.linear(u, y, w0, b0, ridge)
    assert fit.bias is not None
    residual = y - u @ fit.weight.t() - fit.bias
    gradient = -residual.t() @ u / 50 + (fit.weight - w0) * ridge  # of half the mean square and half the ridge
    assert gradient.abs().max() < 1e-8
    assert residual.mean(dim=0).abs().max() < 1e-8
    assert fit.after < fit.before
    variance = (y - y.mean(dim=0)).square().mean()
    assert fit.after == pytest.approx(float(residual.square().mean() / variance))


def test_demodulated_finds_weights_that_explain_everything() -> None:
    random = torch.Generator().manual_seed(0)
    x, true = torch.randn([8, 4, 5, 5], generator=random).double(), torch.randn([6, 4, 3, 3], generator=random).double()
    styles = 1 + 0.3 * torch.randn([8, 4], generator=random).double()
    layer = SynthesisLayer(4, 6, w_dim=2, resolution=5)
    positions = torch.arange(25).repeat(8, 1)
    u = rows.patches(x * styles[:, :, None, None], layer, positions)
    y = rows.gather(modulated_conv2d(x, true, styles, padding=1), positions)
    start = true.flatten(1) + 0.1 * torch.randn([6, 36], generator=random).double()
    fit = solve.demodulated(u, 1.2 * y, start, styles, 1e-6, 30)
    assert fit.after < 1e-6 < 1e-3 < fit.before
    assert torch.allclose(fit.scale, torch.full([6], 1.2).double(), rtol=1e-3)
    assert torch.allclose(fit.weight.norm(dim=1), start.norm(dim=1), rtol=1e-12)
    directions = [torch.nn.functional.normalize(w, dim=1) for w in (fit.weight, true.flatten(1))]
    assert (directions[0] * directions[1]).sum(dim=1).min() > 0.999


def test_rows_of_zeros_stay_finite() -> None:
    fit = solve.demodulated(torch.randn([3, 5, 8]), torch.zeros([3, 5, 2]), torch.zeros([2, 8]), torch.ones([3, 8]),
                            0.03, 3)
    assert not fit.weight.any()
    assert torch.equal(fit.scale, torch.ones([2]).double())
    fit = solve.linear(torch.zeros([5, 4]), torch.ones([5, 2]), torch.zeros([2, 4]), torch.zeros([2]), torch.zeros([4]))
    assert fit.bias is not None
    assert torch.allclose(fit.bias, torch.ones([2]).double(), rtol=1e-5)


@pytest.mark.unrecorded
@pytest.mark.parametrize("kwargs", GENERATORS)
def test_a_refitted_generator_is_nearer_to_its_teacher(kwargs: dict[str, Any]) -> None:
    G = tiny.tiny_generator(**kwargs)
    before = copy.deepcopy(G.state_dict())
    keep = half(G)
    narrow, report = refitted(G, keep)
    assert report.psnr_after > report.psnr_before
    assert len(report.layers) == generator.num_layers(narrow)
    assert all(fit.after <= fit.before for fit in report.layers)
    assert all(0.5 <= fit.scale_min <= fit.scale_mean <= fit.scale_max <= 2 for fit in report.layers)
    z, c = tiny.latents(8, G.c_dim)
    images = [net(z, c, noise_mode="const") for net in (G, prune.slice_network(G, keep), narrow)]
    errors = [float((image - images[0]).square().mean()) for image in images[1:]]
    assert errors[1] < errors[0]
    assert all(torch.equal(before[name], tensor) for name, tensor in G.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(narrow.mapping.state_dict().values(), G.mapping.state_dict().values()))


@pytest.mark.parametrize("kwargs", DISCRIMINATORS)
def test_a_refitted_discriminator_is_nearer_to_its_teacher(kwargs: dict[str, Any]) -> None:
    D = tiny.tiny_discriminator(**kwargs)
    _, report = refitted(D, half(D))
    assert report.psnr_after > report.psnr_before
    assert all(fit.after <= fit.before for fit in report.layers)


@pytest.mark.parametrize(("kind", "kwargs"), [("G", {"architecture": "skip"}), ("G", {"architecture": "resnet"}),
                                              ("D", {"architecture": "resnet"})])
def test_a_slice_that_loses_nothing_is_not_changed(kind: str, kwargs: dict[str, Any]) -> None:
    network = tiny.tiny_generator(**kwargs) if kind == "G" else tiny.tiny_discriminator(**kwargs)
    plan = plan_of(network)
    keep = random_keep(plan, () if kind == "G" else ("b8.conv1",))  # what feeds the minibatch standard deviation
    silence(network, plan, keep)
    narrow, report = refitted(network, keep)
    plain = prune.slice_network(network, keep)
    for name, tensor in narrow.state_dict().items():
        assert torch.allclose(tensor, plain.state_dict()[name], atol=1e-4, rtol=1e-4), name
    assert max(fit.before for fit in report.layers) < 1e-6


@pytest.mark.unrecorded
def test_the_seed_decides_and_the_size_of_passes_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    G = tiny.tiny_generator()
    keep = half(G)
    states = [refitted(G, keep, RefitOptions(num_latents=8, seed=seed))[0].state_dict() for seed in (0, 0, 1)]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert not torch.equal(states[0]["synthesis.b8.conv1.weight"], states[2]["synthesis.b8.conv1.weight"])
    monkeypatch.setattr(walk, "BATCH_BYTES", 1)
    single = refitted(G, keep, RefitOptions(num_latents=8))[0].state_dict()
    assert all(torch.allclose(tensor, single[name], atol=1e-3, rtol=1e-3) for name, tensor in states[0].items())


def test_little_memory_means_few_latents(monkeypatch: pytest.MonkeyPatch) -> None:
    G = tiny.tiny_generator()
    noted: list[int] = []
    image = generator.Walk._image

    def spy(walk: Any, res: int, blocks: list[Any]) -> None:
        noted.append(sum(len(batch.w) for batch in walk.batches))
        image(walk, res, blocks)

    monkeypatch.setattr(generator.Walk, "_image", spy)
    refitted(G, half(G), RefitOptions(num_latents=16, memory=50000))
    each = 4 * (16 + 8) * 4**2  # bytes of the features of teacher and student at 4 px
    assert noted == [min(128, 50000 // each), min(64, 50000 // (4 * each)), 4]


def test_all_networks_of_a_student_are_refitted() -> None:
    nets = tiny.tiny_networks()
    teacher = Teacher("t.pkl", "0", nets["G"], nets["G_ema"], nets["D"], None)
    width = Fraction(1, 2)
    student = slice_student(teacher, Cut(width, "l1", num_samples=8, refit=True), width)
    plain = slice_student(teacher, Cut(width, "l1", num_samples=8), width)
    assert list(student.refits) == ["G_ema", "G", "D"]
    assert plain.refits == {}
    for name, layer in (("G", "synthesis.b8.conv1"), ("G_ema", "synthesis.b8.conv1"), ("D", "b8.conv1")):
        fitted, cut = (getattr(result, name).get_submodule(layer).weight for result in (student, plain))
        assert not torch.equal(fitted, cut)
    assert slice_student(teacher, Cut(width, "l1", num_samples=8, refit=True)).D is nets["D"]
    assert slice_student(teacher, Cut(Fraction(1), "first", refit=True)).refits == {}


def test_what_cannot_be_refitted() -> None:
    G = tiny.tiny_generator()
    keep = half(G)
    narrow = prune.slice_network(G, keep)
    G.synthesis.b8.conv0.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(UserError, match=r"^teacher: values in synthesis\.b8\.conv0\.weight of net are NaN or infinite, "
                                        r"so the slice cannot be refitted; pass another network, or `refit=False`$"):
        refit_network("net", G, narrow, keep, OPTIONS)
    with pytest.raises(UserError, match=r"^refit: slices of a torch.nn.modules.linear.Linear cannot be refitted"):
        refit_network("net", torch.nn.Linear(1, 1), narrow, keep, OPTIONS)
    assert [applies(network) for network in (tiny.tiny_generator(), tiny_stylegan3())] == [True, True]
    D = tiny.tiny_discriminator()
    with pytest.raises(ValueError, match="a discriminator needs images"):
        refit_network("D", D, prune.slice_network(D, half(D)), half(D), OPTIONS)
