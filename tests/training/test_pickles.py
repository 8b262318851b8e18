"""Network pickles of every kind become the networks they describe, whatever our constructors' defaults are."""
import io
import pickle
import re
from typing import Any

import pytest
import torch

from metrics import torchscript
from tests.helpers import GOLDEN, golden
from tests.tiny import images, latents, tiny_discriminator, tiny_generator, tiny_networks
from tests.training import foreign_pickles as foreign
from torch_utils.checkpoint import CheckpointError
from training import networks
from training.augment import AugmentPipe
from training.checkpoints import pickles

EXPECTED_GLOBALS = {
    "torch_utils.persistence._reconstruct_persistent_obj",
    "dnnlib.util.EasyDict",
    "collections.OrderedDict",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor_v2",
    "torch.storage._load_from_bytes",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
}


def load(content: bytes, **kwargs: Any) -> dict[str, Any]:
    return pickles.load_networks(io.BytesIO(content), **kwargs)


def round_trip(network: torch.nn.Module, edit: foreign.Edit = lambda meta: None) -> Any:
    """What a network becomes on the way through a file, in every role that it can have there."""
    return load(foreign.write({"G": network, "D": network, "G_ema": network}, edit=edit))["G_ema"]


def assert_same_tensors(actual: torch.nn.Module, expected: torch.nn.Module) -> None:
    have, want = actual.state_dict(), expected.state_dict()
    assert list(have) == list(want)
    assert all(torch.equal(have[name], want[name]) for name in want)
    assert {n for n, _ in actual.named_parameters()} == {n for n, _ in expected.named_parameters()}


def plain_attributes(network: torch.nn.Module) -> dict[str, Any]:
    """The plain attributes of all parts by dotted name, constructor arguments aside."""
    kinds = bool | int | float | str | list | None
    return {
        f"{name}.{key}": value
        for name, part in network.named_modules()
        for key, value in vars(part).items()
        if isinstance(value, kinds) and not key.startswith("_")
    }


@torch.no_grad()
def outputs(network: Any) -> torch.Tensor:
    if isinstance(network, networks.Generator):
        z, c = latents(num=2, c_dim=network.c_dim)
        ws = network.mapping(z, c, truncation_psi=0.5 if network.mapping.w_avg_beta is not None else 1)
        return network.synthesis(ws, noise_mode="const")
    _, c = latents(num=2, c_dim=network.c_dim)
    return network(images(num=2, resolution=network.img_resolution, channels=network.img_channels), c)


# ----------------------------------------------------------------------------------------------------------------------
# Formats


@pytest.mark.parametrize("protocol", [2, 3])
def test_files_with_the_globals_of_official_ones(protocol: int) -> None:
    nets = tiny_networks(c_dim=3)
    nets["augment_pipe"] = AugmentPipe(xflip=1, imgfilter=1).eval()
    content = foreign.official(pickles.snapshot_data(nets, {"path": "x", "max_size": None, "xflip": True}), protocol)
    of_protocol = {2: {"__builtin__.set", "_codecs.encode"}, 3: {"builtins.set"}}
    assert foreign.globals_of(content) == EXPECTED_GLOBALS | of_protocol[protocol]
    loaded = load(content)
    assert loaded["training_set_kwargs"] == {"path": "x", "max_size": None, "xflip": True}
    for name in ("G", "D", "G_ema", "augment_pipe"):
        assert_same_tensors(loaded[name], nets[name])
        assert plain_attributes(loaded[name]) == plain_attributes(nets[name])
        assert not loaded[name].training
        assert not any(p.requires_grad for p in loaded[name].parameters())
    for name in ("G", "D", "G_ema"):
        assert torch.equal(outputs(loaded[name]), outputs(nets[name]))
        assert isinstance(loaded[name].synthesis.b4.conv1.act_gain if name != "D" else 1.0, float)


def test_training_mode_is_kept() -> None:
    nets = tiny_networks(resolution=8)
    nets["G"].train()
    loaded = load(foreign.write(nets))
    assert loaded["G"].training
    assert loaded["G"].synthesis.b4.conv1.training
    assert not loaded["G_ema"].training


def test_one_object_in_two_roles() -> None:
    nets = tiny_networks(resolution=8)
    loaded = load(foreign.write({**nets, "G": nets["G_ema"]}))
    assert_same_tensors(loaded["G"], nets["G_ema"])
    assert_same_tensors(loaded["G_ema"], nets["G_ema"])


def test_reading_draws_no_random_numbers() -> None:
    content = foreign.write(tiny_networks(resolution=8))
    before = torch.random.get_rng_state()
    load(content)
    load(content, force_fp16=True)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_loaded_tensors_share_no_memory() -> None:
    loaded = load(foreign.write(tiny_networks(resolution=8)))["G"]
    storages = [tensor.untyped_storage() for tensor in loaded.state_dict().values()]
    assert len({storage.data_ptr() for storage in storages}) == len(storages)
    assert all(s.nbytes() == t.numel() * 4 for s, t in zip(storages, loaded.state_dict().values()))


# ----------------------------------------------------------------------------------------------------------------------
# Constructor arguments come from the file

GENERATORS: dict[str, dict[str, Any]] = {
    "stock": {},
    "resnet": {"architecture": "resnet"},
    "orig": {"architecture": "orig"},
    "clamp": {"conv_clamp": 256},
    "fractional clamp": {"conv_clamp": 0.5},
    "half precision": {"num_fp16_res": 2, "conv_clamp": 256},
    "half precision everywhere": {"num_fp16_res": 4},
    "channels last": {"num_fp16_res": 1, "fp16_channels_last": True},
    "no noise": {"use_noise": False},
    "relu": {"activation": "relu"},
    "swish": {"activation": "swish"},
    "two taps": {"resample_filter": [1, 1]},
    "odd taps": {"resample_filter": [1, 2, 1]},
    "lopsided taps": {"resample_filter": [1, 2, 3, 4]},
    "irrational taps": {"resample_filter": [0.3, 1.7, 1.1, 0.2]},
    "separable taps": {"resample_filter": [1, 7, 21, 35, 35, 21, 7, 1]},
    "square taps": {"resample_filter": [[1, 2], [2, 5]]},
    "kernel of one": {"kernel_size": 1},
    "widths by layer": {"layer_channels": [3, 5, 6, 4, 7, 2]},
    "widths by resolution": {"layer_channels": [12, 12, 9, 9, 5, 5]},
    "other base": {"channel_base": 100, "channel_max": 12},
    "conditional": {"c_dim": 3},
    "grey": {"channels": 1},
    "four channels": {"channels": 4},
    "4 px": {"resolution": 4},
    "8 px": {"resolution": 8, "num_fp16_res": 4},
}


def without_arguments(meta: dict[str, Any]) -> None:
    """Leaves out what the constructors were called with, as if all had been defaults of another code base."""
    meta["state"]["_init_kwargs"] = {}
    meta["state"]["_init_args"] = ()


@pytest.mark.parametrize("edit", [foreign.without_source, without_arguments])
@pytest.mark.parametrize("kwargs", GENERATORS.values(), ids=GENERATORS.keys())
def test_generator(kwargs: dict[str, Any], edit: foreign.Edit) -> None:
    G = tiny_generator(**kwargs)
    loaded = round_trip(G, edit)
    assert_same_tensors(loaded, G)
    assert plain_attributes(loaded) == plain_attributes(G)
    assert torch.equal(outputs(loaded), outputs(G))
    again = type(loaded)(*loaded.init_args, **loaded.init_kwargs)
    again.load_state_dict(loaded.state_dict(), strict=True)
    assert plain_attributes(again.eval()) == plain_attributes(G)
    assert torch.equal(outputs(again), outputs(G))
    if kwargs.get("fp16_channels_last"):
        assert loaded.synthesis.b16.conv1.weight.stride() == G.synthesis.b16.conv1.weight.stride()
        assert loaded.synthesis.b16.conv1.weight.is_contiguous(memory_format=torch.channels_last)


MAPPINGS: dict[str, dict[str, Any]] = {
    "other average": {"num_layers": 2, "w_avg_beta": 0.998},
    "no average": {"num_layers": 2, "w_avg_beta": None},
    "no layers": {"num_layers": 0},
    "one layer": {"num_layers": 1, "lr_multiplier": 1},
    "wide": {"num_layers": 3, "layer_features": 24, "embed_features": 5, "activation": "relu"},
    "fast": {"num_layers": 2, "lr_multiplier": 0.1},
}


@pytest.mark.parametrize("edit", [foreign.without_source, without_arguments])
@pytest.mark.parametrize("c_dim", [0, 3])
@pytest.mark.parametrize("kwargs", MAPPINGS.values(), ids=MAPPINGS.keys())
def test_mapping_network(kwargs: dict[str, Any], c_dim: int, edit: foreign.Edit) -> None:
    z_dim = 16
    if kwargs["num_layers"] == 0 and c_dim:
        kwargs = {**kwargs, "embed_features": 8}
        z_dim = 8  # so that z and the label make up w
    size = {"z_dim": z_dim, "c_dim": c_dim, "w_dim": 16, "img_resolution": 8, "img_channels": 3}
    G: Any = networks.Generator(**size, mapping_kwargs=kwargs, synthesis_kwargs={"channel_base": 64}).eval()
    loaded = round_trip(G, edit)
    assert_same_tensors(loaded, G)
    assert plain_attributes(loaded) == plain_attributes(G)
    z, c = latents(num=2, c_dim=c_dim)
    with torch.no_grad():
        assert torch.equal(loaded.mapping(z[:, :z_dim], c), G.mapping(z[:, :z_dim], c))
    assert plain_attributes(type(loaded)(**loaded.init_kwargs).eval()) == plain_attributes(G)


DISCRIMINATORS: dict[str, dict[str, Any]] = {
    "stock": {},
    "skip": {"architecture": "skip"},
    "orig": {"architecture": "orig"},
    "clamp": {"conv_clamp": 256},
    "half precision": {"num_fp16_res": 1, "conv_clamp": 0.5},
    "channels last": {"num_fp16_res": 2, "block_kwargs": {"fp16_channels_last": True}},
    "frozen": {"block_kwargs": {"freeze_layers": 3}},
    "all frozen": {"block_kwargs": {"freeze_layers": 13}},
    "frozen skip": {"architecture": "skip", "block_kwargs": {"freeze_layers": 2}},
    "two taps": {"block_kwargs": {"resample_filter": [1, 1]}},
    "relu": {"block_kwargs": {"activation": "relu"}, "epilogue_kwargs": {"activation": "relu"}},
    "whole batch": {"epilogue_kwargs": {"mbstd_group_size": None}},
    "two statistics": {"epilogue_kwargs": {"mbstd_group_size": 1, "mbstd_num_channels": 2}},
    "no statistics": {"epilogue_kwargs": {"mbstd_num_channels": 0}},
    "widths by layer": {"layer_channels": [5, 3, 7, 4, 6, 2, 9]},
    "widths by resolution": {"layer_channels": [5, 5, 7, 7, 6, 6, 6]},
    "other base": {"channel_base": 100, "channel_max": 12},
    "conditional": {"c_dim": 3},
    "conditional with few features": {"c_dim": 3, "cmap_dim": 7, "mapping_kwargs": {"num_layers": 2}},
    "conditional without layers": {"c_dim": 3, "mapping_kwargs": {"num_layers": 0}},
    "conditional, wide": {"c_dim": 3, "mapping_kwargs": {"num_layers": 2, "embed_features": 4, "layer_features": 5}},
    "grey": {"channels": 1},
    "8 px": {"resolution": 8, "num_fp16_res": 4},
}


@pytest.mark.parametrize("edit", [foreign.without_source, without_arguments])
@pytest.mark.parametrize("kwargs", DISCRIMINATORS.values(), ids=DISCRIMINATORS.keys())
def test_discriminator(kwargs: dict[str, Any], edit: foreign.Edit) -> None:
    D = tiny_discriminator(**kwargs)
    loaded = round_trip(D, edit)
    assert_same_tensors(loaded, D)
    assert plain_attributes(loaded) == plain_attributes(D)
    assert torch.equal(outputs(loaded), outputs(D))
    again = type(loaded)(**loaded.init_kwargs).eval()
    assert plain_attributes(again) == plain_attributes(D)
    again.load_state_dict(loaded.state_dict(), strict=True)
    assert torch.equal(outputs(again), outputs(D))


@pytest.mark.parametrize("edit", [foreign.without_source, without_arguments])
@pytest.mark.parametrize("kwargs", [{}, {"architecture": "skip"}, {"c_dim": 3}, {"layer_channels": [6, 5, 7]}])
@pytest.mark.parametrize("statistics", [0, 1, 2])
def test_networks_of_four_pixels(statistics: int, kwargs: dict[str, Any], edit: foreign.Edit) -> None:
    """Their discriminators have no block that reads an image and cannot be run, but files hold them."""
    D = tiny_discriminator(resolution=4, epilogue_kwargs={"mbstd_num_channels": statistics}, **kwargs)
    G = tiny_generator(resolution=4)
    loaded = load(foreign.write({"G": G, "D": D, "G_ema": G}, edit=edit))
    assert torch.equal(outputs(loaded["G_ema"]), outputs(G))
    for network in (loaded["D"], type(loaded["D"])(**loaded["D"].init_kwargs).eval()):
        assert plain_attributes(network) == plain_attributes(D)
        network.load_state_dict(D.state_dict(), strict=True)
    assert_same_tensors(loaded["D"], D)


def test_recorded_arguments_are_kept() -> None:
    """Where they say what the file's objects hold, so that a snapshot of a snapshot has the same."""
    G = tiny_generator(channel_base=32768, channel_max=16, num_fp16_res=7, resample_filter=(1, 3, 3, 1))
    kwargs = round_trip(G).init_kwargs.synthesis_kwargs
    assert (kwargs.channel_base, kwargs.channel_max, kwargs.num_fp16_res) == (32768, 16, 7)
    assert kwargs.resample_filter == [1, 3, 3, 1]


def test_recorded_arguments_that_the_objects_contradict() -> None:
    """Tools change attributes of loaded networks and save them; what they changed counts."""
    G = tiny_generator(num_fp16_res=2, conv_clamp=256)
    for part in G.synthesis.modules():
        if hasattr(part, "conv_clamp"):
            part.conv_clamp = None
        if hasattr(part, "use_fp16"):
            part.use_fp16 = part.channels_last = False
    loaded = round_trip(G)
    assert plain_attributes(loaded) == plain_attributes(G)
    assert loaded.init_kwargs.synthesis_kwargs.num_fp16_res == 0
    assert loaded.init_kwargs.synthesis_kwargs.conv_clamp is None


def test_nonsense_in_recorded_arguments_is_passed_over() -> None:
    def edit(meta: dict[str, Any]) -> None:
        nonsense: dict[str, Any] = {"channel_base": "x", "num_fp16_res": -1, "resample_filter": ["a"]}
        meta["state"]["_init_kwargs"] = {**nonsense, "synthesis_kwargs": 5, "block_kwargs": [nonsense]}

    G, D = tiny_generator(num_fp16_res=1), tiny_discriminator(num_fp16_res=1)
    assert plain_attributes(round_trip(G, edit)) == plain_attributes(G)
    assert plain_attributes(round_trip(D, edit)) == plain_attributes(D)


@torch.no_grad()
def test_stylegan3_tree_without_clamp_and_fp16_arguments() -> None:
    """Real files omit them; that tree's defaults are 256 and 4, those of ours None and 0."""
    omitted = ("conv_clamp", "num_fp16_res")
    with open(GOLDEN / "sg3tree_sg2.pkl", "rb") as f:
        complete = pickles.load_networks(f)
    clamps = {"G": 256, "D": 256}
    assert complete["G_ema"].synthesis.b4.conv1.conv_clamp == clamps["G"]

    def edit(meta: dict[str, Any]) -> None:
        kwargs = meta["state"]["_init_kwargs"]
        flat = {**kwargs, **kwargs.get("synthesis_kwargs", {})}  # as that tree has them
        meta["state"]["_init_kwargs"] = {k: v for k, v in flat.items() if k not in (*omitted, "synthesis_kwargs")}
        meta["module_src"] = foreign.FOREIGN_SOURCE

    loaded = load(foreign.write(complete, edit=edit))
    for name in ("G", "D", "G_ema"):
        assert plain_attributes(loaded[name]) == plain_attributes(complete[name])
        own = loaded[name].init_kwargs
        expected = complete[name].init_kwargs
        assert (own.conv_clamp, own.num_fp16_res) == (expected.conv_clamp, expected.num_fp16_res)
    ref = golden("sg3tree_sg2")
    z, c = torch.from_numpy(ref["z"]), torch.from_numpy(ref["c"])
    img = loaded["G_ema"](z, c, truncation_psi=0.6, noise_mode="const", force_fp32=True)
    assert (img - torch.from_numpy(ref["img_psi06_const"])).abs().max() <= 1e-4 * ref["img_psi06_const"].std()


# ----------------------------------------------------------------------------------------------------------------------
# force_fp16


@pytest.mark.parametrize("c_dim", [0, 3])
def test_force_fp16(c_dim: int) -> None:
    nets = tiny_networks(c_dim=c_dim)
    content = foreign.write(nets)
    plain, forced = load(content), load(content, force_fp16=True)
    for name in ("G", "D", "G_ema"):
        assert_same_tensors(forced[name], nets[name])
        assert torch.equal(outputs(forced[name]), outputs(nets[name]))  # half precision is for GPUs only
        old, new = plain[name].init_kwargs, forced[name].init_kwargs
        target = new if name == "D" else new.synthesis_kwargs
        assert (target.num_fp16_res, target.conv_clamp) == (4, 256)
        target.update({k: v for k, v in (old if name == "D" else old.synthesis_kwargs).items() if k in target})
        assert new == old
        assert not forced[name].training
        assert not any(p.requires_grad for p in forced[name].parameters())
    blocks = [getattr(forced["G_ema"].synthesis, f"b{res}") for res in (4, 8, 16)]
    assert [block.use_fp16 for block in blocks] == [False, True, True]
    assert [block.conv1.conv_clamp for block in blocks] == [256] * 3
    assert [getattr(forced["D"], f"b{res}").use_fp16 for res in (8, 16)] == [True, True]
    assert forced["D"].b4.conv.conv_clamp == 256


def test_force_fp16_keeps_widths_by_layer() -> None:
    G = tiny_generator(layer_channels=[3, 5, 6, 4, 7, 2])
    D = tiny_discriminator(layer_channels=[5, 3, 7, 4, 6, 2, 9])
    forced = load(foreign.write({"G": G, "D": D, "G_ema": G}), force_fp16=True)
    assert_same_tensors(forced["G"], G)
    assert_same_tensors(forced["D"], D)
    assert forced["G"].init_kwargs.synthesis_kwargs.layer_channels == [3, 5, 6, 4, 7, 2]


def test_force_fp16_of_what_has_it_already_rebuilds_nothing() -> None:
    G = tiny_generator(num_fp16_res=4, conv_clamp=256)
    D = tiny_discriminator(num_fp16_res=4, conv_clamp=256)
    content = foreign.write({"G": G, "D": D, "G_ema": G})
    for name, network in load(content, force_fp16=True).items():
        if network is not None:
            assert network.init_kwargs == load(content)[name].init_kwargs


# ----------------------------------------------------------------------------------------------------------------------
# The dictionary


def test_optional_entries() -> None:
    nets = tiny_networks(resolution=8)
    del nets["augment_pipe"]
    loaded = load(foreign.write(nets))
    assert loaded["augment_pipe"] is None
    assert loaded["training_set_kwargs"] is None
    assert list(loaded) == ["G", "D", "G_ema", "training_set_kwargs", "augment_pipe"]


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ([1, 2], r"expected a dictionary with G, D, G_ema or a TensorFlow triple, found a list"),
        ((1, 2, 3), r"expected a dictionary with G, D, G_ema or a TensorFlow triple, found a tuple"),
        ({}, "holds no G, D, G_ema; found: nothing"),
        ({"generator": 1, 2: 3}, "holds no G, D, G_ema; found: 'generator', 2"),
        ({"G": 1, "D": None, "G_ema": 3}, "G: expected a network, found a int"),
        ({"G": 1, "D": 2, "G_ema": 3}, "G: expected a network, found a int"),
    ],
)
def test_pickles_without_networks(data: Any, match: str) -> None:
    with pytest.raises(CheckpointError, match=rf"^network pickle: .*{match}"):
        load(pickle.dumps(data))


@pytest.mark.parametrize(
    ("entry", "match"),
    [
        ({"augment_pipe": 3}, "augment_pipe: expected a network, found a int"),
        ({"training_set_kwargs": [1]}, "training_set_kwargs: expected a dictionary or None, found a list"),
    ],
)
def test_other_entries_of_the_wrong_kind(entry: dict[str, Any], match: str) -> None:
    with pytest.raises(CheckpointError, match=match):
        load(foreign.write({**tiny_networks(resolution=8), **entry}))


@pytest.mark.parametrize("trust_pickle", [False, True])
def test_a_detector_is_no_network(trust_pickle, tmp_path):
    path = tmp_path / "detector.pt"
    with open(path, "wb") as file:
        torchscript.save(torchscript.script(torch.nn.Flatten()), file)
    expected = rf"^{re.escape(str(path))}: a TorchScript file, such as a detector; expected the pickle of a network$"
    with pytest.raises(CheckpointError, match=expected):
        pickles.open_networks(str(path), trust_pickle=trust_pickle)
