"""Networks in safetensors files: to the bit, for every command, without pickle."""
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny, tiny_biggan
from torch_utils.checkpoint import CheckpointError
from torch_utils.misc import named_params_and_buffers
from training.augment import AugmentPipe
from training.checkpoints import safetensors_files
from training.checkpoints.pickles import open_networks


def same(first: Any, other: Any) -> bool:
    first_tensors, other_tensors = (dict(named_params_and_buffers(network)) for network in (first, other))
    return type(first) is type(other) and first_tensors.keys() == other_tensors.keys() and all(
        torch.equal(tensor, other_tensors[name]) and tensor.dtype == other_tensors[name].dtype
        for name, tensor in first_tensors.items())


NETWORKS = {
    "plain": lambda: {**tiny.tiny_networks(c_dim=3), "augment_pipe": AugmentPipe(xflip=1)},
    "widths": lambda: {"G_ema": tiny.tiny_generator("resnet", layer_channels=[5, 6, 7, 8, 9, 10], conv_clamp=256)},
    "biggan": tiny_biggan.tiny_networks,
    "hier": lambda: {"G_ema": tiny_biggan.tiny_generator("hier64")},
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_networks_come_back_to_the_bit(kind: str, tmp_path: Path) -> None:
    nets = NETWORKS[kind]()
    path = tmp_path / "nets.safetensors"
    safetensors_files.write(safetensors_files.distinct(nets), path)
    loaded = open_networks(str(path))
    for role, network in nets.items():
        assert loaded[role] is None if network is None else same(loaded[role], network)
    assert not any(p.requires_grad for p in loaded["G_ema"].parameters())
    assert not loaded["G_ema"].training
    again = tmp_path / "again.safetensors"
    safetensors_files.write(safetensors_files.distinct({role: loaded.get(role) for role in nets}), again)
    assert again.read_bytes() == path.read_bytes()


def test_images_are_the_same(tmp_path: Path) -> None:
    nets = tiny.tiny_networks()
    safetensors_files.write({"G_ema": nets["G_ema"]}, tmp_path / "g.safetensors")
    z, c = tiny.latents()
    loaded = open_networks(str(tmp_path / "g.safetensors"))
    assert torch.equal(loaded["G_ema"](z, c, noise_mode="const"), nets["G_ema"](z, c, noise_mode="const"))
    assert loaded["G"] is loaded["G_ema"]
    with pytest.raises(CheckpointError, match=r"g\.safetensors: holds no D, which is needed here; export the networks "
                                              r"with `parts=all` of export.py"):
        loaded["D"]


def test_the_safetensors_package_reads_and_writes_them_too(tmp_path: Path) -> None:
    package = pytest.importorskip("safetensors.torch", reason="the package safetensors is not installed")
    G = tiny.tiny_generator()
    path = tmp_path / "g.safetensors"
    safetensors_files.write({"G_ema": G}, path, {"licence": "none"})
    tensors = package.load_file(path)
    assert all(torch.equal(tensors[f"G_ema.{name}"], tensor) for name, tensor in named_params_and_buffers(G))
    metadata, _ = safetensors_files.read(io.BytesIO(path.read_bytes()))
    assert (metadata["format"], metadata["licence"]) == ("pt", "none")
    package.save_file(tensors, tmp_path / "other.safetensors", metadata)
    assert same(open_networks(str(tmp_path / "other.safetensors"))["G_ema"], G)


def file_of(header: Any, data: bytes = b"") -> io.BytesIO:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return io.BytesIO(len(text).to_bytes(8, "little") + text + data)


@pytest.mark.parametrize(("content", "message"), [
    (io.BytesIO(b"abc"), "no safetensors file"),
    (io.BytesIO(b"\x80\x04" + b"\xff" * 20), "no safetensors file: it states a header"),
    (io.BytesIO((100).to_bytes(8, "little") + b"{}"), "truncated: its header has 100 bytes, found 2"),
    (file_of(b"{"), "the header is no JSON"),
    (file_of(b"[" * 100_000), "the header is no JSON"),
    (file_of([1]), "the header: expected an object, found a list"),
    (file_of({"__metadata__": {"a": 1}}), "__metadata__: expected texts"),
    (file_of({"x": 5}), "'x': expected an object, found a int"),
    (file_of({"x": {"dtype": "F8"}}), "x: unknown dtype 'F8'"),
    (file_of({"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}), "expected a shape and two offsets"),
    (file_of({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}), "takes 8 bytes, found 4"),
    (file_of({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"abc"), "the file is truncated: x ends"),
    (file_of({}), "no configuration of the format"),
    (file_of({"__metadata__": {"config": "{"}}), "no configuration of the format"),
    (file_of({"__metadata__": {"config": json.dumps({"format": safetensors_files.FORMAT, "networks": {"G_ema": {
        "class": "os.system", "arguments": {}}}})}}), "G_ema: unknown class 'os.system'"),
    (file_of({"__metadata__": {"config": json.dumps({"format": safetensors_files.FORMAT, "networks": {"X": {}}})}}),
     "'X': expected one of G_ema"),
    (file_of({"__metadata__": {"config": json.dumps({"format": safetensors_files.FORMAT, "networks": {}})},
              "G.x": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}), "the configuration says nothing of G"),
])
def test_damaged_files_are_refused(content: io.BytesIO, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as error:
        safetensors_files.load_networks(content, "net.safetensors")
    assert str(error.value).startswith("net.safetensors: ")


def test_arguments_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    safetensors_files.write({"G_ema": tiny.tiny_generator()}, path)
    text = path.read_bytes()
    for old, new, message in ((b'z_dim\\": 16', b'z_dim\\": 17', "has shape"),
                              (b'c_dim\\": 0', b'c_dom\\": 0', "make no network"),
                              (b'channel_max\\": 16', b'channel_max\\":1e9', "has shape|far more weights"),
                              (b'w_dim\\": 16', b'w_dim\\":1e3', "make no network|far more weights|has shape")):
        assert old in text
        with pytest.raises(CheckpointError, match=message):
            safetensors_files.load_networks(io.BytesIO(text.replace(old, new)), "g")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    safetensors_files.write({"G_ema": tiny.tiny_generator(resolution=4)}, path)
    content = path.read_bytes()
    for size in range(0, len(content), 997):
        with pytest.raises(CheckpointError, match=r"truncated|no safetensors file"):
            safetensors_files.load_networks(io.BytesIO(content[:size]), "g")


def test_other_networks_cannot_be_stored(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"G_ema: a Linear cannot be kept in a \.safetensors file"):
        safetensors_files.write({"G_ema": torch.nn.Linear(1, 1)}, tmp_path / "g.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_half_precision_can_be_forced(tmp_path: Path) -> None:
    nets = tiny.tiny_networks()
    path = str(tmp_path / "n.safetensors")
    safetensors_files.write(safetensors_files.distinct(nets), path)
    assert open_networks(path, force_fp16=True)["G_ema"].synthesis.b16.use_fp16


@pytest.mark.parametrize("kind", NETWORKS)
def test_float16_files_are_rounded_once(kind: str, tmp_path: Path) -> None:
    nets = NETWORKS[kind]()
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    safetensors_files.write(safetensors_files.distinct(nets), whole)
    safetensors_files.write(safetensors_files.distinct(nets), half, half=True)
    with half.open("rb") as f:
        kinds = {tensor.dtype for tensor in safetensors_files.read(f)[1].values()}
    assert torch.float16 in kinds
    assert torch.float32 not in kinds
    loaded, expected = (open_networks(str(path)) for path in (half, whole))
    for role, network in nets.items():
        tensors = {} if network is None else dict(named_params_and_buffers(expected[role]))
        for name, tensor in named_params_and_buffers(loaded[role]) if tensors else ():
            rounded = tensors[name].half().float() if tensors[name].dtype == torch.float32 else tensors[name]
            assert tensor.dtype == tensors[name].dtype, name
            assert torch.equal(tensor, rounded), name
    again = tmp_path / "again.safetensors"
    safetensors_files.write(safetensors_files.distinct({role: loaded.get(role) for role in nets}), again, half=True)
    assert again.read_bytes() == half.read_bytes()


def test_values_that_float16_cannot_hold_are_named(tmp_path: Path) -> None:
    nets = tiny.tiny_networks()
    nets["D"].b4.fc.weight[0, 0] = 1e5
    with pytest.raises(CheckpointError, match=r"D\.b4\.fc\.weight has values up to 1e\+05, and float16 ends at 65504"):
        safetensors_files.write(safetensors_files.distinct(nets), tmp_path / "n.safetensors", half=True)
    assert list(tmp_path.iterdir()) == []


def test_networks_that_are_not_finite_are_named(tmp_path: Path) -> None:
    nets = tiny.tiny_networks()
    nets["D"].b4.fc.weight[0, 0] = float("nan")
    path = tmp_path / "nets.safetensors"
    safetensors_files.write(safetensors_files.distinct(nets), path)
    opened = open_networks(str(path))
    assert same(opened["G_ema"], nets["G_ema"])
    with pytest.raises(CheckpointError, match=r"nets\.safetensors: D: b4\.fc\.weight holds numbers that are not"):
        opened["D"]
