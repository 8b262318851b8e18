"""Costs: the published numbers, a count by PyTorch's own counter, and the table."""
import json
import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from dgl import cost, student
from dgl.architectures import costs_of
from dnnlib.errors import UserError
from tests import tiny
from training.checkpoints import pickles
from training.networks import Generator, SynthesisLayer

COSTS = Path(__file__).parents[2] / "docs" / "benchmarks" / "costs.md"


def config_f(resolution: int, channel_base: int = 32768) -> Any:
    return Generator(
        z_dim=512, c_dim=0, w_dim=512, img_resolution=resolution, img_channels=3,
        mapping_kwargs={"num_layers": 8}, synthesis_kwargs={"channel_base": channel_base, "channel_max": 512},
    )


def totals(network: Any) -> tuple[int, int, int]:
    layers = costs_of(network)
    return (sum(p.numel() for p in network.parameters()), sum(layer.macs_in for layer in layers),
            sum(layer.macs_out for layer in layers))


def test_config_f_at_1024_and_its_students() -> None:
    G = config_f(1024)
    assert totals(G) == (30_370_060, 74_266_894_336, 141_874_880_512)
    dense = sum(layer.macs_in for layer in costs_of(G) if "affine" in layer.layer or "mapping" in layer.layer)
    assert dense == 6_750_208
    assert totals(student.resized(G, Fraction(1, 2)))[:2] == (10_339_740, 18_618_740_736)
    assert totals(student.resized(G, Fraction(1, 4)))[:2] == (4_746_532, 4_681_480_192)  # quoted as 4.69 G


def test_config_f_at_256_and_its_student() -> None:
    G = config_f(256)
    assert totals(G)[:2] == (30_034_338, 45_124_673_536)
    dense = sum(layer.macs_in for layer in costs_of(G) if "affine" in layer.layer or "mapping" in layer.layer)
    assert dense == 6_553_600
    assert totals(student.resized(G, Fraction(1, 2)))[:2] == (10_206_434, 11_295_387_648)


def test_paper256() -> None:
    assert totals(config_f(256, 16384))[:2] == (24_767_458, 14_903_009_280)


def counted(network: Any) -> int:
    """Multiply-accumulates per image that PyTorch counts in a pass, without resampling filters (depthwise)."""

    def convolution(x: Any, w: Any, _b: Any, _s: Any, _p: Any, _d: Any, transposed: bool, *_: Any, **kw: Any) -> int:
        depthwise = w[1] == 1 and w[0] == x[1]
        return 0 if depthwise else conv_flop_count(x, w, kw["out_shape"], transposed=transposed)

    z, c = tiny.latents(2, network.c_dim)
    inputs = (z, c) if hasattr(network, "z_dim") else (tiny.images(2), c)
    options = {"fused_modconv": False, "noise_mode": "none"} if hasattr(network, "z_dim") else {}
    mode = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution: convolution})
    with mode, torch.no_grad():
        network(*inputs, **options)
    return mode.get_total_flops() // 2 // 2  # two flops are one multiply-accumulate; two images


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
@pytest.mark.parametrize("c_dim", [0, 3])
def test_the_count_of_a_generator_is_that_of_pytorch(architecture: str, c_dim: int) -> None:
    G = tiny.tiny_generator(architecture, c_dim)
    demodulation = sum(m.weight.shape[0] * m.weight.shape[1] for m in G.modules() if isinstance(m, SynthesisLayer))
    assert sum(layer.macs_in for layer in costs_of(G)) == counted(G) - demodulation


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
@pytest.mark.parametrize("c_dim", [0, 3])
def test_the_count_of_a_discriminator_is_that_of_pytorch(architecture: str, c_dim: int) -> None:
    D = tiny.tiny_discriminator(architecture, c_dim)
    assert sum(layer.macs_in for layer in costs_of(D)) == counted(D)


def test_an_up_convolution_counts_at_its_input_or_at_its_output() -> None:
    layers = {layer.layer: layer for layer in costs_of(tiny.tiny_generator())}
    conv0 = layers["synthesis.b16.conv0"]  # 16 → 8 channels, from 8 px to 16 px
    assert (conv0.macs_in, conv0.macs_out) == (8 * 16 * 9 * 8**2, 8 * 16 * 9 * 16**2)
    conv1 = layers["synthesis.b16.conv1"]
    assert conv1.macs_in == conv1.macs_out == 8 * 8 * 9 * 16**2


def test_only_known_networks_are_counted() -> None:
    with pytest.raises(UserError, match="networks of class Linear cannot be counted; known: Generator, "):
        costs_of(torch.nn.Linear(2, 2))


def test_measure() -> None:
    G = tiny.tiny_generator()
    result = cost.measure("G", G, latency=False)
    assert result.name == "G"
    assert result.params == sum(p.numel() for p in G.parameters())
    assert result.file_bytes == len(pickle.dumps(G, protocol=4))
    assert result.ms_batch1 is None
    assert result.ms_batch8 is None
    # b16.conv0 reads 16 channels of 8 px and writes 8 of 16 px; b16.conv1 reads and writes 8 channels of 16 px.
    assert result.activation_bytes == pytest.approx(4 * 2 * 8 * 16**2, rel=0.05)  # and a w of 16 numbers


def test_latency_is_measured_and_leaves_the_network_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "MEASURING_SEC", 0.0)
    D = tiny.tiny_discriminator().train()
    result = cost.measure("D", D)
    assert result.ms_batch1 is not None
    assert result.ms_batch8 is not None
    assert min(result.ms_batch1, result.ms_batch8) > 0
    assert D.training


def test_a_batch_that_is_too_large_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "MEASURING_SEC", 0.0)
    G = tiny.tiny_generator()
    needed = 8 * cost.measure("G", G, latency=False).activation_bytes
    for limit in (needed, needed - 1):
        monkeypatch.setattr(cost, "MAX_BATCH_BYTES", limit)
        measured = cost.measure("G", G)
        assert measured.ms_batch1 is not None
        assert (measured.ms_batch8 is not None) == (limit == needed)


def test_measuring_copies_no_weights() -> None:
    G = tiny.tiny_generator()
    G.requires_grad_(True)
    twin = cost._copy_on(G, "cpu")
    assert [p.data_ptr() for p in twin.parameters()] == [p.data_ptr() for p in G.parameters()]
    assert [b.data_ptr() for b in twin.buffers()] == [b.data_ptr() for b in G.buffers()]
    assert not any(p.requires_grad for p in twin.parameters())
    assert all(p.requires_grad for p in G.parameters())


@pytest.mark.parametrize(("group", "fits"), [(None, True), (3, False), (5, False), (4, True), (16, True)])
def test_a_batch_that_the_statistics_cannot_take_is_not_measured(
    group: int | None, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "MEASURING_SEC", 0.0)
    result = cost.measure("D", tiny.tiny_discriminator(epilogue_kwargs={"mbstd_group_size": group}))
    assert result.ms_batch1 is not None
    assert (result.ms_batch8 is not None) == fits
    assert cost.table([result]).endswith("  -") != fits


def test_table() -> None:
    rows = [cost.Cost("teacher", 1_234_567, 2_000_000_000, 3_000_000_000, 2**21, 2**20, 12.345, None),
            cost.Cost("s", 1, 2, 3, 0, 0, 0.5, 0.25)]
    assert cost.table(rows).splitlines() == [
        "network     params  MACs (up-conv at input)  MACs (at output)  activations      file  ms/image, batch 1  "
        "batch 8",
        "-------  ---------  -----------------------  ----------------  -----------  --------  -----------------  "
        "-------",
        "teacher  1,234,567            2,000,000,000     3,000,000,000     2.00 MiB  1.00 MiB              12.35  "
        "      -",
        "s                1                        2                 3     0.00 MiB  0.00 MiB               0.50  "
        "   0.25",
    ]


def test_command_line(tmp_path: Path) -> None:
    path = tiny.write_teacher(tmp_path / "net.pkl")
    result = CliRunner().invoke(cost.main, [path, "--no-latency"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[2:]] == [f"{path}:G_ema", f"{path}:D"]
    params, macs_in, macs_out = totals(tiny.tiny_generator())
    assert lines[2].split()[1:4] == [f"{params:,}", f"{macs_in:,}", f"{macs_out:,}"]
    assert json.dumps(lines).count("MACs (up-conv at input)") == 1


def test_command_line_names_a_missing_file(tmp_path: Path) -> None:
    result = CliRunner().invoke(cost.main, [str(tmp_path / "none.pkl")])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {tmp_path}/none.pkl: ")
    assert "no such file" in result.stderr.lower()


@pytest.mark.parametrize("name", ["D", "G_ema"])
def test_command_line_counts_the_networks_that_a_pickle_has(name: str, tmp_path: Path) -> None:
    nets = {**tiny.tiny_networks(resolution=8), name: None}
    pickles.save_networks(pickles.snapshot_data(nets, None), tmp_path / "half.pkl")
    result = CliRunner().invoke(cost.main, [str(tmp_path / "half.pkl"), "--no-latency"])
    assert result.exit_code == 0, result.output
    other = {"D": "G_ema", "G_ema": "D"}[name]
    assert [line.split()[0] for line in result.stdout.splitlines()[2:]] == [f"{tmp_path}/half.pkl:{other}"]


def test_command_line_prints_the_published_constant(tmp_path: Path) -> None:
    D = tiny.tiny_discriminator()
    nets = {"G": config_f(256).eval(), "D": D, "augment_pipe": None}
    pickles.save_networks(pickles.snapshot_data({**nets, "G_ema": nets["G"]}, None), tmp_path / "f.pkl")
    result = CliRunner().invoke(cost.main, [str(tmp_path / "f.pkl"), "--no-latency"])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[2].split()[1:3] == ["30,034,338", "45,124,673,536"]


def test_the_table_of_the_usual_networks_is_what_its_program_prints(capsys: pytest.CaptureFixture[str]) -> None:
    text = COSTS.read_text(encoding="utf-8")
    program = text.split("```python\n")[1].split("```")[0]
    exec(program, {})
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 16
    assert [line for line in text.splitlines() if line.startswith(("| StyleGAN2", "| BigGAN"))] == rows
