"""TensorFlow-era triples: every option and every variable, held to the published tables by writing them backwards."""
import io
import pickle
import sys
import types
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny import images, latents, tiny_discriminator, tiny_generator
from tests.torch_utils.checkpoint.hostile import NamedFile
from torch_utils.checkpoint import CheckpointError, TFNetworkRecord
from training.checkpoints import pickles
from training.checkpoints import tensorflow as tf_networks

VERSION = 4


class Network:
    """Stands for the class whose pickled state a file holds."""

    def __init__(self, **state: Any) -> None:
        vars(self).update(state)


@pytest.fixture(autouse=True)
def _module_to_pickle_from(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("dnnlib.tflib.network")
    module.Network = Network  # type: ignore[attr-defined]
    monkeypatch.setattr(Network, "__module__", module.__name__)
    monkeypatch.setitem(sys.modules, "dnnlib.tflib", types.ModuleType("dnnlib.tflib"))
    monkeypatch.setitem(sys.modules, module.__name__, module)


# ----------------------------------------------------------------------------------------------------------------------
# From our networks to variables, after the table of the file format


def dense(x: torch.Tensor) -> np.ndarray:
    return x.numpy().T


def conv(x: torch.Tensor) -> np.ndarray:
    return x.numpy().transpose(2, 3, 1, 0)


def flipped(x: torch.Tensor) -> np.ndarray:
    return conv(x)[::-1, ::-1]


def same(x: torch.Tensor) -> Any:
    return x.numpy() if x.ndim else float(x)


def modulated(part: Any, prefix: str, weight: Any = conv) -> dict[str, Any]:
    """Variables of a modulated convolution."""
    collected = {
        f"{prefix}/weight": weight(part.weight),
        f"{prefix}/bias": same(part.bias),
        f"{prefix}/mod_weight": dense(part.affine.weight),
        f"{prefix}/mod_bias": same(part.affine.bias - 1),
    }
    if getattr(part, "use_noise", False):
        collected[f"{prefix}/noise_strength"] = same(part.noise_strength)
    return collected


def synthesis_variables(synthesis: Any) -> dict[str, Any]:
    result = {"4x4/Const/const": synthesis.b4.const.numpy()[None], "lod": 0.0}
    convs = [synthesis.b4.conv1]
    for res in synthesis.block_resolutions:
        block, prefix = getattr(synthesis, f"b{res}"), f"{res}x{res}"
        if res == 4:
            result |= modulated(block.conv1, "4x4/Conv")
        else:
            result |= modulated(block.conv0, f"{prefix}/Conv0_up", flipped) | modulated(block.conv1, f"{prefix}/Conv1")
            convs += [block.conv0, block.conv1]
        if block.num_torgb:
            result |= modulated(block.torgb, f"{prefix}/ToRGB")
        if hasattr(block, "skip"):
            result[f"{prefix}/Skip/weight"] = flipped(block.skip.weight)
    if convs[0].use_noise:
        result |= {f"noise{i}": layer.noise_const.numpy()[None, None] for i, layer in enumerate(convs)}
    return result


def mapping_variables(mapping: Any, layer: str) -> dict[str, Any]:
    collected = {}
    if mapping.c_dim > 0:
        collected |= {"LabelEmbed/weight": dense(mapping.embed.weight), "LabelEmbed/bias": same(mapping.embed.bias)}
    for i in range(mapping.num_layers):
        fc = getattr(mapping, f"fc{i}")
        collected |= {f"{layer}{i}/weight": dense(fc.weight), f"{layer}{i}/bias": same(fc.bias)}
    return collected


def discriminator_variables(D: Any) -> dict[str, Any]:
    result = mapping_variables(D.mapping, "Mapping") if D.c_dim > 0 else {}
    for res in D.block_resolutions:
        block = getattr(D, f"b{res}")
        for ours, foreign in [("fromrgb", "FromRGB"), ("conv0", "Conv0"), ("conv1", "Conv1_down"), ("skip", "Skip")]:
            if hasattr(block, ours):
                result[f"{res}x{res}/{foreign}/weight"] = conv(getattr(block, ours).weight)
                if ours != "skip":
                    result[f"{res}x{res}/{foreign}/bias"] = same(getattr(block, ours).bias)
    if hasattr(D.b4, "fromrgb"):
        result |= {"4x4/FromRGB/weight": conv(D.b4.fromrgb.weight), "4x4/FromRGB/bias": same(D.b4.fromrgb.bias)}
    return result | {
        "4x4/Conv/weight": conv(D.b4.conv.weight),
        "4x4/Conv/bias": same(D.b4.conv.bias),
        "4x4/Dense0/weight": dense(D.b4.fc.weight),
        "4x4/Dense0/bias": same(D.b4.fc.bias),
        "Output/weight": dense(D.b4.out.weight),
        "Output/bias": same(D.b4.out.bias),
    }


def network(options: dict[str, Any], variables: dict[str, Any], **components: "Network") -> Network:
    return Network(
        version=VERSION, name="x", static_kwargs=options, components=components, variables=list(variables.items()),
        build_module_src="raise SystemError", build_func_name="main",
    )  # fmt: skip


def generator_record(G: Any, **options: Any) -> Network:
    parts = {
        "synthesis": network({}, synthesis_variables(G.synthesis)),
        "mapping": network({}, mapping_variables(G.mapping, "Dense")),
    }
    known = {
        "latent_size": G.z_dim, "label_size": G.c_dim, "dlatent_size": G.w_dim, "resolution": G.img_resolution,
        "num_channels": G.img_channels, "mapping_layers": G.mapping.num_layers, "fmap_base": 64, "fmap_max": 16,
    }  # fmt: skip
    average = {} if G.mapping.w_avg_beta is None else {"dlatent_avg": same(G.mapping.w_avg)}
    return network(known | options, average, **parts)


def discriminator_record(D: Any, **options: Any) -> Network:
    known = {
        "label_size": D.c_dim, "resolution": D.img_resolution, "num_channels": D.img_channels, "fmap_base": 64,
        "fmap_max": 16, "mbstd_group_size": 2,
    }  # fmt: skip
    return network(known | options, discriminator_variables(D))


def rounded(net: Any) -> Any:
    """The same network with numbers that can be raised and lowered by one without rounding."""
    for tensor in net.state_dict().values():
        tensor.copy_((tensor * 64).round() / 64)
    return net


def load(G: Network, D: Network, protocol: int = 4) -> dict[str, Any]:
    return pickles.load_networks(NamedFile(pickle.dumps((G, D, G), protocol)))


def record(source: Network) -> TFNetworkRecord:
    """What reading makes of a network."""
    result = TFNetworkRecord()
    result.build({**vars(source), "components": {k: record(v) for k, v in vars(source)["components"].items()}})
    return result


def assert_same(actual: Any, expected: Any) -> None:
    have, want = actual.state_dict(), expected.state_dict()
    assert list(have) == list(want)
    for name, tensor in want.items():
        assert torch.equal(have[name], tensor), name


# ----------------------------------------------------------------------------------------------------------------------
# Whole files


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
@pytest.mark.parametrize("c_dim", [0, 3])
@torch.no_grad()
def test_a_triple(architecture: str, c_dim: int, protocol: int) -> None:
    G = rounded(tiny_generator(architecture, c_dim=c_dim))
    D = rounded(tiny_discriminator(architecture, c_dim=c_dim, mapping_kwargs={"num_layers": 2, "lr_multiplier": 0.1}))
    loaded = load(
        generator_record(G, architecture=architecture, truncation_psi=0.5, style_mixing_prob=None, structure="auto"),
        discriminator_record(D, architecture=architecture, mapping_layers=2 if c_dim else 0, structure="auto"),
        protocol,
    )
    assert list(loaded) == ["G", "D", "G_ema", "training_set_kwargs", "augment_pipe"]
    assert loaded["training_set_kwargs"] is None
    assert loaded["augment_pipe"] is None
    z, c = latents(c_dim=c_dim)
    for name in ("G", "G_ema"):
        assert_same(loaded[name], G)
        assert torch.equal(loaded[name](z, c, noise_mode="const"), G(z, c, noise_mode="const"))
        assert not loaded[name].training
        assert not any(p.requires_grad for p in loaded[name].parameters())
    assert_same(loaded["D"], D)
    assert torch.equal(loaded["D"](images(), c), D(images(), c))
    assert not loaded["D"].training


def test_the_third_network_is_the_average() -> None:
    first, third = rounded(tiny_generator(seed=1)), rounded(tiny_generator(seed=2))
    triple = generator_record(first), discriminator_record(tiny_discriminator()), generator_record(third)
    loaded = pickles.load_networks(io.BytesIO(pickle.dumps(triple)))
    assert_same(loaded["G"], first)
    assert_same(loaded["G_ema"], third)


def test_a_triple_read_with_trust() -> None:
    G, D = rounded(tiny_generator()), tiny_discriminator()
    content = pickle.dumps((generator_record(G), discriminator_record(D), generator_record(G)))
    loaded = pickles.load_networks(io.BytesIO(content), trust_pickle=True)
    assert_same(loaded["G_ema"], G)
    assert_same(loaded["D"], D)


@pytest.mark.parametrize(
    ("ours", "foreign"),
    [
        ({"conv_clamp": 256, "num_fp16_res": 2}, {"conv_clamp": 256, "num_fp16_res": 2}),
        ({"use_noise": False}, {"use_noise": False}),
        ({"activation": "relu"}, {"nonlinearity": "relu"}),
        ({"resample_filter": [1, 2, 1]}, {"resample_kernel": [1, 2, 1]}),
        ({"resample_filter": [1, 2, 1]}, {"resample_kernel": np.array([1, 2, 1])}),
        ({"resample_filter": None}, {"resample_kernel": None}),
    ],
)
def test_options_of_the_generator(ours: dict[str, Any], foreign: dict[str, Any]) -> None:
    G = rounded(tiny_generator(**ours))
    loaded = load(generator_record(G, **foreign), discriminator_record(tiny_discriminator()))["G"]
    for name, part in G.named_modules():
        for key in ("conv_clamp", "use_fp16", "use_noise", "activation"):
            assert getattr(loaded.get_submodule(name), key, None) == getattr(part, key, None)
    assert_same(loaded, tiny_like(G))


def tiny_like(G: Any) -> Any:
    """A network without rounded filters: those are not in the file."""
    fresh = type(G)(**G.init_kwargs)
    filters = {name: tensor for name, tensor in fresh.state_dict().items() if name.endswith("resample_filter")}
    fresh.load_state_dict({**G.state_dict(), **filters})
    return fresh


@pytest.mark.parametrize(
    ("ours", "foreign"),
    [
        ({"epilogue_kwargs": {"mbstd_group_size": 4}}, {"mbstd_group_size": 4}),
        ({"epilogue_kwargs": {"mbstd_num_channels": 0}}, {"mbstd_num_features": 0}),
        ({"block_kwargs": {"freeze_layers": 2}}, {"freeze_layers": 2}),
        ({"conv_clamp": 0.5, "num_fp16_res": 1}, {"conv_clamp": 0.5, "num_fp16_res": 1}),
        (
            {"block_kwargs": {"activation": "relu"}, "epilogue_kwargs": {"activation": "relu", "mbstd_group_size": 2}},
            {"nonlinearity": "relu"},
        ),
        (
            {
                "c_dim": 3,
                "cmap_dim": 5,
                "mapping_kwargs": {"num_layers": 2, "lr_multiplier": 0.1, "embed_features": 5, "layer_features": 5},
            },
            {"mapping_fmaps": 5, "mapping_layers": 2},
        ),
    ],
)
@torch.no_grad()
def test_options_of_the_discriminator(ours: dict[str, Any], foreign: dict[str, Any]) -> None:
    D = tiny_discriminator(**ours)
    loaded = load(generator_record(tiny_generator()), discriminator_record(D, **foreign))["D"]
    assert_same(loaded, D)
    assert {n for n, _ in loaded.named_buffers()} == {n for n, _ in D.named_buffers()}
    _, c = latents(c_dim=D.c_dim)
    assert torch.equal(loaded(images(), c), D(images(), c))


def test_input_layers_named_by_level_of_detail() -> None:
    """StyleGAN1's names; they also say that the architecture is 'orig'."""
    D = tiny_discriminator("orig")
    source = discriminator_record(D, architecture="resnet")
    renamed = [(name.replace("16x16/FromRGB", "FromRGB_lod0"), v) for name, v in vars(source)["variables"]]
    renamed += [("FromRGB_lod1/weight", np.zeros([1, 1, 3, 16])), ("FromRGB_lod99999999999/weight", 0.0)]
    vars(source)["variables"] = renamed
    loaded = load(generator_record(tiny_generator()), source)["D"]
    assert loaded.init_kwargs.architecture == "orig"
    assert_same(loaded, D)


# ----------------------------------------------------------------------------------------------------------------------
# Defaults, which are not those of our classes


@pytest.fixture
def constructor_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversions return the constructor's arguments instead of the network."""
    monkeypatch.setattr(tf_networks, "_filled", lambda cls, kwargs, names, variables: kwargs)


def bare(options: dict[str, Any]) -> TFNetworkRecord:
    return record(network(options, {f"x{i}": 0.0 for i in range(8)}))


@pytest.mark.usefixtures("constructor_arguments")
def test_defaults_of_the_generator() -> None:
    kwargs: Any = tf_networks.generator_from_tf(bare({}))
    assert kwargs == {
        "z_dim": 512, "c_dim": 0, "w_dim": 512, "img_resolution": 1024, "img_channels": 3,
        "mapping_kwargs": {
            "num_layers": 8, "embed_features": None, "layer_features": None, "activation": "lrelu",
            "lr_multiplier": 0.01, "w_avg_beta": 0.995,
        },
        "synthesis_kwargs": {
            "channel_base": 32768, "channel_max": 512, "num_fp16_res": 0, "conv_clamp": None, "architecture": "skip",
            "resample_filter": [1, 3, 3, 1], "use_noise": True, "activation": "lrelu",
        },
    }  # fmt: skip
    assert list(kwargs) == ["z_dim", "c_dim", "w_dim", "img_resolution", "img_channels",
                            "mapping_kwargs", "synthesis_kwargs"]  # fmt: skip
    assert tf_networks.generator_from_tf(bare({"w_avg_beta": None})).mapping_kwargs.w_avg_beta == 1


@pytest.mark.usefixtures("constructor_arguments")
def test_defaults_of_the_discriminator() -> None:
    assert tf_networks.discriminator_from_tf(bare({})) == {
        "c_dim": 0, "img_resolution": 1024, "img_channels": 3, "architecture": "resnet", "channel_base": 32768,
        "channel_max": 512, "num_fp16_res": 0, "conv_clamp": None, "cmap_dim": None,
        "block_kwargs": {"activation": "lrelu", "resample_filter": [1, 3, 3, 1], "freeze_layers": 0},
        "mapping_kwargs": {
            "activation": "lrelu", "num_layers": 0, "embed_features": None, "layer_features": None,
            "lr_multiplier": 0.1,
        },
        "epilogue_kwargs": {"activation": "lrelu", "mbstd_group_size": None, "mbstd_num_channels": 1},
    }  # fmt: skip


@pytest.mark.usefixtures("constructor_arguments")
def test_every_option_of_the_generator_arrives() -> None:
    options = {
        "latent_size": 1, "label_size": 2, "dlatent_size": 3, "resolution": 4, "num_channels": 5, "mapping_layers": 6,
        "label_fmaps": 7, "mapping_fmaps": 8, "mapping_nonlinearity": "a", "mapping_lrmul": 9, "w_avg_beta": 10,
        "fmap_base": 11, "fmap_max": 12, "num_fp16_res": 13, "conv_clamp": 14, "architecture": "b",
        "resample_kernel": (15, 16), "use_noise": False, "nonlinearity": "c",
    }  # fmt: skip
    ignored = {
        "truncation_psi", "truncation_cutoff", "style_mixing_prob", "structure", "conditioning", "fused_modconv",
        "randomize_noise", "resolution_h", "resolution_w",
    }  # fmt: skip
    assert tf_networks.generator_from_tf(bare(options | dict.fromkeys(ignored, 0.5))) == {
        "z_dim": 1, "c_dim": 2, "w_dim": 3, "img_resolution": 4, "img_channels": 5,
        "mapping_kwargs": {
            "num_layers": 6, "embed_features": 7, "layer_features": 8, "activation": "a", "lr_multiplier": 9,
            "w_avg_beta": 10,
        },
        "synthesis_kwargs": {
            "channel_base": 22, "channel_max": 12, "num_fp16_res": 13, "conv_clamp": 14, "architecture": "b",
            "resample_filter": [15, 16], "use_noise": False, "activation": "c",
        },
    }  # fmt: skip


@pytest.mark.usefixtures("constructor_arguments")
def test_every_option_of_the_discriminator_arrives() -> None:
    options = {
        "label_size": 1, "resolution": 4, "num_channels": 2, "architecture": "a", "fmap_base": 3, "fmap_max": 5,
        "num_fp16_res": 6, "conv_clamp": 7, "mapping_fmaps": 8, "nonlinearity": "b", "resample_kernel": [9],
        "freeze_layers": 10, "mapping_layers": 3, "mapping_lrmul": 11, "mbstd_group_size": 12, "mbstd_num_features": 13,
        "structure": 1, "conditioning": 2,
    }  # fmt: skip
    assert tf_networks.discriminator_from_tf(bare(options)) == {
        "c_dim": 1, "img_resolution": 4, "img_channels": 2, "architecture": "a", "channel_base": 6, "channel_max": 5,
        "num_fp16_res": 6, "conv_clamp": 7, "cmap_dim": 8,
        "block_kwargs": {"activation": "b", "resample_filter": [9], "freeze_layers": 10},
        "mapping_kwargs": {
            "activation": "b", "num_layers": 3, "embed_features": 8, "layer_features": 8, "lr_multiplier": 11,
        },
        "epilogue_kwargs": {"activation": "b", "mbstd_group_size": 12, "mbstd_num_channels": 13},
    }  # fmt: skip


# ----------------------------------------------------------------------------------------------------------------------
# What is wrong with a file


def changed(net: Network, **state: Any) -> Network:
    vars(net).update(state)
    return net


def with_variable(net: Network, name: str, value: Any, component: str | None = None) -> Network:
    """Replaces one variable; ... removes it."""
    holder = vars(vars(net)["components"][component] if component else net)
    result = {**dict(holder["variables"]), name: value}
    holder["variables"] = [(key, v) for key, v in result.items() if v is not ...]
    return net


G_CASES: list[tuple[Any, str]] = [
    (lambda g: changed(g, version=3), "network of version 3; those of StyleGAN2 begin with version 4"),
    (lambda g: changed(g, version="4"), "network of version '4'; those"),
    (lambda g: changed(g, static_kwargs={"blur": 1}), "kwarg 'blur' of G has no meaning here: no StyleGAN2 network"),
    (lambda g: changed(g, static_kwargs={"use_wscale": 1}), r"G is of StyleGAN \(2018, TensorFlow\), whose architec"),
    (lambda g: changed(g, static_kwargs={"dlatent_avg_beta": 1}), "kwarg 'dlatent_avg_beta' of G has no meaning here"),
    (lambda g: changed(g, static_kwargs={"mbstd_group_size": 4}), "kwarg 'mbstd_group_size' of G has no meaning here"),
    (lambda g: changed(g, static_kwargs=[1]), "the file's values make no network"),
    (lambda g: changed(g, variables=5), "the file's values make no network"),
    (lambda g: changed(g, variables=[(("x",), 1)]), r"a variable is named \('x',\)"),
    (lambda g: changed(g, components={"mapping": 3}), "component 'mapping/' is malformed"),
    (lambda g: changed(g, components={"mapping": g}), "component 'mapping/' is malformed"),
    (lambda g: changed(g, components=[g]), "the file's values make no network"),
    (lambda g: with_variable(g, "dlatent_avg", ...), r"variable 'dlatent_avg' \(for mapping\.w_avg\) is missing"),
    (
        lambda g: with_variable(g, "8x8/Conv0_up/weight", ..., "synthesis"),
        r"variable 'synthesis/8x8/Conv0_up/weight' \(for synthesis\.b8\.conv0\.weight\) is missing",
    ),
    (
        lambda g: with_variable(g, "noise3", ..., "synthesis"),
        r"variable 'synthesis/noise3' \(for synthesis\.b16\.conv0\.noise_const\) is missing",
    ),
    (
        lambda g: with_variable(g, "8x8/Conv1/weight", np.zeros([3, 3, 16, 15]), "synthesis"),
        r"synthesis/8x8/Conv1/weight has shape \[3, 3, 16, 15\], which does not convert to the \[16, 16, 3, 3\]",
    ),
    (
        lambda g: with_variable(g, "8x8/Conv1/weight", np.zeros([3]), "synthesis"),
        r"synthesis/8x8/Conv1/weight has shape \[3\], which does not convert to the \[16, 16, 3, 3\]",
    ),
    (lambda g: with_variable(g, "Dense0/weight", 1.5, "mapping"), r"mapping/Dense0/weight has shape \[\], which does"),
    (lambda g: with_variable(g, "Dense0/bias", [1.5], "mapping"), r"Dense0/bias should be an array, found \[1\.5\]"),
    (lambda g: with_variable(g, "4x4/Const/const", np.zeros([0, 16, 4, 4]), "synthesis"), "no network .IndexError"),
]


@pytest.mark.parametrize(("change", "match"), G_CASES)
def test_generators_that_cannot_be_converted(change: Any, match: str) -> None:
    with pytest.raises(CheckpointError, match=rf"^evil\.pkl: G: .*{match}") as caught:
        load(change(generator_record(tiny_generator())), discriminator_record(tiny_discriminator()))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"latent_size": 10**12}, "this architecture needs far more weights than the file holds"),
        ({"fmap_max": 10**9, "fmap_base": 10**12}, "needs far more weights"),
        ({"mapping_layers": 10**9}, r"kwarg 'mapping_layers' of G: .* up to that .*, found 1000000000"),
        ({"mapping_layers": "8"}, r"expected a number of layers up to that of the \d+ variables, found '8'"),
        ({"mapping_layers": 3}, "variable 'mapping/Dense2/weight'"),
        ({"resolution": 12}, "kwarg 'resolution' of G: expected a power of two from 4 to 16384, found 12"),
        ({"resolution": 2**60}, "kwarg 'resolution' of G: expected a power of two"),
        ({"resolution": "x"}, "found 'x'"),
        ({"resolution": 32}, r"'synthesis/32x32/Conv0_up/weight'"),
        ({"architecture": "round"}, "architecture: expected 'orig', 'skip' or 'resnet', found 'round'"),
        ({"architecture": ["skip"]}, r"kwarg 'architecture' of G: expected a number, a name or None, found \['skip'\]"),
        ({"nonlinearity": "sine"}, "the file's values make no network .KeyError: 'sine'"),
        ({"fmap_base": None}, "the file's values make no network .TypeError"),
        ({"resample_kernel": "x"}, "kwarg 'resample_kernel' of G: expected a list of numbers, found 'x'"),
        ({"resample_kernel": ["x"]}, r"expected a list of numbers, found \['x'\]"),
        ({"label_size": 3}, "variable 'mapping/LabelEmbed/weight' .for mapping.embed.weight. is missing"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], match: str) -> None:
    with pytest.raises(CheckpointError, match=match):
        load(generator_record(tiny_generator(), **options), discriminator_record(tiny_discriminator()))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda d: changed(d, version=0), "D is a TensorFlow network of version 0; those of StyleGAN2"),
        (lambda d: changed(d, static_kwargs={"use_noise": 1}), "TensorFlow kwarg 'use_noise' of D has no meaning here"),
        (lambda d: with_variable(d, "Output/bias", ...), r"variable 'Output/bias' \(for b4\.out\.bias\) is missing"),
        (lambda d: with_variable(d, "4x4/Dense0/weight", np.zeros([1, 2, 3])), r"4x4/Dense0/weight has shape \[1, 2,"),
    ],
)
def test_discriminators_that_cannot_be_converted(change: Any, match: str) -> None:
    with pytest.raises(CheckpointError, match=rf"^evil\.pkl: D: .*{match}"):
        load(generator_record(tiny_generator()), change(discriminator_record(tiny_discriminator())))


def test_a_generator_of_stylegan1() -> None:
    """Its output layers are named by level of detail, without a counterpart here."""
    G = generator_record(tiny_generator())
    holder = vars(vars(G)["components"]["synthesis"])
    holder["variables"] = [(name.replace("16x16/ToRGB", "ToRGB_lod0"), v) for name, v in holder["variables"]]
    with pytest.raises(CheckpointError, match=r"variable 'synthesis/16x16/ToRGB/weight' .* is missing"):
        load(G, discriminator_record(tiny_discriminator()))
