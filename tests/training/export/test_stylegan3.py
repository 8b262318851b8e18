"""StyleGAN3 generators in every format: configurations T and R, and a conditional one."""
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import export
from dnnlib.errors import UserError
from tests.training.test_networks_stylegan3 import tiny
from training.checkpoints import pickles
from training.export import onnx_file, torch_program
from training.export.programs import Program, generator_program, trace

KINDS: dict[str, dict[str, Any]] = {
    "t": {"num_layers": 3, "c_dim": 3},
    "r": {"num_layers": 3, "conv_kernel": 1, "use_radial_filters": True},
}


def network(kind: str) -> Any:
    G = tiny(**KINDS[kind]).float().eval().requires_grad_(False)
    G.mapping.w_avg.normal_(generator=torch.Generator().manual_seed(0))
    return G


@pytest.fixture(scope="module", params=KINDS)
def traced(request: pytest.FixtureRequest) -> tuple[Any, Program, torch.export.ExportedProgram]:
    """A generator, its program, and the graph of that, which takes most of the time of an export."""
    G = network(request.param)
    program = generator_program(G)
    return G, program, trace(program)


@pytest.fixture
def graph(traced: tuple[Any, Program, Any], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Program]:
    """A generator and its program, which every format finds traced."""
    for module in (torch_program, onnx_file):
        monkeypatch.setattr(module, "trace", lambda program: traced[2])
    return traced[:2]


def test_programs_run_for_every_batch(graph: tuple[Any, Program], tmp_path: Path) -> None:
    G, program = graph
    path = tmp_path / "net.pt2"
    assert torch_program.write(program, path) < 1e-4
    args = program.examples(4, seed=3)
    expected = G(args[0], args[1] if G.c_dim else None, truncation_psi=0.7)
    torch.testing.assert_close(torch.export.load(path).module()(*args), expected, atol=1e-5, rtol=1e-4)


def test_onnx(graph: tuple[Any, Program], tmp_path: Path) -> None:
    for name in ("onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="the extra [export] is not installed")
    _, program = graph
    path = tmp_path / "net.onnx"
    onnx_file.write(program, path)
    args = program.examples(4, seed=3)
    actual = onnx_file.run(onnx_file.open_session(path, threads=1), program, args)
    expected = program(*args).numpy()
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= 1e-4 * expected.std()
    assert json.loads(onnx_file.read_metadata(path)["difference_from_torch"])["psnr"] > 60


def test_safetensors_and_hub(tmp_path: Path) -> None:
    G = network("r")
    source = tmp_path / "net.pkl"
    pickles.save_networks(pickles.snapshot_data({"G_ema": G}, None), source)
    for kind, dest in (("safetensors", tmp_path / "net.safetensors"), ("hub", tmp_path / "net")):
        result = CliRunner().invoke(export.main, [f"--network={source}", f"--format={kind}", f"--dest={dest}"])
        assert result.exit_code == 0, result.output
        again = pickles.open_networks(str(dest))["G_ema"]
        z = torch.randn([2, G.z_dim], generator=torch.Generator().manual_seed(1))
        assert torch.equal(again(z, None), G(z, None))
    assert "stylegan3" in (tmp_path / "net" / "README.md").read_text()


def test_there_is_no_noise() -> None:
    with pytest.raises(UserError, match="noise: a Generator of this kind has no noise; use `noise=const`"):
        generator_program(network("t"), noise="random")
