"""Damaged and hostile files of networks: one line with the file's name and what is wrong, no other exception."""
import copy
import functools
import io
import pickle
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import strategies as st

from tests.helpers import GOLDEN
from tests.tiny import tiny_discriminator, tiny_generator, tiny_networks
from tests.torch_utils.checkpoint import streams as s
from tests.torch_utils.checkpoint.hostile import NamedFile, little_memory
from tests.training import foreign_pickles as foreign
from torch_utils import checkpoint
from torch_utils.checkpoint import CheckpointError
from training.augment import AugmentPipe
from training.checkpoints import pickles

BAD_BYTES = b"\x00\x01\x7f\xff.RcbQP2(t0}]\x93\x81\x82\x8c\x94\x95\x98jrh"  # mostly pickle operations


@functools.cache
def small_file() -> bytes:
    """A whole snapshot without program text, so that what is damaged counts."""
    G = tiny_generator(resolution=8, channel_base=32, c_dim=2)
    D = tiny_discriminator(resolution=8, channel_base=32, c_dim=2, mapping_kwargs={"num_layers": 1})
    nets = {"G": G, "D": D, "G_ema": G, "augment_pipe": AugmentPipe(xflip=1)}
    data = pickles.snapshot_data(nets, {"path": "x"})
    return foreign.write({**data, "G": data["G_ema"]}, edit=foreign.without_source)


def attempt(content: bytes, **kwargs: Any) -> str | None:
    """Loads a file; the error's text if it is refused. Any other exception, and unprintable text, fails the test."""
    try:
        pickles.load_networks(NamedFile(content), **kwargs)
    except CheckpointError as error:
        line = str(error)
        assert line.startswith("evil.pkl: ")
        assert line.isprintable()
        return line
    return None


def test_the_file_to_be_damaged_is_whole() -> None:
    assert attempt(small_file()) is None
    assert attempt(small_file(), force_fp16=True) is None


@hypothesis.settings(max_examples=150, deadline=None, derandomize=True, database=None)
@hypothesis.given(place=st.floats(0, 1, exclude_max=True), value=st.sampled_from(BAD_BYTES))
def test_one_byte_replaced(place: float, value: int) -> None:
    damaged = bytearray(small_file())
    damaged[int(place * len(damaged))] = value
    with little_memory():
        attempt(bytes(damaged))


@hypothesis.settings(max_examples=50, deadline=None, derandomize=True, database=None)
@hypothesis.given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), gap=st.integers(0, 6))
def test_bits_flipped_and_bytes_lost(place: float, bit: int, gap: int) -> None:
    damaged = bytearray(small_file())
    where = int(place * len(damaged))
    damaged[where] ^= 1 << bit
    del damaged[where + 1 : where + 1 + gap]
    with little_memory():
        attempt(bytes(damaged))


@hypothesis.settings(max_examples=200, deadline=None, derandomize=True, database=None)
@hypothesis.given(content=st.binary(max_size=64))
def test_arbitrary_bytes(content: bytes) -> None:
    with little_memory():
        assert attempt(b"\x80\x04" + content) is not None
        assert attempt(content) is not None


@pytest.mark.parametrize("part", range(50))
def test_truncated(part: int) -> None:
    content = small_file()
    line = attempt(content[: len(content) * part // 50])
    assert line is not None
    assert "damaged" in line or "empty" in line


@pytest.mark.parametrize("name", ["tf_config_f_64", "cifar32", "sg3tree_sg2"])
def test_golden_files_truncated(name: str) -> None:
    content = (GOLDEN / f"{name}.pkl").read_bytes()
    for length in (100, 10_000, len(content) // 2, len(content) - 1):
        assert "truncated, damaged or not a network pickle" in str(attempt(content[:length]))


# ----------------------------------------------------------------------------------------------------------------------
# Whole files that describe no network


def edited(role: str, part: str, **state: Any) -> bytes:
    """The small file with some state of one part of a network replaced; ... stands for none."""
    with open_small() as f:
        nets = pickles.load_networks(f)
    target = nets[role].get_submodule(part)
    reference = copy.copy(vars(target))

    def edit(meta: dict[str, Any]) -> None:
        meta["module_src"] = ""
        if meta["state"].get("_parameters") is reference["_parameters"] and "_buffers" in reference:
            for key, value in state.items():
                if key == "class_name":
                    meta["class_name"] = value
                elif value is ...:
                    meta["state"].pop(key)
                else:
                    meta["state"][key] = value(meta["state"][key]) if callable(value) else value

    return foreign.write(nets, edit=edit)


def open_small() -> io.BytesIO:
    return NamedFile(small_file())


def tensor_of(shape: list[int]) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.zeros(shape), requires_grad=False)


HUGE = 10**12


@pytest.mark.parametrize(
    ("role", "part", "state", "match"),
    [
        ("G", "", {"class_name": "Projector"}, "unknown network class 'Projector'; known: Generator, "),
        ("G", "", {"class_name": "SuperresGenerator"}, "'SuperresGenerator' is of StyleGAN-XL, whose networks"),
        ("G", "synthesis.b4.conv1", {"class_name": "Conv"}, "synthesis.b4.conv1 is a Conv in the file, expected a S"),
        ("D", "b4.fc", {"class_name": "Conv"}, "b4.fc is a Conv in the file, expected a FullyConnectedLayer"),
        ("G", "", {"z_dim": ...}, "Generator: the file has no attribute 'z_dim'"),
        ("G", "", {"z_dim": "x"}, "Generator: z_dim should be int, the file has 'x'"),
        ("G", "", {"z_dim": 16.0}, "z_dim should be int"),
        ("G", "", {"z_dim": True}, "z_dim should be int"),
        ("G", "", {"z_dim": [[1]] * 1000}, r"z_dim should be int, the file has \[\[1\], \[1\]"),
        ("G", "", {"z_dim": 17}, r"mapping\.fc0\.weight has shape \[16, 32\], expected \[16, 33\]"),
        ("G", "", {"z_dim": HUGE}, "this architecture needs far more weights than the file holds"),
        ("G", "", {"z_dim": 2**70}, "needs far more weights"),
        ("G", "", {"z_dim": -100}, "Error"),
        ("G", "", {"w_dim": HUGE}, "needs far more weights"),
        ("G", "", {"c_dim": HUGE}, "needs far more weights"),
        ("G", "", {"img_channels": HUGE}, "needs far more weights"),
        ("G", "", {"num_ws": 5}, "the network.num_ws is 5 in the file, but 4"),
        ("G", "mapping", {"num_layers": HUGE}, "mapping: num_layers is 1000000000000, but there are 3 submodules"),
        ("G", "mapping", {"num_layers": -1}, "num_layers is -1"),
        ("G", "mapping", {"num_layers": 3}, "tensors do not match this architecture; missing in the file: mapping.fc2"),
        ("G", "mapping", {"num_layers": 1}, r"unknown here: mapping\.fc1\.bias, mapping\.fc1\.weight"),
        ("G", "mapping", {"w_avg_beta": "x"}, "w_avg_beta should be int or float or None"),
        ("G", "mapping", {"z_dim": 3}, r"mapping\.z_dim is 3 in the file, but 16"),
        ("G", "mapping.fc1", {"bias_gain": 0.5}, r"mapping\.fc1\.bias_gain is 0\.5 in the file, but 0\.01"),
        ("G", "mapping.fc1", {"weight_gain": float("nan")}, r"mapping\.fc1\.weight_gain is nan"),
        ("G", "synthesis", {"img_resolution": 12}, "img_resolution: expected a power of two from 4 to 16384, found 12"),
        ("G", "synthesis", {"img_resolution": 2**100000}, "img_resolution: expected a power of two|Exceeds the limit"),
        ("G", "synthesis", {"img_resolution": 16}, "SynthesisNetwork: the file has no submodule 'b16'"),
        ("G", "synthesis", {"_modules": {}}, "SynthesisNetwork: the file has no submodule 'b4'"),
        ("G", "synthesis", {"_modules": [1]}, r"_modules should be a dictionary of names, the file has \[1\]"),
        ("G", "synthesis", {"_modules": {1: 2}}, "_modules should be a dictionary of names"),
        ("G", "synthesis", {"_parameters": 3}, "_parameters should be a dictionary of names, the file has 3"),
        ("G", "synthesis.b8", {"use_fp16": 1}, "use_fp16 should be bool, the file has 1"),
        ("G", "synthesis.b4", {"use_fp16": True}, "use_fp16: no num_fp16_res gives these blocks: {4: True, 8: False}"),
        ("G", "synthesis.b8", {"architecture": "orig"}, "architecture: expected one value throughout the network, fou"),
        ("G", "synthesis.b4.conv1", {"conv_clamp": 3}, "conv_clamp: expected one value throughout the network, found"),
        ("G", "synthesis.b8.conv1", {"activation": "x"}, "activation: expected one value throughout"),
        ("G", "synthesis.b8.conv1", {"_parameters": {}}, "SynthesisLayer: the file has no tensor 'weight'"),
        ("G", "synthesis.b8.conv1", {"up": 2}, r"synthesis\.b8\.conv1\.up is 2 in the file, but 1 in the network"),
        (
            "G",
            "synthesis.b8.conv1",
            {"_parameters": lambda p: {**p, "weight": tensor_of([4])}},
            r"SynthesisLayer: weight has shape \[4\]",
        ),
        (
            "G",
            "synthesis.b8.conv1",
            {"_parameters": lambda p: {**p, "bias": p["noise_strength"]}},
            "the same tensor is used in several places",
        ),
        (
            "G",
            "synthesis.b8.conv1",
            {"_buffers": lambda b: {**b, "extra": torch.zeros([1])}},
            r"missing in the file: none; unknown here: synthesis\.b8\.conv1\.extra",
        ),
        ("G", "synthesis.b8", {"_modules": lambda m: {**m, "conv0": m["conv1"]}}, "is also another part of the"),
        ("D", "", {"img_resolution": 4}, "unknown here|tensors do not match|has shape"),
        ("D", "", {"c_dim": 0}, "tensors do not match"),
        ("D", "b4", {"architecture": "round"}, "architecture: expected 'orig', 'skip' or 'resnet', found 'round'"),
        ("D", "b4", {"cmap_dim": HUGE}, "needs far more weights"),
        ("D", "b4.mbstd", {"num_channels": HUGE}, "needs far more weights"),
        ("D", "b4.mbstd", {"group_size": "x"}, "group_size should be int or None"),
        ("D", "b8", {"_modules": {}}, "DiscriminatorBlock: the file has no submodule 'conv0'"),
        ("D", "b8", {"in_channels": 3}, "b8.in_channels is 3 in the file, but 0"),
        ("augment_pipe", "", {"colour": 1.0}, "unexpected keyword argument 'colour'"),
        ("augment_pipe", "", {"xflip": "x"}, "xflip should be int or float or list"),
        ("augment_pipe", "", {"xflip": [1]}, "TypeError"),
        ("augment_pipe", "", {"imgfilter_bands": ["x"]}, "imgfilter_bands: expected a list of numbers, found"),
        ("augment_pipe", "", {"imgfilter_bands": 1}, "imgfilter_bands: expected a list of numbers, found 1"),
    ],
)
def test_state_that_makes_no_network(role: str, part: str, state: dict[str, Any], match: str) -> None:
    content = edited(role, part, **state)
    with little_memory(), pytest.raises(CheckpointError, match=rf"^evil.pkl: {role}: .*{match}") as caught:
        pickles.load_networks(NamedFile(content))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1100


def test_descendant_of_stylegan3() -> None:
    with open_small() as f:
        nets = pickles.load_networks(f)
    nets["G_ema"].synthesis.input = tiny_generator(resolution=8).mapping.fc0
    with pytest.raises(CheckpointError, match=r"^evil\.pkl: G_ema: this StyleGAN3 generator was built with act"):
        pickles.load_networks(NamedFile(foreign.write(nets)))


def test_a_network_inside_itself() -> None:
    """Its parts would be endless."""
    inner = b"q\x00" + s.plain("_modules") + b"}" + s.plain("self") + b"Ns" + b"s"
    state = b"}" + inner
    data = s.stream(s.dictionary(**{key: s.persistent(state=state) for key in ("G", "D", "G_ema")}))
    assert "Generator: the file has no submodule 'synthesis'" in str(attempt(data))


def test_records_within_records_without_end() -> None:
    record = s.persistent(class_name="Generator", state=b"}")
    for _ in range(2000):
        record = s.persistent(state=s.dictionary(_modules=s.dictionary(mapping=record)))
    data = s.stream(s.dictionary(G=record, D=record, G_ema=record))
    assert "the file has no submodule 'synthesis'" in str(attempt(data))
    result = checkpoint.read(NamedFile(s.stream(record)))
    assert len(list(result.modules())) == 2001
    assert result.tensors() == {}


def test_unknown_class_with_trust(tmp_path: Path) -> None:
    """--trust-pickle: what the file contains is executed, and the file's own class comes out."""
    marker = tmp_path / "executed"
    source = f"import torch\nopen({str(marker)!r}, 'w').close()\nclass Strange(torch.nn.Module):\n    weight = 3\n"
    network = s.persistent(class_name="Strange", module_src=source, state=s.plain(vars(torch.nn.Module())))
    data = s.stream(s.dictionary(G=network, D=network, G_ema=network))
    assert "G: unknown network class 'Strange'" in str(attempt(data))
    assert not marker.exists()
    loaded = pickles.load_networks(io.BytesIO(data), trust_pickle=True)
    assert marker.exists()
    assert type(loaded["G_ema"]).__name__ == "Strange"
    assert loaded["G_ema"].weight == 3
    assert "a Strange has no half precision" in str(attempt(data, trust_pickle=True, force_fp16=True))


def test_trusted_file_of_ours_gives_our_classes() -> None:
    nets = tiny_networks(resolution=8)
    loaded = pickles.load_networks(io.BytesIO(pickle.dumps(nets)), trust_pickle=True)
    assert type(loaded["G"]) is type(nets["G"])
