"""ONNX files compute the network's images in onnxruntime, for any batch, with weights of any format."""
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dnnlib.errors import UserError
from tests import tiny, tiny_biggan
from training.export import onnx_file, onnx_weights, packages
from training.export.programs import Program, ProgramInput, generator_program

for name in ("onnxscript", "onnxruntime"):
    pytest.importorskip(name, reason="the extra [export] is not installed")
onnx = pytest.importorskip("onnx")


class Affine(Program):
    """The least program: x [N, 40] → x W + b."""

    output = "image"

    def __init__(self) -> None:
        super().__init__()
        self.inputs = [ProgramInput("x", (1, 40), batched=True)]
        rng = torch.Generator().manual_seed(0)
        self.weight = torch.nn.Parameter(torch.randn([40, 30], generator=rng))
        self.shift = torch.nn.Parameter(torch.randn([30], generator=rng))

    def forward(self, *args: torch.Tensor) -> torch.Tensor:
        return args[0] @ (self.weight * 2) + self.shift


def write(program: Program, folder: Path, **kwargs: Any) -> Path:
    path = folder / "net.onnx"
    onnx_file.write(program, path, **kwargs)
    assert [item.name for item in folder.iterdir()] == ["net.onnx"]
    return path


def outputs(path: Path, program: Program, args: tuple[torch.Tensor, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(found, expected)"""
    result = onnx_file.run(onnx_file.open_session(path, threads=1), program, args)
    with torch.no_grad():
        return result, program(*args).numpy()


def test_a_conditional_generator_with_noise_as_inputs_and_bytes_as_output(tmp_path: Path) -> None:
    G = tiny.tiny_generator(c_dim=3, channels=1, resolution=8)
    program = generator_program(G, noise="random", pixels="uint8")
    path = write(program, tmp_path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(item.version, item.domain) for item in model.opset_import] == [(onnx_file.OPSET, "")]
    names = [item.name for item in model.graph.input]
    assert names == ["z", "label", "truncation", "noise_b4_conv1", "noise_b8_conv0", "noise_b8_conv1"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    for batch in (1, 2, 5):
        actual, expected = outputs(path, program, program.examples(batch, seed=9))
        assert actual.shape == (batch, 8, 8, 1)
        assert actual.dtype == np.uint8
        assert np.abs(actual.astype(int) - expected).max() <= 1
    # The stored noise, given as an input, makes the image of noise_mode="const".
    z, c = tiny.latents(2, c_dim=3)
    noise = [G.synthesis.get_buffer(f"{name.removeprefix('noise_').replace('_', '.')}.noise_const").expand(2, 1, -1, -1)
             for name in names[3:]]
    actual, _ = outputs(path, program, (z, c, torch.tensor(0.5), *noise))
    with torch.no_grad():
        expected = G(z, c, truncation_psi=0.5, noise_mode="const")
    assert np.abs(actual[..., 0] - (expected * 127.5 + 128).clamp(0, 255).numpy()[:, 0]).max() <= 1.01


def test_a_synthesis_network_alone_with_float16_weights(tmp_path: Path) -> None:
    program = generator_program(tiny.tiny_generator("resnet", resolution=8), source="w", noise="none")
    path = write(program, tmp_path, weights="float16", metadata={"title": "tiny"})
    actual, expected = outputs(path, program, program.examples(3))
    assert 1e-5 < np.abs(actual - expected).max() / expected.std() < 0.02
    about = onnx_file.read_metadata(path)
    assert (about["title"], about["weights"], about["opset"]) == ("tiny", "float16", "20")
    assert json.loads(about["difference_from_torch"])["psnr"] > 55


def test_biggan(tmp_path: Path) -> None:
    G = tiny_biggan.tiny_generator("shared32")
    program = generator_program(G)
    path = write(program, tmp_path)
    z, labels = tiny_biggan.inputs(G, 5)
    onehot = torch.nn.functional.one_hot(labels, 3).float()
    actual, expected = outputs(path, program, (z, onehot, torch.tensor(0.8)))
    assert np.abs(actual - expected).max() <= 1e-4 * expected.std()
    with torch.no_grad():
        np.testing.assert_allclose(actual, G(z, labels, truncation_psi=0.8).numpy(), atol=1e-4)


def test_int8_has_one_scale_per_output_channel(tmp_path: Path) -> None:
    program = Affine()
    path = write(program, tmp_path, weights="int8")
    model = onnx.load(path)
    tensors = {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}
    codes = next(value for name, value in tensors.items() if name.endswith("_int8"))
    scales = next(value for name, value in tensors.items() if name.endswith("_scale"))
    weight = (program.weight * 2).detach().numpy()
    np.testing.assert_allclose(scales, np.abs(weight).max(axis=0, keepdims=True) / 127, rtol=1e-6)
    assert np.abs(codes * scales - weight).max() <= scales.max() / 2 * 1.001
    actual, expected = outputs(path, program, program.examples(2))
    by_hand = program.examples(2)[0].numpy() @ (codes * scales) + program.shift.detach().numpy()
    np.testing.assert_allclose(actual, by_hand, rtol=1e-5, atol=1e-5)
    assert np.abs(actual - expected).max() > 0


def test_large_numbers_keep_their_format() -> None:
    values = np.full([1000], 1e5, np.float32)
    graph = onnx.helper.make_graph([onnx.helper.make_node("Add", ["x", "big"], ["y"])], "g", [], [],
                                   [onnx.numpy_helper.from_array(values, "big")])
    model = onnx.helper.make_model(graph)
    onnx_weights.store(model, "float16")
    assert [item.name for item in model.graph.initializer] == ["big"]


def test_a_file_that_fails_the_check_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = onnx_file.run
    monkeypatch.setattr(onnx_file, "run", lambda *args: run(*args) + np.float32(0.01))
    with pytest.raises(onnx_file.ParityError, match=r"within .*, found a difference of 0\.01; nothing was written"):
        onnx_file.write(Affine(), tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = onnx_file.run
    monkeypatch.setattr(onnx_file, "run", lambda *args: run(*args) * np.float32("nan"))
    with pytest.raises(onnx_file.ParityError, match="not finite"):
        onnx_file.write(Affine(), tmp_path / "net.onnx", weights="int8")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_names_the_extra() -> None:
    with pytest.raises(UserError, match=r"the format onnx needs the package no_such_package.*install the extra "
                                        r"\[export\]: pip install onnx no_such_package"):
        packages.require(("onnx", "no_such_package.inner"), "export", "the format onnx")


def test_onnxruntime_refuses_damaged_files() -> None:
    with pytest.raises(UserError, match="onnxruntime refuses the file"):
        onnx_file.open_session(b"no model")
