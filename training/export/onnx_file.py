"""ONNX files: a program as a graph with a dynamic batch and folded constants, checked before it is written.

The checks run the file with onnxruntime and compare its images with torch's.
"""
import dataclasses
import inspect
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from dnnlib.errors import UserError
from dnnlib.files import open_atomic

from . import onnx_weights
from .packages import require
from .programs import Program, quiet, trace

OPSET = 20  # of the standard operators
BATCHES = (1, 2, 5)  # that a file is checked with
TOLERANCE = 1e-4  # largest difference from torch, in standard deviations of the images
_FOLDED_BYTES = 1 << 40  # constants of any size are folded

Session = Any  # onnxruntime.InferenceSession


class ParityError(UserError):
    """The file does not compute what the network does."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """How far a file's outputs are from the network's, over all checked batches.

    Attributes:
        largest: absolute, of any number.
        std: standard deviation of the network's outputs.
        mean_grey: mean absolute difference in grey levels of 0..255.
        psnr: peak signal-to-noise ratio in dB; infinite for equal images.
    """

    largest: float
    std: float
    mean_grey: float
    psnr: float

    @property
    def relative(self) -> float:
        """The largest difference in standard deviations."""
        return self.largest / self.std


def build(program: Program, weights: str = "float32", metadata: Mapping[str, str] | None = None) -> bytes:
    """The bytes of an ONNX file that computes a program, unchecked.

    Args:
        program: what to compute; its inputs and output give the names.
        weights: storage of large weights, one of `onnx_weights.FORMATS`.
        metadata: key and text pairs to keep in the file.

    Raises:
        UserError: a package is missing, torch is too old, or the network cannot be exported.
    """
    optimizer, _ = require(("onnxscript.optimizer", "onnx"), "export", "the format onnx")
    if "dynamic_shapes" not in inspect.signature(torch.onnx.export).parameters:
        raise UserError(f"the format onnx needs a newer torch than {torch.__version__}; 2.9 is new enough",
                        field="format")
    exported = trace(program)
    with quiet(), torch.no_grad():
        onnx_program = torch.onnx.export(
            exported,
            dynamo=True,
            optimize=False,
            opset_version=OPSET,
            input_names=[item.name for item in program.inputs],
            output_names=[program.output],
            verbose=False,
        )
        assert onnx_program is not None
        optimizer.optimize(onnx_program.model, input_size_limit=_FOLDED_BYTES, output_size_limit=_FOLDED_BYTES)
    model = onnx_program.model_proto
    _strip(model)
    _name_batch(model, {item.name for item in program.inputs if item.batched} | {program.output})
    onnx_weights.store(model, weights)
    _set_metadata(model, {"opset": str(OPSET), "weights": weights, **(metadata or {})})
    return model.SerializeToString()


def _set_metadata(model: Any, entries: Mapping[str, str]) -> None:
    """Sets key and text pairs of a model (onnx.ModelProto), in place."""
    kept = {item.key: item.value for item in model.metadata_props} | dict(entries)
    del model.metadata_props[:]
    for key, text in kept.items():
        model.metadata_props.add(key=key, value=text)


def _strip(model: Any) -> None:
    """Removes the exporter's notes on where nodes come from and on shapes in between, larger than a small network."""
    del model.graph.value_info[:]
    for item in (model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]


def _name_batch(model: Any, batched: set[str]) -> None:
    """Calls the first axis of batched inputs and outputs "batch"."""
    for value in (*model.graph.input, *model.graph.output):
        if value.name in batched:
            value.type.tensor_type.shape.dim[0].dim_param = "batch"


def open_session(content: bytes | str | os.PathLike, threads: int = 0) -> Session:
    """An onnxruntime session on the CPU.

    Args:
        content: a model's bytes, or its path.
        threads: that compute; 0 is one per core.

    Raises:
        UserError: onnxruntime is missing, or refuses the file.
    """
    (runtime,) = require(("onnxruntime",), "export", "the check of an ONNX file")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    if not isinstance(content, bytes):
        content = os.fspath(content)
    try:
        return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own, of many kinds
        raise UserError(f"onnxruntime refuses the file: {str(error).splitlines()[0]}") from error


def run(session: Session, program: Program, args: tuple[torch.Tensor, ...]) -> np.ndarray:
    """The output [N, ...] of a file for the arguments [N, ...] of its program."""
    known = {item.name for item in session.get_inputs()}  # an input without effect is no input of the graph
    feed = {item.name: arg.numpy() for item, arg in zip(program.inputs, args, strict=True) if item.name in known}
    return session.run([program.output], feed)[0]


def compare(session: Session, program: Program) -> Difference:
    """Runs a file and its program on random inputs of every batch size of BATCHES.

    Raises:
        ParityError: the file computes numbers that are not finite.
    """
    pairs = []
    for batch in BATCHES:
        args = program.examples(batch, seed=batch)
        with torch.no_grad():
            expected = program(*args).numpy()
        pairs.append((expected, run(session, program, args)))
    expected, actual = (np.concatenate([part.ravel() for part in parts]).astype(np.float64) for parts in zip(*pairs))
    if not np.isfinite(actual).all():
        raise ParityError("the file computes numbers that are not finite; export with `weights=float32`")
    scale = 1.0 if pairs[0][0].dtype == np.uint8 else 127.5
    errors = np.abs(actual - expected)
    with np.errstate(divide="ignore"):
        psnr = 10 * np.log10(255**2 / np.square(errors * scale).mean())
    return Difference(float(errors.max()), float(expected.std()), float(errors.mean() * scale), float(psnr))


def check(content: bytes, program: Program, weights: str = "float32") -> Difference:
    """Checks a file against its program.

    Float32 files must agree within TOLERANCE standard deviations (uint8 images: one grey level), others must run.

    Raises:
        ParityError: they do not.
    """
    difference = compare(open_session(content), program)
    allowed = 1.0 if program.pixels == "uint8" else TOLERANCE * difference.std
    if weights == "float32" and difference.largest > allowed:
        raise ParityError(f"expected the file to compute the network's numbers within {allowed:.2g}, "
                          f"found a difference of {difference.largest:.2g}; nothing was written")
    return difference


def write(
    program: Program,
    dest: str | os.PathLike,
    weights: str = "float32",
    metadata: Mapping[str, str] | None = None,
    measure: Callable[[bytes], Mapping[str, str]] = lambda content: {},
) -> Difference:
    """Builds a file, checks it, and writes it only if the check succeeds; the difference enters its metadata.

    Args:
        program: what to compute.
        dest: the file.
        weights: storage of large weights, one of `onnx_weights.FORMATS`.
        metadata: key and text pairs to keep in the file.
        measure: given the checked file's bytes, returns further metadata.

    Raises:
        UserError: as `build` and `check` do, or the file cannot be written.
    """
    content = build(program, weights, metadata)
    difference = check(content, program, weights)
    entries = {"difference_from_torch": json.dumps(dataclasses.asdict(difference)), **measure(content)}
    with open_atomic(dest) as f:
        f.write(with_metadata(content, entries))
    return difference


def with_metadata(content: bytes, entries: Mapping[str, str]) -> bytes:
    """The same file with further metadata."""
    (onnx,) = require(("onnx",), "export", "the format onnx")
    model = onnx.load_from_string(content)
    _set_metadata(model, entries)
    return model.SerializeToString()


def with_weights(content: bytes, weights: str) -> bytes:
    """A file of `build` with float32 weights, with them stored in another format (`onnx_weights.FORMATS`)."""
    (onnx,) = require(("onnx",), "export", "the format onnx")
    model = onnx.load_from_string(content)
    onnx_weights.store(model, weights)
    _set_metadata(model, {"weights": weights})
    return model.SerializeToString()


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
    """Key and text pairs that an ONNX file holds."""
    (onnx,) = require(("onnx",), "export", "the format onnx")
    return {item.key: item.value for item in onnx.load(os.fspath(path)).metadata_props}
