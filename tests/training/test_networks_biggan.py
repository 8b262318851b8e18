"""BigGAN networks: names and shapes, reference numbers, formulas, and what training mode changes."""
import ast
import copy
import gzip
import inspect
import json
import re
from typing import Any

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from tests.helpers import GOLDEN, golden
from tests.training import biggan_reference as reference
from training import networks_biggan
from training.biggan import checkpoints as biggan_checkpoints
from training.biggan import estimates as biggan_estimates
from training.networks_biggan import Discriminator, Generator

REFERENCE_TOLERANCE = 1e-5  # of max |reference|; what float32 leaves of it
EXACT = {"rtol": 1e-10, "atol": 1e-10}  # float64 against float64

SHAPES = json.loads(gzip.decompress((GOLDEN / "biggan_state_dict_shapes.json.gz").read_bytes()))


def public_network(name: str) -> torch.nn.Module:
    """A network by its name in the list of shapes, without memory for its tensors."""
    match = re.fullmatch(r"(?P<model>\w+)_(?P<kind>[GD])_(?P<data>I128|I256|C10)(?:_attn(?P<attn>\d+))?_ch(?P<ch>\d+)",
                         name)
    assert match
    res, classes = {"I128": (128, 1000), "I256": (256, 1000), "C10": (32, 10)}[match["data"]]
    attn = match["attn"] or ("0" if res == 32 else "64")
    common = {"c_dim": classes, "img_resolution": res, "model": match["model"], "skip_init": True}
    with torch.device("meta"):
        if match["kind"] == "D":
            return Discriminator(**common, D_ch=int(match["ch"]), D_attn=attn)
        deep = match["model"] == "BigGANdeep"
        latent: dict[str, Any] = {"dim_z": 128}
        if deep or res > 32:
            dim_z = 128 if deep else {128: 120, 256: 140}[res]
            latent = {"dim_z": dim_z, "hier": True, "G_shared": True, "shared_dim": 128}
        return Generator(**common, **latent, G_ch=int(match["ch"]), G_attn=attn)


def test_there_are_62_public_configurations() -> None:
    assert len(SHAPES) == 62


@pytest.mark.parametrize("name", SHAPES)
def test_names_and_shapes_are_those_of_the_public_code(name: str) -> None:
    network = public_network(name)
    params = dict(network.named_parameters())
    result = [[key, list(t.shape), "param" if key in params else "buffer"] for key, t in network.state_dict().items()]
    assert result == SHAPES[name]["tensors"]
    assert sum(p.numel() for p in params.values()) == SHAPES[name]["num_params"]


@pytest.mark.parametrize("name", ["biggan_cifar32", "biggan_imagenet128"])
@torch.no_grad()
def test_reference_numbers(name: str) -> None:
    ref = golden(name)
    G = biggan_checkpoints.load_generator(GOLDEN / f"{name}_G_ema.pth")
    D = biggan_checkpoints.load_discriminator(GOLDEN / f"{name}_D.pth")
    config = ast.literal_eval(str(ref["config"]))
    assert (G.c_dim, G.img_resolution, G.z_dim) == (config["nc"], config["res"], config["zdim"])
    z, y, img = torch.from_numpy(ref["z"]), torch.from_numpy(ref["y"]), torch.from_numpy(ref["img"])
    one_hot = torch.nn.functional.one_hot(y, G.c_dim)
    for labels in (y, y.int(), one_hot, one_hot.float()):
        assert (G(z, labels) - img).abs().max() <= REFERENCE_TOLERANCE * img.abs().max()
        logits = torch.from_numpy(ref["logits"])
        assert (D(img, labels) - logits).abs().max() <= REFERENCE_TOLERANCE * logits.abs().max()


# The formulas, in float64.

GENERATORS = {
    "plain32": {"img_resolution": 32, "G_ch": 2, "dim_z": 6, "G_attn": "16"},
    "shared32": {"img_resolution": 32, "G_ch": 2, "dim_z": 6, "G_shared": True, "G_attn": "0"},
    "hier64": {"img_resolution": 64, "G_ch": 4, "dim_z": 13, "hier": True, "G_shared": True, "G_attn": "8_64"},
    "hier128": {"img_resolution": 128, "G_ch": 1, "dim_z": 12, "hier": True, "G_shared": True, "shared_dim": 5,
                "G_attn": "8"},
    "deep32": {"img_resolution": 32, "model": "BigGANdeep", "G_ch": 2, "dim_z": 6, "hier": True, "G_shared": True,
               "G_attn": "32", "G_depth": 3},
    "deep64": {"img_resolution": 64, "model": "BigGANdeep", "G_ch": 4, "dim_z": 6, "hier": True, "G_shared": True,
               "shared_dim": 3, "G_attn": "64", "img_channels": 1},
    "unnormalized": {"img_resolution": 32, "G_ch": 2, "dim_z": 6, "G_param": "none", "G_shared": True},
}
DISCRIMINATORS = {
    "32": {"img_resolution": 32, "D_ch": 2, "D_attn": "16"},
    "thin32": {"img_resolution": 32, "D_ch": 2, "D_wide": False, "img_channels": 1},
    "64": {"img_resolution": 64, "D_ch": 4, "D_attn": "4_16"},
    "thin64": {"img_resolution": 64, "D_ch": 2, "D_wide": False, "D_attn": "0"},
    "128": {"img_resolution": 128, "D_ch": 1, "D_attn": "4"},
    "deep32": {"img_resolution": 32, "model": "BigGANdeep", "D_ch": 2, "D_attn": "16", "D_depth": 3},
    "deep64": {"img_resolution": 64, "model": "BigGANdeep", "D_ch": 4, "D_attn": "8"},
    "unnormalized": {"img_resolution": 32, "D_ch": 2, "D_param": "none"},
}


def make(cls: Any, options: dict[str, Any]) -> Any:
    """A small network of 3 classes in float64 whose every tensor, gamma and statistics too, says something."""
    torch.manual_seed(0)
    if cls is Generator:
        options = {"BN_eps": 1e-3, **options}
    network = cls(c_dim=3, SN_eps=1e-6, **options).double()
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("stored_var"):
                tensor.uniform_(0.5, 2)
            elif not name.endswith(("weight", ".sv0")):
                tensor.normal_()
    return network.requires_grad_(False)


def latents_and_labels(G: Any, count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn([count, G.z_dim], dtype=torch.float64), torch.arange(count) % 3


def assert_buffers(network: torch.nn.Module, before: dict[str, torch.Tensor], stored: dict[str, torch.Tensor]) -> None:
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, stored.get(name, before[name]), msg=f"buffer {name}", **EXACT)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", GENERATORS)
def test_generator_formulas(name: str, training: bool) -> None:
    options = GENERATORS[name]
    G = make(Generator, options).train(training)
    before = copy.deepcopy(G.state_dict())
    z, labels = latents_and_labels(G)
    depth = options.get("G_depth", 2) if "model" in options else 0
    run = reference.Pass(before, training, sn_eps=1e-6, bn_eps=1e-3)
    num_stages = {32: 3, 64: 4, 128: 5}[options["img_resolution"]]
    expected = reference.generator(run, z, labels, num_stages, options.get("hier", False), depth)
    torch.testing.assert_close(G(z, labels), expected, **EXACT)
    assert bool(run.stored) == training
    assert_buffers(G, before, run.stored)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_discriminator_formulas(name: str, training: bool) -> None:
    options = DISCRIMINATORS[name]
    D = make(Discriminator, options).train(training)
    before = copy.deepcopy(D.state_dict())
    res = options["img_resolution"]
    img = torch.randn([3, D.img_channels, res, res], dtype=torch.float64)
    deep = "model" in options
    down = {32: [True, True, False, False], 64: [True] * 4 + [False], 128: [True] * 5 + [False]}[res]
    run = reference.Pass(before, training, sn_eps=1e-6)
    expected = reference.discriminator(
        run, img, torch.tensor([2, 0, 1]), down[:-1] if deep else down, options.get("D_depth", 2) if deep else 0
    )
    torch.testing.assert_close(D(img, torch.tensor([2, 0, 1])), expected, **EXACT)
    assert bool(run.stored) == (training and name != "unnormalized")
    assert_buffers(D, before, run.stored)


# Structure.


def names_of_attention(network: torch.nn.Module) -> list[str]:
    return [name for name, m in network.named_modules() if isinstance(m, networks_biggan.SelfAttention)]


def meta(cls: Any, **options: Any) -> Any:
    with torch.device("meta"):
        return cls(**{"c_dim": 10, "skip_init": True, **options})


def test_attention_goes_by_labels() -> None:
    everywhere = [f"blocks.{i}.1" for i in range(4)]
    assert names_of_attention(meta(Discriminator, img_resolution=32, D_attn="16")) == everywhere
    assert names_of_attention(meta(Discriminator, img_resolution=32, D_attn="8")) == []
    assert names_of_attention(meta(Discriminator, img_resolution=128, D_attn="4")) == ["blocks.4.1", "blocks.5.1"]
    deep = meta(Discriminator, img_resolution=128, D_attn="64", model="BigGANdeep", D_depth=2)
    assert names_of_attention(deep) == ["blocks.0.2"]
    assert names_of_attention(meta(Generator, img_resolution=128, G_attn="32_64")) == ["blocks.2.1", "blocks.3.1"]


@pytest.mark.parametrize(("resolution", "dim_z", "effective"),
                         [(32, 128, 128), (64, 128, 125), (128, 128, 126), (256, 140, 140), (512, 130, 128)])
def test_hierarchical_z_is_rounded_down(resolution: int, dim_z: int, effective: int) -> None:
    G = meta(Generator, img_resolution=resolution, dim_z=dim_z, hier=True, G_shared=True)
    pieces = resolution.bit_length() - 2
    assert G.z_dim == effective
    assert G.linear.weight.shape[1] == effective // pieces
    assert G.shared.weight.shape[1] == dim_z, "the embedding's width is the given one, not what is left"


def test_widths_may_be_given_one_by_one() -> None:
    G = meta(Generator, img_resolution=32, G_channels=[7, 6, 5, 9])
    assert [block[0].conv2.weight.shape[:2] for block in G.blocks] == [(6, 6), (5, 5), (9, 9)]
    assert (G.linear.weight.shape[0], G.output_layer.get_submodule("2").weight.shape[1]) == (7 * 16, 9)
    D = meta(Discriminator, img_resolution=32, D_channels=[7, 6, 6, 5])
    assert [block[0].conv_sc is not None for block in D.blocks] == [True, True, False, True]


def test_the_multiplier_is_one_way_to_give_widths() -> None:
    by_ch = meta(Generator, img_resolution=64, G_ch=3, G_attn="0").state_dict()
    by_list = meta(Generator, img_resolution=64, G_channels=[48, 48, 24, 12, 6], G_attn="0").state_dict()
    assert {k: v.shape for k, v in by_ch.items()} == {k: v.shape for k, v in by_list.items()}


@pytest.mark.parametrize(("cls", "options", "message"), [
    (Generator, {"img_resolution": 48}, "img_resolution: expected one of 32, 64, 128, 256, 512, found 48"),
    (Discriminator, {"img_resolution": 512}, "img_resolution: expected one of 32, 64, 128, 256, found 512"),
    (Generator, {"model": "StyleGAN"}, "model: expected one of BigGAN, BigGANdeep, found 'StyleGAN'"),
    (Discriminator, {"model": "StyleGAN"}, "model: expected one of BigGAN, BigGANdeep"),
    (Generator, {"G_param": "WN"}, "G_param: expected one of SN, none"),
    (Discriminator, {"D_param": "WN"}, "D_param: expected one of SN, none"),
    (Generator, {"G_init": "zeros"}, "G_init: expected one of ortho, N02, xavier, glorot, found 'zeros'"),
    (Discriminator, {"D_init": "zeros"}, "D_init: expected one of"),
    (Generator, {"c_dim": 0}, "c_dim: BigGAN needs at least one class, found 0"),
    (Discriminator, {"c_dim": 0}, "c_dim: BigGAN needs at least one class"),
    (Generator, {"model": "BigGANdeep", "G_shared": True}, "hier: BigGANdeep needs it"),
    (Generator, {"hier": True}, "G_shared: needed where hier is"),
    (Generator, {"hier": True, "G_shared": True, "dim_z": 3}, "dim_z: expected at least 4, one number for every piece"),
    (Generator, {"G_attn": "64,32"}, "attention: expected resolutions joined by underscores, .* found '64,32'"),
    (Generator, {"G_channels": [8, 8]}, "G_channels: expected 4 widths for 32x32 images, found 2"),
    (Discriminator, {"D_channels": [8, 8]}, "D_channels: expected 4 widths for 32x32 images, found 2"),
    (Generator, {"G_attn": "16", "G_ch": 1}, "attention: expected at least 8 channels, found 4"),
    (Discriminator, {"model": "BigGANdeep", "D_channels": [4, 4, 4, 3]}, r"blocks\.2\.0: too narrow for BigGANdeep"),
])
def test_impossible_networks(cls: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        meta(cls, **{"img_resolution": 32, **options})


# Calls.


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Any]:
    G = make(Generator, {"img_resolution": 32, "G_ch": 2, "dim_z": 8, "hier": True, "G_shared": True, "G_attn": "8"})
    D = make(Discriminator, {"img_resolution": 32, "D_ch": 2, "D_attn": "16"})
    return G.eval(), D.eval()


def test_labels_may_be_mixed(tiny: tuple[Any, Any]) -> None:
    G, D = tiny
    img = torch.randn([1, 3, 32, 32], dtype=torch.float64)
    scores = torch.cat([D(img, torch.tensor([i])) for i in range(3)])
    shares = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64)
    torch.testing.assert_close(D(img, shares), shares @ scores, **EXACT)
    z, _ = latents_and_labels(G, 1)
    assert not torch.equal(G(z, torch.tensor([[0.5, 0.5, 0.0]])), G(z, torch.tensor([0])))


def test_truncation_scales_z(tiny: tuple[Any, Any]) -> None:
    G, _ = tiny
    z, labels = latents_and_labels(G)
    torch.testing.assert_close(G(z, labels, truncation_psi=0.5), G(z * 0.5, labels), rtol=0, atol=0)
    plain = G(z, labels)
    for extra in ({"noise_mode": "none"}, {"noise_mode": "random"}, {"force_fp32": True}, {"truncation_cutoff": None}):
        torch.testing.assert_close(G(z=z, c=labels, **extra), plain, rtol=0, atol=0)


def test_surplus_latents_are_ignored(tiny: tuple[Any, Any]) -> None:
    G, _ = tiny
    z, labels = latents_and_labels(G)
    wide = torch.cat([z, torch.randn_like(z)], 1)
    assert torch.equal(G(wide, labels), G(z, labels))


def test_wrong_arguments_are_named(tiny: tuple[Any, Any]) -> None:
    G, D = tiny
    z, labels = latents_and_labels(G)
    img = torch.zeros([3, 3, 32, 32], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"z: expected \[N, 8\], found \[3, 7\]"):
        G(z[:, :7], labels)
    with pytest.raises(ValueError, match="truncation_cutoff: BigGAN scales all of z alike; expected None, found 2"):
        G(z, labels, truncation_cutoff=2)
    with pytest.raises(ValueError, match=r"img: expected \[N, 3, 32, 32\], found \[3, 3, 32, 16\]"):
        D(img[..., :16], labels)
    for wrong, result in ((labels[:, None], r"torch.int64 \[3, 1\]"), (labels.double(), r"torch.float64 \[3\]"),
                         (torch.zeros([3, 4]), r"torch.float32 \[3, 4\]")):
        message = rf"labels: expected integers \[N\] or one-hot rows \[N, 3\], found {result}"
        with pytest.raises(ValueError, match=message):
            G(z, wrong)
        with pytest.raises(ValueError, match=message):
            D(img, wrong)


# Spectral normalisation.


def spectral_linear(num_svs: int = 1, num_itrs: int = 1) -> Any:
    torch.manual_seed(1)
    return networks_biggan.Linear(7, 5, {"num_svs": num_svs, "num_itrs": num_itrs, "eps": 1e-12}).double()


def test_power_iteration_finds_the_largest_singular_value() -> None:
    layer = spectral_linear()
    exact = torch.linalg.svdvals(layer.weight)[0]
    for _ in range(200):
        layer(torch.zeros([1, 7], dtype=torch.float64))
    torch.testing.assert_close(layer.sv0[0], exact.detach(), **EXACT)
    torch.testing.assert_close(torch.linalg.matrix_norm(layer.normalized_weight(), 2),
                               torch.ones([], dtype=torch.float64), **EXACT)


def test_further_singular_values_are_followed() -> None:
    layer = spectral_linear(num_svs=3)
    assert list(layer.state_dict()) == ["weight", "bias", "u0", "sv0", "u1", "sv1", "u2", "sv2"]
    single = spectral_linear()
    single.load_state_dict({k: v for k, v in layer.state_dict().items() if k[-1] not in "12"})
    torch.testing.assert_close(layer.normalized_weight(), single.normalized_weight(), **EXACT)
    for _ in range(500):
        layer.normalized_weight()
    result = torch.cat([layer.sv0, layer.sv1, layer.sv2])
    torch.testing.assert_close(result, torch.linalg.svdvals(layer.weight)[:3].detach(), rtol=1e-6, atol=1e-6)


def test_several_iterations_per_pass_are_as_many_passes() -> None:
    three, single = spectral_linear(num_itrs=3), spectral_linear()
    three.load_state_dict(single.state_dict())
    w = three.normalized_weight()
    for _ in range(3):
        expected = single.normalized_weight()
    torch.testing.assert_close(w, expected, **EXACT)
    torch.testing.assert_close(three.u0, single.u0, **EXACT)
    three.eval(), single.eval()
    torch.testing.assert_close(three.normalized_weight(), single.normalized_weight(), **EXACT)


def test_eval_goes_one_step_beyond_what_is_stored() -> None:
    layer = spectral_linear().eval()
    before = layer.u0.clone()
    first, second = layer.normalized_weight(), layer.normalized_weight()
    assert torch.equal(first, second)
    assert torch.equal(layer.u0, before)
    v = torch.nn.functional.normalize(before @ layer.weight)
    torch.testing.assert_close(first, layer.weight / (layer.weight @ v.T).norm(), **EXACT)
    layer.u0 *= 3  # an average of vectors is not of unit length, and need not be
    torch.testing.assert_close(layer.normalized_weight(), first, **EXACT)


def test_gradient_treats_the_singular_vectors_as_constants() -> None:
    layer = spectral_linear()
    upstream = torch.randn_like(layer.weight)
    normalized = layer.normalized_weight()
    (normalized * upstream).sum().backward()
    v = torch.nn.functional.normalize(spectral_linear().u0 @ layer.weight.detach())  # from the vector before the pass
    inner = (upstream * normalized.detach()).sum()
    torch.testing.assert_close(layer.weight.grad, (upstream - inner * layer.u0.T @ v) / layer.sv0, **EXACT)


def test_the_buffers_move_without_gradients_too() -> None:
    layer = spectral_linear()
    before = layer.u0.clone()
    with torch.no_grad():
        layer(torch.zeros([1, 7], dtype=torch.float64))
    assert not torch.equal(layer.u0, before)
    assert not layer.u0.requires_grad


@pytest.mark.parametrize("options", [GENERATORS["hier64"], GENERATORS["deep32"]])
def test_folding_keeps_the_function(options: dict[str, Any]) -> None:
    G = make(Generator, options).eval()
    folded = biggan_estimates.fold_spectral_norm(G)
    z, labels = latents_and_labels(G)
    torch.testing.assert_close(folded(z, labels), G(z, labels), **EXACT)
    assert not [name for name in folded.state_dict() if name.endswith(("u0", "sv0"))]
    assert not folded.training


def test_folding_a_discriminator() -> None:
    D = make(Discriminator, DISCRIMINATORS["64"]).eval()
    img = torch.randn([2, 3, 64, 64], dtype=torch.float64)
    folded = biggan_estimates.fold_spectral_norm(D)
    torch.testing.assert_close(folded(img, torch.tensor([0, 1])), D(img, torch.tensor([0, 1])), **EXACT)


def test_refining_singular_vectors() -> None:
    D = make(Discriminator, DISCRIMINATORS["32"]).eval()
    biggan_estimates.refine_singular_vectors(D, num_steps=300)
    for name, layer in D.named_modules():
        if hasattr(layer, "sv0"):
            exact = torch.linalg.svdvals(layer.weight.flatten(1))[0]
            torch.testing.assert_close(layer.sv0[0], exact, rtol=1e-4, atol=0, msg=name)
    assert not any(module.training for module in D.modules())


# Batch statistics.


def test_the_output_norm_has_its_own_epsilon() -> None:
    G = meta(Generator, img_resolution=32, BN_eps=0.5)
    assert G.output_layer.get_submodule("0").eps == 1e-5
    assert {block[0].bn1.eps for block in G.blocks} == {0.5}


def test_training_mode_uses_the_batch_and_stores_an_average() -> None:
    norm = networks_biggan.BatchNorm(2).double()
    x = torch.tensor([[1.0, 10.0], [3.0, 30.0]], dtype=torch.float64)[:, :, None, None].expand(2, 2, 1, 2)
    y = norm(x)  # per channel: mean 2 and 20, biased variance 1 and 100, unbiased 4/3 of it
    expected = torch.tensor([1, 10]) / torch.sqrt(torch.tensor([1, 100], dtype=torch.float64) + 1e-5)
    torch.testing.assert_close(y[1, :, 0, 0], expected, **EXACT)
    mean, var = torch.tensor([[0.2, 2], [0.9 + 0.4 / 3, 0.9 + 40 / 3]], dtype=torch.float64)
    torch.testing.assert_close(norm.stored_mean, mean, **EXACT)
    torch.testing.assert_close(norm.stored_var, var, **EXACT)


def test_standing_statistics() -> None:
    G = make(Generator, GENERATORS["shared32"])
    again = copy.deepcopy(G).train()
    biggan_estimates.standing_statistics(G, batch_size=5, num_passes=4, generator=torch.Generator().manual_seed(3))
    assert not G.training
    random = torch.Generator().manual_seed(3)
    noted: dict[str, list[torch.Tensor]] = {}
    for name, module in again.named_modules():
        if hasattr(module, "stored_mean"):
            module.register_forward_pre_hook(lambda m, args, name=name: noted.setdefault(name, []).append(args[0]))
    for _ in range(4):
        z = torch.randn([5, G.z_dim], generator=random)
        again(z.double(), torch.randint(3, [5], generator=random))
    assert len(noted) == 7
    for name, batches in noted.items():
        flat = [x.transpose(0, 1).flatten(1).float() for x in batches]
        mean = torch.stack([x.mean(1) for x in flat]).mean(0)
        var = torch.stack([x.square().mean(1) - x.mean(1).square() for x in flat]).mean(0)
        result = G.get_submodule(name)
        torch.testing.assert_close(result.stored_mean.float(), mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(result.stored_var.float(), var, rtol=1e-4, atol=1e-5)


# Gradients.


def test_gradcheck_of_whole_networks(tiny: tuple[Any, Any]) -> None:
    G, D = tiny
    z = torch.randn([2, G.z_dim], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([1, 2])
    img = torch.randn([2, 3, 32, 32], dtype=torch.float64)
    probe = torch.randn([2, *img.shape], dtype=torch.float64) / 50
    assert gradcheck(lambda z: (G(z, labels) * probe).sum(dim=[1, 2, 3, 4]), z)
    bias = torch.zeros([3, 1, 1], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda b: D(img + b, labels), bias)


@pytest.mark.parametrize("kind", ["conv", "linear", "embedding", "norm", "attention"])
def test_gradients_of_layers_to_second_order(kind: str) -> None:
    torch.manual_seed(0)
    spectral = {"num_svs": 1, "num_itrs": 1, "eps": 1e-12}
    module, inputs = {
        "conv": lambda: (networks_biggan.Conv2d(2, 3, 3, spectral), [torch.randn(2, 2, 3, 3)]),
        "linear": lambda: (networks_biggan.Linear(3, 4, spectral), [torch.randn(2, 3)]),
        "embedding": lambda: (networks_biggan.Embedding(3, 4, spectral), [torch.rand(2, 3)]),
        "norm": lambda: (networks_biggan.ConditionalBatchNorm(2, 3, True, 1e-5, spectral),
                         [torch.randn(2, 2, 2, 2), torch.randn(2, 3)]),
        "attention": lambda: (networks_biggan.SelfAttention(8, spectral), [torch.randn(1, 8, 4, 4)]),
    }[kind]()
    module = module.double().eval()
    if kind == "attention":
        torch.nn.init.ones_(module.gamma)
    inputs = [x.double().requires_grad_() for x in inputs]
    assert gradcheck(module, inputs)
    assert gradgradcheck(module, inputs)
    weights = list(module.parameters())  # for them the vectors are constants only at the fixed point
    biggan_estimates.refine_singular_vectors(module, 2000)
    assert gradcheck(lambda *_: module(*inputs), weights, atol=1e-6)


# Initial weights.


def test_initial_weights() -> None:
    torch.manual_seed(0)
    D = Discriminator(c_dim=3, img_resolution=32, D_ch=4, D_init="ortho")
    rows = D.blocks[1][0].conv1.weight.flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(16), rtol=1e-5, atol=1e-5)
    assert D.blocks[1][0].conv1.bias.abs().min() > 0, "biases keep torch's default"
    D = Discriminator(c_dim=3, img_resolution=32, D_ch=8, D_init="N02")
    assert D.blocks[1][0].conv1.weight.std().item() == pytest.approx(0.02, rel=0.05)
    G = Generator(c_dim=3, img_resolution=32, G_ch=8, G_init="xavier", G_attn="16")
    limit = (6 / (32 * 9 + 32 * 9)) ** 0.5
    assert limit * 0.98 < G.blocks[1][0].conv2.weight.abs().max() <= limit
    assert G.blocks[1][0].bn1.gain.weight.abs().max() > 0, "gains do not start at zero"
    assert G.blocks[1][1].gamma == 0


# Graphs.


def in_float32(pair: tuple[Any, Any]) -> tuple[Any, Any, torch.Tensor, torch.Tensor, torch.Tensor]:
    G, D = (copy.deepcopy(network).float() for network in pair)
    return G, D, torch.randn([2, G.z_dim]), torch.eye(3)[:2], torch.randn([2, 3, 32, 32])


@pytest.mark.slow
@torch.no_grad()
def test_export(tiny: tuple[Any, Any]) -> None:
    G, D, z, c, img = in_float32(tiny)
    for network, args in ((G, (z, torch.tensor([1, 2]))), (D, (img, c))):  # test_onnx_file.py: one-hot labels of G
        program = torch.export.export(network, args, strict=True)
        torch.testing.assert_close(program.module()(*args), network(*args), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@torch.no_grad()
def test_compile(tiny: tuple[Any, Any]) -> None:
    """With labels in one-hot form; test_export captures both networks in one graph."""
    G, _, z, c, _ = in_float32(tiny)
    compiled = torch.compile(G, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(z, c), G(z, c), rtol=1e-5, atol=1e-6)


# Pickles.


def test_the_program_text_stands_alone() -> None:
    tree = ast.parse(inspect.getsource(networks_biggan))
    modules = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    modules |= {str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert modules == {"math", "typing", "torch", "torch.nn.functional", "torch_utils"}


def test_a_training_step_changes_every_parameter() -> None:
    torch.manual_seed(0)
    G = Generator(c_dim=3, img_resolution=32, G_ch=2, dim_z=8, hier=True, G_shared=True, G_attn="16").train()
    D = Discriminator(c_dim=3, img_resolution=32, D_ch=2, D_attn="16").train()
    labels = torch.tensor([0, 1, 2, 0])
    D(G(torch.randn([4, 8]), labels), labels).mean().backward()
    silent = [n for network in (G, D) for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    behind_gamma = ("theta.weight", "phi.weight", "g.weight", "o.weight")  # silent as long as gamma is zero
    assert [name for name in silent if not name.endswith(behind_gamma)] == []
