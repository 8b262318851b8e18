"""BigGAN checkpoints: finding, reading, inferring, converting and writing them."""
import collections
import copy
import io
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import legacy
from tests.helpers import GOLDEN
from tests.training.test_networks_biggan import DISCRIMINATORS, GENERATORS, SHAPES, make, public_network
from torch_utils.checkpoint import CheckpointError
from training.biggan import checkpoints as biggan_checkpoints
from training.biggan import layout as biggan_layout
from training.checkpoints import pickles
from training.networks_biggan import Discriminator, Generator

SMALL_G = GENERATORS["hier64"]
SMALL_D = DISCRIMINATORS["64"]


def small(cls: Any, options: dict[str, Any]) -> Any:
    return make(cls, options).float().eval()


@pytest.fixture(scope="module")
def nets() -> dict[str, Any]:
    G = small(Generator, SMALL_G)
    G_ema = copy.deepcopy(G)
    G_ema.linear.bias.add_(1)
    return {"G": G, "G_ema": G_ema, "D": small(Discriminator, SMALL_D)}


@pytest.fixture
def folder(nets: dict[str, Any], tmp_path: Path) -> Path:
    biggan_checkpoints.save_checkpoint(tmp_path / "run", nets, itr=7)
    return tmp_path / "run"


def assert_same(a: torch.nn.Module, b: torch.nn.Module) -> None:
    ours, other = a.state_dict(), b.state_dict()
    assert list(ours) == list(other)
    assert all(torch.equal(ours[name], other[name]) for name in ours)


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "state_dict.pth"
    data = torch.load(path, weights_only=False)
    data["config"].update(changes)
    torch.save(data, path)


def test_networks_that_are_not_finite_are_named(nets: dict[str, Any], tmp_path: Path) -> None:
    broken = copy.deepcopy(nets)
    broken["G_ema"].linear.bias.data[0] = float("inf")
    biggan_checkpoints.save_checkpoint(tmp_path / "run", broken, itr=7)
    loaded = biggan_checkpoints.load_networks(tmp_path / "run")
    assert_same(loaded["G"], nets["G"])
    with pytest.raises(CheckpointError, match=r"run: G_ema: linear\.bias holds numbers that are not finite"):
        loaded["G_ema"]


# Inference.


@pytest.mark.parametrize("name", SHAPES)
def test_options_follow_from_names_and_shapes(name: str) -> None:
    """All 62 public layouts: building from what was inferred gives the same layout again."""
    network = public_network(name)
    options = biggan_layout.options_of(network.state_dict())
    with torch.device("meta"):
        again = type(network)(**options, skip_init=True)
    assert layout_of(again) == layout_of(network)
    known = [key for key in options if key not in ("shared_dim", "G_attn", "D_attn")]  # those have several spellings
    assert {key: options[key] for key in known} == {key: network.options[key] for key in known}


def layout_of(network: torch.nn.Module) -> list[tuple[str, torch.Size]]:
    return [(name, tensor.shape) for name, tensor in network.state_dict().items()]


@pytest.mark.parametrize(("cls", "options"), [
    *[(Generator, options) for options in GENERATORS.values()],
    *[(Discriminator, options) for options in DISCRIMINATORS.values()],
    (Generator, {"img_resolution": 32, "G_channels": [9, 7, 8, 5], "G_attn": "16"}),
    (Generator, {"img_resolution": 64, "model": "BigGANdeep", "G_channels": [40, 32, 32, 16, 9], "hier": True,
                 "G_shared": True, "dim_z": 5}),
    (Generator, {"img_resolution": 32, "num_G_SVs": 2}),
    (Discriminator, {"img_resolution": 64, "D_channels": [9, 17, 17, 18, 19], "D_attn": "8"}),
    (Discriminator, {"img_resolution": 64, "model": "BigGANdeep", "D_ch": 4, "D_depth": 1, "num_D_SVs": 2}),
])
def test_unusual_networks_are_recognised_too(cls: Any, options: dict[str, Any]) -> None:
    with torch.device("meta"):
        network = cls(c_dim=3, skip_init=True, **options)
        again = cls(**biggan_layout.options_of(network.state_dict()), skip_init=True)
    assert layout_of(again) == layout_of(network)


@pytest.mark.parametrize(("drop", "message"), [
    ("output_layer", "neither a BigGAN generator"),
    ("blocks.0", "not a BigGAN network: it has no blocks.0.0.conv2.weight"),
    ("linear.weight", "not a BigGAN network: it has no linear.weight"),
    ("blocks.2", "2 stages fit no image size; known: 32, 64, 128, 256, 512"),
])
def test_other_networks_are_refused(nets: dict[str, Any], drop: str, message: str) -> None:
    tensors = {k: v for k, v in nets["G"].state_dict().items() if not k.startswith(drop)}
    with pytest.raises(CheckpointError, match=message):
        biggan_layout.options_of(tensors)
    tensors = {k: v for k, v in nets["D"].state_dict().items() if not k.startswith("blocks.0")}
    with pytest.raises(CheckpointError, match=r"it has no blocks\.0\.0\.conv2\.weight"):
        biggan_layout.options_of(tensors)


# Finding and reading.


def test_a_folder(nets: dict[str, Any], folder: Path) -> None:
    assert_same(biggan_checkpoints.load_generator(folder), nets["G_ema"])
    assert_same(biggan_checkpoints.load_generator(folder, ema=False), nets["G"])
    D = biggan_checkpoints.load_discriminator(folder)
    assert_same(D, nets["D"])
    assert not D.training
    assert not any(p.requires_grad for p in D.parameters())
    (folder / "G_ema.pth").unlink()
    assert_same(biggan_checkpoints.load_generator(folder), nets["G"])


def test_a_suffix(nets: dict[str, Any], folder: Path) -> None:
    biggan_checkpoints.save_checkpoint(folder, {"G_ema": nets["G"]}, suffix="best0")
    assert_same(biggan_checkpoints.load_generator(folder, suffix="best0"), nets["G"])
    with pytest.raises(CheckpointError, match=r"no D_best0\.pth in this folder; found: D\.pth, .*G_ema_best0\.pth"):
        biggan_checkpoints.load_discriminator(folder, suffix="best0")
    with pytest.raises(CheckpointError, match=r"G\.pth: a suffix \(best0\) goes with a folder"):
        biggan_checkpoints.load_generator(folder / "G.pth", suffix="best0")


def test_the_only_suffix_there_is(nets: dict[str, Any], tmp_path: Path) -> None:
    biggan_checkpoints.save_checkpoint(tmp_path, {"G_ema": nets["G"], "D": nets["D"]}, suffix="best0")
    loaded = pickles.open_networks(str(tmp_path))
    assert_same(loaded["G_ema"], nets["G"])
    assert_same(loaded["D"], nets["D"])
    biggan_checkpoints.save_checkpoint(tmp_path, {"G_ema": nets["G_ema"]}, suffix="best1")
    with pytest.raises(CheckpointError, match=r"found: D_best0\.pth, .*; .*:SUFFIX takes those with a suffix"):
        pickles.open_networks(str(tmp_path))
    assert_same(pickles.open_networks(f"{tmp_path}:best1")["G_ema"], nets["G_ema"])
    names = [file.name for file in biggan_checkpoints.network_files(f"{tmp_path}:best1")]
    assert names == ["G_ema_best1.pth", "state_dict_best1.pth"]


def test_of_several_steps_the_last_is_read(nets: dict[str, Any], tmp_path: Path) -> None:
    for step in (98000, 100000, 9000):
        torch.save(nets["G"].state_dict(), tmp_path / f"model=G-best-weights-step={step}.pth")
    assert [file.name for file in biggan_checkpoints.network_files(tmp_path)] == [
        "model=G-best-weights-step=100000.pth"]


def test_addresses_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"https://example\.org/G\.pth: such files are read from a disk"):
        pickles.open_networks("https://example.org/G.pth")


def test_reading_leaves_the_random_state_alone(folder: Path) -> None:
    before = torch.random.get_rng_state()
    biggan_checkpoints.load_generator(folder)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_format_before_zip_archives(nets: dict[str, Any], tmp_path: Path) -> None:
    torch.save(nets["G"].state_dict(), tmp_path / "G.pth", _use_new_zipfile_serialization=False)
    assert_same(biggan_checkpoints.load_generator(tmp_path), nets["G"])


def test_half_precision_files_become_float32(nets: dict[str, Any], tmp_path: Path) -> None:
    torch.save(copy.deepcopy(nets["D"]).half().state_dict(), tmp_path / "D.pth")
    D = biggan_checkpoints.load_discriminator(tmp_path)
    assert {p.dtype for p in D.parameters()} == {torch.float32}
    torch.testing.assert_close(D.linear.weight, nets["D"].linear.weight, rtol=1e-2, atol=1e-2)


def test_files_that_are_something_else(nets: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "D.pth"
    with pytest.raises(CheckpointError, match=r"D\.pth: cannot be read: No such file"):
        biggan_checkpoints.load_discriminator(path)
    with pytest.raises(CheckpointError, match=r"no G_ema\.pth or G\.pth in this folder; found: no checkpoint"):
        biggan_checkpoints.load_generator(tmp_path)
    torch.save(nets["G"].state_dict(), path)
    with pytest.raises(CheckpointError, match=r"D\.pth: expected a discriminator, found a generator"):
        biggan_checkpoints.load_discriminator(path)
    optimizer = torch.optim.Adam(nets["D"].parameters())
    torch.save(optimizer.state_dict(), path)
    with pytest.raises(CheckpointError, match=r"D\.pth: this is the state of an optimizer"):
        biggan_checkpoints.load_discriminator(path)
    torch.save({"a": 1}, path)
    with pytest.raises(CheckpointError, match=r"D\.pth: expected a dictionary of a network's tensors"):
        biggan_checkpoints.load_discriminator(path)


def test_tensors_that_do_not_fit(nets: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "other_name.pth"
    state = nets["D"].state_dict()
    torch.save({**state, "blocks.0.0.conv1.bias": torch.zeros([5])}, path)
    with pytest.raises(CheckpointError, match=r"name\.pth: blocks\.0\.0\.conv1\.bias has shape \[5\], expected \[4\]"):
        biggan_checkpoints.load_discriminator(path)
    del state["blocks.1.0.conv1.bias"]
    torch.save({**state, "surplus": torch.zeros([5])}, path)
    with pytest.raises(CheckpointError, match=r"missing in the file: blocks\.1\.0\.conv1\.bias; unknown here: surplus"):
        biggan_checkpoints.load_discriminator(path)


@pytest.mark.parametrize(("name", "tensor"), [
    ("linear.weight", torch.zeros([5])), ("blocks.0.0.conv1.weight", torch.zeros([])),
    ("shared.weight", torch.ones([3])),
])
def test_tensors_of_another_rank(nets: dict[str, Any], tmp_path: Path, name: str, tensor: torch.Tensor) -> None:
    torch.save({**nets["G"].state_dict(), name: tensor}, tmp_path / "G.pth")
    with pytest.raises(CheckpointError, match=r"G\.pth: tensors of unexpected shapes"):
        biggan_checkpoints.load_generator(tmp_path)


def test_nothing_in_a_file_is_executed(nets: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "executed"),)

    for zipped in (True, False):
        data = {"config": {"G_ch": 4, "trap": Trap()}, "best_FID": torch.tensor(3.0), "relu": torch.nn.ReLU()}
        torch.save(data, folder / "state_dict.pth", _use_new_zipfile_serialization=zipped)
        assert_same(biggan_checkpoints.load_generator(folder), nets["G_ema"])
        torch.save({**nets["D"].state_dict(), "trap": Trap()}, folder / "D.pth", _use_new_zipfile_serialization=zipped)
        with pytest.raises(CheckpointError, match=r"D\.pth: expected a dictionary of a network's tensors"):
            biggan_checkpoints.load_discriminator(folder)
    assert not (tmp_path / "executed").exists()


# Configurations.


def test_what_tensors_do_not_tell_comes_from_the_configuration(folder: Path) -> None:
    edit_config(folder, SN_eps=1e-6, BN_eps=1e-3, num_G_SV_itrs=2, num_D_SV_itrs=3)
    G, D = biggan_checkpoints.load_generator(folder), biggan_checkpoints.load_discriminator(folder)
    assert (G.options["BN_eps"], G.options["SN_eps"], G.options["num_G_SV_itrs"]) == (1e-3, 1e-6, 2)
    assert (D.options["SN_eps"], D.options["num_D_SV_itrs"]) == (1e-6, 3)
    (folder / "state_dict.pth").unlink()
    assert biggan_checkpoints.load_generator(folder).options["BN_eps"] == 1e-5


def test_an_old_configuration_with_other_spellings(nets: dict[str, Any], folder: Path) -> None:
    path = folder / "state_dict.pth"
    data = torch.load(path, weights_only=False)
    config = {**data["config"], "model": "model", "dim_z": 14, "shared_dim": 13, "G_attn": "8_64_1024"}
    for name in ("G_depth", "D_depth", "D_wide", "G_param"):
        config.pop(name, None)
    torch.save({**data, "config": config}, path)
    assert_same(biggan_checkpoints.load_generator(folder), nets["G_ema"])
    assert_same(biggan_checkpoints.load_discriminator(folder), nets["D"])


@pytest.mark.parametrize(("changes", "message"), [
    ({"G_ch": 8}, r"widths \[128, 128, 64, 32, 16\] instead of \[64, 64, 32, 16, 8\]"),
    ({"G_attn": "0"}, "attention after no block instead of"),
    ({"n_classes": 4}, "number of classes 4 instead of 3"),
    ({"dim_z": 20}, "size of z 20 instead of 10"),
    ({"shared_dim": 20}, "shared embedding 20 instead of 13"),
    ({"hier": False}, "hierarchical z False instead of True"),
    ({"model": "BigGANdeep"}, "model BigGANdeep instead of BigGAN"),
    ({"resolution": 32}, "image size 32 instead of 64"),
    ({"G_param": "other"}, "spectral normalisation none instead of SN"),
    ({"num_G_SVs": 2}, "singular values 2 instead of 1"),
    ({"G_attn": None}, r"an option is not what it should be \(ValueError: attention"),
    ({"resolution": 48}, r"an option is not what it should be \(KeyError"),
    ({"n_classes": torch.tensor([1, 2])}, r"an option is not what it should be \(RuntimeError"),
    ({"BN_eps": "1e-5"}, "BN_eps is not what it should be: '1e-5'"),
    ({"BN_eps": float("nan")}, "BN_eps is not what it should be: nan"),
    ({"SN_eps": -1}, "SN_eps is not what it should be: -1"),
    ({"norm_style": "in"}, "norm_style 'in' is not supported, only bn"),
    ({"G_nl": "tanh"}, "G_nl 'tanh' is not supported"),
])
def test_a_configuration_of_another_network(folder: Path, changes: dict[str, Any], message: str) -> None:
    edit_config(folder, **changes)
    with pytest.raises(CheckpointError, match=rf"state_dict\.pth: .*{message}.*\(in G_ema\.pth\)"):
        biggan_checkpoints.load_generator(folder)


def test_a_state_dict_without_configuration(folder: Path) -> None:
    torch.save({"itr": 3}, folder / "state_dict.pth")
    with pytest.raises(CheckpointError, match=r"state_dict\.pth: expected a dictionary with an entry 'config'"):
        biggan_checkpoints.load_generator(folder)


def test_a_thin_discriminators_configuration(folder: Path) -> None:
    edit_config(folder, D_wide=False)
    with pytest.raises(CheckpointError, match="hidden widths"):
        biggan_checkpoints.load_discriminator(folder)


# Variants of the public layout.


def renamed(state: dict[str, torch.Tensor], statistics: str) -> dict[str, torch.Tensor]:
    return {name.replace(".stored_", f".bn.{statistics}_"): tensor for name, tensor in state.items()}


def test_the_other_batch_norms_of_the_public_code(nets: dict[str, Any], tmp_path: Path) -> None:
    state = nets["G"].state_dict()
    norms = [name.removesuffix(".stored_mean") for name in state if name.endswith(".stored_mean")]
    idle = {f"{name}.bn.accumulation_counter": torch.zeros([1]) for name in norms}
    torch.save({**renamed(state, "stored"), **idle}, tmp_path / "G.pth")
    assert_same(biggan_checkpoints.load_generator(tmp_path), nets["G"])
    replicas = {f"{name}.bn.num_batches_tracked": torch.tensor(9) for name in norms}
    torch.save({**renamed(state, "running"), **replicas}, tmp_path / "G.pth")
    assert_same(biggan_checkpoints.load_generator(tmp_path), nets["G"])
    sums = {name: tensor * 4 if ".stored_" in name else tensor for name, tensor in state.items()}
    counters = {f"{name}.bn.accumulation_counter": torch.full([1], 4.0) for name in norms}
    torch.save({**renamed(sums, "stored"), **counters}, tmp_path / "G.pth")
    assert_same(biggan_checkpoints.load_generator(tmp_path), nets["G"])
    counters[f"{norms[0]}.bn.accumulation_counter"] = torch.zeros([2])
    torch.save({**renamed(sums, "stored"), **counters}, tmp_path / "G.pth")
    with pytest.raises(CheckpointError, match=r"accumulation_counter: expected one number, found \[2\]"):
        biggan_checkpoints.load_generator(tmp_path)


def test_files_converted_from_tensorflow(nets: dict[str, Any], tmp_path: Path) -> None:
    for role, name in (("G", "biggan-64.pth"), ("D", "D.pth")):
        state = {k: v for k, v in nets[role].state_dict().items() if not k.endswith("sv0")}
        torch.save(state, tmp_path / name)
    G = biggan_checkpoints.load_generator(tmp_path / "biggan-64.pth")
    D = biggan_checkpoints.load_discriminator(tmp_path)
    assert (G.options["BN_eps"], G.options["SN_eps"], D.options["SN_eps"]) == (1e-4, 1e-4, 1e-4)
    assert G.output_layer.get_submodule("0").eps == 1e-5
    assert torch.equal(G.linear.sv0, torch.ones([1]))


# Writing.


def test_written_files_are_what_the_public_code_reads(nets: dict[str, Any], tmp_path: Path) -> None:
    files = biggan_checkpoints.save_checkpoint(tmp_path / "run", nets, suffix="copy1", itr=12)
    assert [file.name for file in files] == [f"{role}_copy1.pth" for role in ("G", "G_ema", "D", "state_dict")]
    state = torch.load(files[0], weights_only=True)
    assert type(state) is collections.OrderedDict
    assert list(state) == list(nets["G"].state_dict())
    assert {type(tensor) for tensor in state.values()} == {torch.Tensor}
    data = torch.load(files[-1], weights_only=False)
    assert {k: v for k, v in data.items() if k != "config"} == {
        "itr": 12, "epoch": 0, "save_num": 0, "save_best_num": 0, "best_IS": 0, "best_FID": 999999}
    config = data["config"]
    assert isinstance(config["G_activation"], torch.nn.ReLU)
    expected = {"resolution": 64, "n_classes": 3, "G_ch": 4, "D_ch": 4, "dim_z": 13, "hier": True, "G_shared": True,
                "G_attn": "8_64", "D_attn": "4_16", "SN_eps": 1e-6, "norm_style": "bn", "model": "BigGAN"}
    assert {name: config[name] for name in expected} == expected
    assert not {"img_channels", "c_dim", "img_resolution", "G_channels", "D_channels"} & set(config)


def test_what_the_public_code_cannot_load_is_said() -> None:
    assert biggan_checkpoints.unknown_to_public_code(small(Generator, SMALL_G)) == []
    odd = small(Generator, {**GENERATORS["plain32"], "G_param": "none", "img_channels": 1})
    result = biggan_checkpoints.unknown_to_public_code(odd)
    assert [text.split(",")[0] for text in result] == ["it is for images of 1 channel(s)",
                                                      "it has no spectral normalisation"]


def test_legacy_writes_a_folder(nets: dict[str, Any], tmp_path: Path) -> None:
    source, back = tmp_path / "student.pkl", tmp_path / "back.pkl"
    pickles.save_networks(pickles.snapshot_data({**nets, "augment_pipe": None}, None), source)
    for arguments in ((source, tmp_path / "public"), (tmp_path / "public", back)):
        result = CliRunner().invoke(legacy.main, [f"--{k}={v}" for k, v in zip(("source", "dest"), arguments)])
        assert (result.exit_code, result.stdout) == (0, f"{arguments[1]}: the networks of {arguments[0]}\n")
    assert sorted(file.name for file in (tmp_path / "public").iterdir()) == ["D.pth", "G.pth", "G_ema.pth",
                                                                           "state_dict.pth"]
    loaded = pickles.open_networks(str(back))
    for name, network in nets.items():
        assert_same(loaded[name], network)
    odd = {name: small(Generator, {**GENERATORS["plain32"], "img_channels": 1}) for name in ("G", "G_ema")}
    odd |= {"D": nets["D"], "augment_pipe": None}
    pickles.save_networks(pickles.snapshot_data(odd, None), tmp_path / "o.pkl")
    result = CliRunner().invoke(legacy.main, [f"--source={tmp_path / 'o.pkl'}", f"--dest={tmp_path / 'odd'}"])
    assert "Warning: the public code cannot load G: it is for images of 1 channel(s), not 3" in result.stderr
    result = CliRunner().invoke(legacy.main, [f"--source={source}", f"--dest={tmp_path / 'public' / 'D.pth'}"])
    assert "D.pth is a file; a BigGAN is written into a folder" in result.output


def test_a_network_of_other_widths_survives_writing(tmp_path: Path) -> None:
    G = small(Generator, {"img_resolution": 32, "G_channels": [9, 8, 7, 5], "G_attn": "0"})
    biggan_checkpoints.save_checkpoint(tmp_path, {"G": G})
    loaded = biggan_checkpoints.load_generator(tmp_path, ema=False)
    assert_same(loaded, G)
    assert loaded.options["G_channels"] == [9, 8, 7, 5]


def test_the_reference_files_round_trip(tmp_path: Path) -> None:
    G = biggan_checkpoints.load_generator(GOLDEN / "biggan_cifar32_G_ema.pth")
    D = biggan_checkpoints.load_discriminator(GOLDEN / "biggan_cifar32_D.pth")
    biggan_checkpoints.save_checkpoint(tmp_path, {"G_ema": G, "D": D})
    for role, network in (("G_ema", G), ("D", D)):
        written = torch.load(tmp_path / f"{role}.pth", weights_only=True)
        original = torch.load(GOLDEN / f"biggan_cifar32_{role}.pth", weights_only=True)
        assert list(written) == list(original)
        assert all(torch.equal(written[name], original[name]) for name in original)
        assert not network.training


# Together with other network files.


def test_open_networks_reads_folders_and_files(nets: dict[str, Any], folder: Path) -> None:
    loaded = pickles.open_networks(str(folder))
    for role, network in nets.items():
        assert_same(loaded[role], network)
    assert loaded["training_set_kwargs"] is None
    assert loaded["augment_pipe"] is None
    (folder / "G.pth").unlink()
    (folder / "D.pth").unlink()
    loaded = pickles.open_networks(str(folder))
    assert_same(loaded["G"], nets["G_ema"])
    with pytest.raises(CheckpointError, match=r"run: holds no D, which is needed here; put D\.pth beside the others"):
        loaded["D"]
    assert_same(pickles.open_networks(str(folder / "G_ema.pth"))["G_ema"], nets["G_ema"])
    with pytest.raises(CheckpointError, match="biggan networks have no half precision; leave out `force_fp16`"):
        pickles.open_networks(str(folder), force_fp16=True)


def test_open_networks_of_a_discriminator_alone(nets: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    loaded = pickles.open_networks(str(folder / "D.pth"))
    assert_same(loaded["D"], nets["D"])
    with pytest.raises(CheckpointError, match="holds no G_ema"):
        loaded["G_ema"]
    with pytest.raises(CheckpointError, match=r"no G_ema\.pth or G\.pth or D\.pth in this folder"):
        pickles.open_networks(str(tmp_path))


@torch.no_grad()
def test_our_own_pickle(nets: dict[str, Any]) -> None:
    stream = io.BytesIO()
    pickle.dump(pickles.snapshot_data({**nets, "augment_pipe": None}, {"path": "x"}), stream, protocol=4)
    stream.seek(0)
    loaded = pickles.load_networks(stream)
    assert loaded["training_set_kwargs"] == {"path": "x"}
    for role, network in nets.items():
        assert_same(loaded[role], network)
        assert loaded[role].options == network.options
        assert type(loaded[role]) is type(network)
    z, c = torch.randn([2, nets["G"].z_dim]), torch.eye(3)[:2]
    torch.testing.assert_close(loaded["G"](z, c), nets["G"](z, c), rtol=0, atol=0)


def test_our_own_pickle_with_options_that_make_no_network(nets: dict[str, Any]) -> None:
    broken = copy.deepcopy(nets)
    broken["G"].options["img_resolution"] = 48
    stream = io.BytesIO(pickle.dumps(pickles.snapshot_data({**broken, "augment_pipe": None}, None), protocol=4))
    with pytest.raises(CheckpointError, match=r"G: .*img_resolution: expected one of 32, .*, found 48"):
        pickles.load_networks(stream)
    stream = io.BytesIO(pickle.dumps(pickles.snapshot_data({**nets, "augment_pipe": None}, None), protocol=4))
    with pytest.raises(CheckpointError, match="a BigGANGenerator has no half precision"):
        pickles.load_networks(stream, force_fp16=True)
