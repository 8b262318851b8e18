"""Networks as safetensors files: tensors by name, and a JSON text with every network's class and arguments.

The layout is that of the safetensors format: eight bytes with the length of a JSON header, the header, the data. It is
read and written here without that package. Nothing in such a file can be executed.
"""
import inspect
import json
import math
import os
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

import torch

from dnnlib import EasyDict, strict_json
from dnnlib.cli import LABEL_KINDS
from dnnlib.files import open_atomic
from dnnlib.util import get_obj_by_name
from torch_utils import misc
from torch_utils.checkpoint import MALFORMED, CheckpointError, describe
from torch_utils.network_types import Network

from .. import architectures
from ..augment import AugmentPipe
from .parts import WholeNetworks
from .rebuilding import rebuild

SUFFIX = ".safetensors"
MODEL_FILE = "model.safetensors"  # in a folder for a model hub
CONFIG_FILE = "config.json"
ROLES = ("G_ema", "G", "D", "augment_pipe")
FORMAT = "stylegan-networks-1"
LABEL_KIND = "label_kind"  # in the header: of the labels, one of LABEL_KINDS

_ADVICE = "export the networks with `parts=all` of export.py, or name the pickle that the file was made from"
_MAX_HEADER = 100 << 20  # bytes, as the safetensors package has it
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def _classes() -> dict[str, Any]:
    """What a file calls a class → the class: every family's generator and discriminator, and AugmentPipe."""
    known: dict[str, Any] = {"AugmentPipe": AugmentPipe}
    for row in architectures.rows():
        known[f"{row.name}.Generator"] = get_obj_by_name(row.generator)
        known[f"{row.name}.Discriminator"] = get_obj_by_name(row.discriminator)
    return known


def is_checkpoint(path: str | os.PathLike) -> bool:
    """Whether a path or URL is of the kind that this module reads: a *.safetensors, or a folder for a model hub."""
    if os.path.isdir(path):
        return any(Path(path, name).exists() for name in (MODEL_FILE, CONFIG_FILE))
    return os.fspath(path).endswith(SUFFIX)


def file_of(path: str | os.PathLike) -> str:
    """The file to read for a path: the path itself, or the model in a folder.

    Raises:
        CheckpointError: the folder has none; says so of pickles in it, which are not read.
    """
    if not os.path.isdir(path):
        return os.fspath(path)
    file = Path(path, MODEL_FILE)
    if file.is_file():
        return str(file)
    pickles = sorted(item.name for item in Path(path).iterdir() if item.suffix in (".pkl", ".pt", ".pth", ".bin"))
    hint = f"; {', '.join(pickles)} is not read from such a folder, name the file itself" if pickles else ""
    raise CheckpointError(f"{os.fspath(path)}: expected {MODEL_FILE} beside {CONFIG_FILE}, found none{hint}")


# ----------------------------------------------------------------------------------------------------------------------
# Writing


def configuration(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Class and constructor arguments of every network, as plain JSON values.

    Args:
        parts: networks by role.

    Raises:
        CheckpointError: a network of a class that such files do not know.
    """
    return {
        "format": FORMAT,
        "networks": {role: {"class": _class_name(role, network), "arguments": _arguments(network)}
                     for role, network in parts.items()},
    }


def _class_name(role: str, network: Network) -> str:
    for name, cls in _classes().items():
        if type(network) is cls:
            return name
    raise CheckpointError(f"{role}: a {type(network).__name__} cannot be kept in a {SUFFIX} file; "
                          f"known are {', '.join(_classes())}")


def _arguments(network: Any) -> dict[str, Any]:
    if hasattr(network, "options"):  # a BigGAN
        return dict(network.options)
    bound = inspect.signature(type(network).__init__).bind(network, *network.init_args, **network.init_kwargs)
    named = dict(list(bound.arguments.items())[1:])
    for parameter in bound.signature.parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            named |= named.pop(parameter.name, {})
    return json.loads(json.dumps(named))


def distinct(networks_by_role: Mapping[str, Any]) -> dict[str, Any]:
    """The networks to store: without those that are None, and without a G that is the same object as G_ema."""
    present = {role: networks_by_role.get(role) for role in ROLES}
    if present["G"] is present["G_ema"]:
        del present["G"]
    return {role: network for role, network in present.items() if network is not None}


def write(
    parts: Mapping[str, Any],
    dest: str | os.PathLike,
    information: Mapping[str, str] | None = None,
    half: bool = False,
) -> None:
    """Writes networks with all their parameters and buffers.

    Args:
        parts: networks by role (ROLES).
        dest: the file.
        information: further key and text pairs for the header.
        half: store float32 values in float16; they are float32 again when they are read.

    Raises:
        CheckpointError: a network of a class that such files do not know, or with values too large for float16.
        FileError: the file cannot be written.
    """
    metadata = {"format": "pt", **(information or {}), "config": json.dumps(configuration(parts))}
    tensors = {f"{role}.{name}": tensor.detach().cpu().contiguous()
               for role, network in parts.items() for name, tensor in misc.named_params_and_buffers(network)}
    if half:
        tensors = {name: _halved(name, tensor) for name, tensor in tensors.items()}
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    in_order = sorted(tensors.items(), key=lambda item: -item[1].element_size())  # the format wants them aligned
    for name, tensor in in_order:
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open_atomic(dest) as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for _, tensor in in_order:
            f.write(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())


def _halved(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """A tensor [...] of float32 in float16; any other as it is."""
    if tensor.dtype != torch.float32:
        return tensor
    result = tensor.half()
    if not torch.equal(result.isfinite(), tensor.isfinite()):
        raise CheckpointError(f"{name} has values up to {tensor.abs().max():.3g}, and float16 ends at 65504; "
                              "store the networks in float32")
    return result


# ----------------------------------------------------------------------------------------------------------------------
# Reading


def load_networks(f: BinaryIO, where: str) -> dict[str, Any]:
    """The networks in a file, in eval mode on the CPU, without gradients; G_ema stands in for a missing G.

    Args:
        f: binary file.
        where: its name for error messages.

    Raises:
        CheckpointError: the file is truncated, damaged or of another kind; names it. Asking the result for a network
            that it does not hold raises one, too.
    """
    try:
        metadata, tensors = read(f)
        networks = _rebuild_all(metadata, tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error}") from error.__cause__
    result: dict[str, Any] = WholeNetworks(where, lambda role: _ADVICE)
    result.update(networks)
    if metadata.get(LABEL_KIND) in LABEL_KINDS:
        result[LABEL_KIND] = metadata[LABEL_KIND]
    for role, other in (("G", "G_ema"), ("G_ema", "G")):
        if role not in result and other in result:
            result[role] = result[other]
    return result


def read(f: BinaryIO) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """The metadata and the tensors, of any shapes [...], of any safetensors file.

    Raises:
        CheckpointError: the file is truncated or damaged.
    """
    content = bytearray(f.read())
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > _MAX_HEADER:
        raise CheckpointError(f"this is no safetensors file: it states a header of {length} bytes")
    if len(content) < 8 + length:
        raise CheckpointError(f"the file is truncated: its header has {length} bytes, found {len(content) - 8}")
    try:
        header = strict_json.loads(bytes(content[8 : 8 + length]))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"the header is no JSON: {describe(error)}") from None
    if not isinstance(header, dict):
        raise CheckpointError(f"the header: expected an object, found a {type(header).__name__}")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise CheckpointError("__metadata__: expected texts by name")
    return metadata, {name: _tensor(name, entry, content, 8 + length) for name, entry in header.items()}


def _tensor(name: str, entry: object, content: bytearray, start: int) -> torch.Tensor:
    if not isinstance(entry, dict):
        raise CheckpointError(f"{reprlib.repr(name)}: expected an object, found a {type(entry).__name__}")
    kind, shape, span = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if kind not in _DTYPES:
        raise CheckpointError(f"{name}: unknown dtype {kind!r}; known: {', '.join(_DTYPES)}")
    if not _are_sizes(shape) or not _are_sizes(span) or len(span) != 2:
        raise CheckpointError(f"{name}: expected a shape and two offsets, found {shape!r} and {span!r}")
    dtype, count = _DTYPES[kind], math.prod(shape)
    if span[1] - span[0] != count * dtype.itemsize:
        raise CheckpointError(f"{name}: {shape} of {kind} takes {count * dtype.itemsize} bytes, "
                              f"found {span[1] - span[0]}")
    if start + span[1] > len(content):
        raise CheckpointError(f"the file is truncated: {name} ends at byte {start + span[1]}, the file at "
                              f"{len(content)}; fetch or export it again")
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    data = torch.frombuffer(content, dtype=torch.uint8, count=span[1] - span[0], offset=start + span[0])
    return data.clone().view(dtype).reshape(shape)


def _are_sizes(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 62 for item in value)


def _rebuild_all(metadata: Mapping[str, str], tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.nn.Module]:
    try:
        config = strict_json.loads(metadata.get("config", "null"))
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict) or config.get("format") != FORMAT or not isinstance(config.get("networks"), dict):
        raise CheckpointError(f"the header holds no configuration of the format {FORMAT}: these are the weights of "
                              "another program")
    unknown = {name.split(".", 1)[0] for name in tensors} - config["networks"].keys()
    if unknown:
        raise CheckpointError(f"the configuration says nothing of {', '.join(sorted(unknown)[:4])}")
    return {role: _rebuild(role, entry, tensors) for role, entry in config["networks"].items()}


def _rebuild(role: str, entry: object, tensors: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    if role not in ROLES or not isinstance(entry, dict) or not isinstance(entry.get("arguments"), dict):
        raise CheckpointError(f"{reprlib.repr(role)}: expected one of {', '.join(ROLES)} with a class and arguments")
    cls = _classes().get(str(entry.get("class")))
    if cls is None:
        raise CheckpointError(f"{role}: unknown class {reprlib.repr(entry.get('class'))}; "
                              f"known: {', '.join(_classes())}")
    arguments = _easy(entry["arguments"])
    if "skip_init" in inspect.signature(cls.__init__).parameters:
        arguments = {**arguments, "skip_init": True}
    prefix = f"{role}."
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    try:
        return rebuild(cls, arguments, own)
    except CheckpointError as error:
        raise CheckpointError(f"{role}: {error}") from None
    except MALFORMED as error:
        raise CheckpointError(f"{role}: the file's values make no network ({describe(error)})") from error


def _easy(value: object) -> Any:
    """Dictionaries as the networks' own constructors received them: with attributes."""
    if isinstance(value, dict):
        return EasyDict({key: _easy(item) for key, item in value.items()})
    return [_easy(item) for item in value] if isinstance(value, list) else value
