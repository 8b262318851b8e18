"""Smaller weights in ONNX graphs: stored as float16 or int8, computed with in float32.

int8 is symmetric, with one scale per output channel, for the weights of convolutions and matrix products; other large
tensors become float16 then. Small tensors stay as they are. Cast and Mul nodes restore the weights; programs that run
the file compute them once, when they load it. (DequantizeLinear would be recomputed for every image, and onnxruntime
rounds activations, too, where it feeds a matrix product.)
"""
from typing import Any

import numpy as np

from dnnlib.errors import UserError

from .packages import require

FORMATS = ("float32", "float16", "int8")
_SMALLEST = 256  # elements; below, the nodes that convert a tensor take more than they save

# Operator → position of its weights, and their axis of output channels.
_WEIGHTS = {"Conv": (1, 0), "ConvTranspose": (1, 1), "MatMul": (1, 1), "Gemm": (1, 1)}


def store(model: Any, weights: str) -> None:
    """Changes how a model (onnx.ModelProto) stores its large float32 tensors, in place.

    Args:
        weights: one of FORMATS.

    Raises:
        UserError: an unknown format.
    """
    if weights not in FORMATS:
        raise UserError(f"expected {', '.join(FORMATS[:-1])} or {FORMATS[-1]}, found {weights!r}", field="weights")
    if weights == "float32":
        return
    onnx, numpy_helper = require(("onnx", "onnx.numpy_helper"), "export", "the format onnx")
    axes = _channel_axes(model.graph)
    nodes, tensors = [], []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < _SMALLEST or not np.isfinite(values).all():
            tensors.append(tensor)
        elif weights == "int8" and (axis := axes.get(tensor.name)) is not None:
            codes, cast, scale = (f"{tensor.name}_{end}" for end in ("int8", "cast", "scale"))
            quantized, scales = quantize(values, axis)
            tensors += [numpy_helper.from_array(quantized, codes), numpy_helper.from_array(scales, scale)]
            nodes += [onnx.helper.make_node("Cast", [codes], [cast], to=onnx.TensorProto.FLOAT),
                      onnx.helper.make_node("Mul", [cast, scale], [tensor.name])]
        elif np.abs(values).max() <= np.finfo(np.float16).max:
            name = f"{tensor.name}_float16"
            tensors.append(numpy_helper.from_array(values.astype(np.float16), name))
            nodes.append(onnx.helper.make_node("Cast", [name], [tensor.name], to=onnx.TensorProto.FLOAT))
        else:
            tensors.append(tensor)
    del model.graph.initializer[:]
    model.graph.initializer.extend(tensors)
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])


def _channel_axes(graph: Any) -> dict[str, int | None]:
    """Tensor → its axis of output channels, if it is a weight; None if its readers disagree or are no products."""
    axes: dict[str, int | None] = {}
    for node in graph.node:
        position, axis = _WEIGHTS.get(node.op_type, (-1, 0))
        if node.op_type == "Gemm" and any(item.name == "transB" and item.i for item in node.attribute):
            axis = 0
        for place, name in enumerate(node.input):
            channel_axis = axis if place == position else None
            axes[name] = channel_axis if axes.get(name, channel_axis) == channel_axis else None
    return axes


def quantize(values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """float32 [O, ...] → int8 of that shape, and float32 scales [O, 1, ...]; values ≈ int8 · scale.

    Args:
        values: weights of any shape.
        axis: of the output channels O.
    """
    others = tuple(i for i in range(values.ndim) if i != axis)
    largest = np.abs(values).max(axis=others, keepdims=True)
    scales = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.rint(values / scales).clip(-127, 127).astype(np.int8), scales
