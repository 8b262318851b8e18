"""Network pickles of every StyleGAN2-ADA family member, read safely, and our snapshots, written for all of them."""
import copy
import os
import reprlib
from typing import Any, BinaryIO

import torch

import dnnlib
from dnnlib.util import UserError
from torch_utils import checkpoint
from torch_utils.checkpoint import CheckpointError, ModuleRecord, TFNetworkRecord, describe

from .. import architectures
from . import safetensors_files
from .records import build
from .tensorflow import discriminator_from_tf, generator_from_tf

NETWORKS = ("G", "D", "G_ema")


def open_networks(path_or_url: str, force_fp16: bool = False, trust_pickle: bool = False) -> dict[str, Any]:
    """`load_networks` of a local file or a URL (downloaded once into the cache), of any kind of network file.

    Safetensors files, folders for a model hub and BigGAN checkpoints are recognised by their names.

    Raises:
        CheckpointError: the file is missing or not what it should be; the message names it.
    """
    if safetensors_files.is_checkpoint(path_or_url):
        path_or_url = safetensors_files.file_of(path_or_url)
    elif (family := architectures.of_path(path_or_url)) is not None:
        if dnnlib.util.is_url(path_or_url):
            raise CheckpointError(f"{path_or_url}: such files are read from a disk; download them into one folder")
        if force_fp16:
            raise CheckpointError(f"{path_or_url}: {family.name} networks have no half precision; leave out "
                                  "`force_fp16`")
        return family.module("files").load_networks(path_or_url)
    try:
        f = dnnlib.util.open_url(path_or_url)
    except UserError as error:
        raise CheckpointError(str(error)) from None
    with f:
        return read_networks(f, path_or_url, force_fp16, trust_pickle)


def read_networks(
    f: BinaryIO, path_or_url: str, force_fp16: bool = False, trust_pickle: bool = False
) -> dict[str, Any]:
    """`load_networks` of an open file, or the networks in a safetensors file, which is recognised by its name.

    Raises:
        CheckpointError: the file is not what it should be; the message names it by `path_or_url`.
    """
    if safetensors_files.is_checkpoint(path_or_url):
        nets = safetensors_files.load_networks(f, str(path_or_url))
        return _all_with_fp16(nets) if force_fp16 else nets
    try:
        return load_networks(f, force_fp16=force_fp16, trust_pickle=trust_pickle)
    except CheckpointError as error:
        named = str(path_or_url) in str(error)  # a URL is not: the file is a copy in the cache
        raise CheckpointError(f"{'' if named else f'{path_or_url}: '}{error}") from error.__cause__


def load_networks(f: BinaryIO, force_fp16: bool = False, trust_pickle: bool = False) -> dict[str, Any]:
    """Reads a network pickle of any known kind.

    Args:
        f: binary file with an SG2-ADA, stylegan3-tree StyleGAN2, TensorFlow-era or own pickle.
        force_fp16: rebuild G, D and G_ema with half precision in the four highest resolutions and a clamp of 256.
        trust_pickle: execute what the file contains, for classes that are not known here.

    Returns:
        dict with G, D, G_ema (torch modules on the CPU, no gradients), training_set_kwargs (dict or None) and
        augment_pipe (module or None).

    Raises:
        CheckpointError: a refused, damaged or unknown file; the message names it.
    """
    data = checkpoint.read_trusted(f) if trust_pickle else checkpoint.read(f)
    try:
        return _networks_in(data, force_fp16)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.file_name(f)}: {error}") from error.__cause__


def _networks_in(data: Any, force_fp16: bool) -> dict[str, Any]:
    match data:
        case dict():
            pass
        case tuple([TFNetworkRecord() as G, TFNetworkRecord() as D, TFNetworkRecord() as G_ema]):
            data = {"G": G, "D": D, "G_ema": G_ema}
        case _:
            raise CheckpointError(f"expected a dictionary with {', '.join(NETWORKS)} or a TensorFlow triple, "
                                  f"found a {type(data).__name__}")
    missing = [name for name in NETWORKS if data.get(name) is None]
    if missing:
        raise CheckpointError(f"the pickle holds no {', '.join(missing)}; "
                              f"found: {', '.join(map(reprlib.repr, data)) or 'nothing'}")
    data.setdefault("training_set_kwargs", None)
    data.setdefault("augment_pipe", None)
    for name in (*NETWORKS, "augment_pipe"):
        data[name] = _as_module(name, data[name])
    if not isinstance(data["training_set_kwargs"], dict | None):
        raise CheckpointError(f"training_set_kwargs: expected a dictionary or None, "
                              f"found a {type(data['training_set_kwargs']).__name__}")
    return _all_with_fp16(data) if force_fp16 else data


def _all_with_fp16(data: dict[str, Any]) -> dict[str, Any]:
    for name in NETWORKS:
        if name in data:
            data[name] = _with_fp16(name, data[name])
    return data


def _as_module(name: str, value: Any) -> Any:
    if isinstance(value, torch.nn.Module) or (value is None and name == "augment_pipe"):
        return value
    try:
        if isinstance(value, ModuleRecord):
            return build(value)
        if isinstance(value, TFNetworkRecord):
            return discriminator_from_tf(value) if name == "D" else generator_from_tf(value)
    except CheckpointError as error:
        raise CheckpointError(f"{name}: {error}") from None
    except checkpoint.MALFORMED as error:
        raise CheckpointError(f"{name}: the file's values make no network ({describe(error)})") from error
    raise CheckpointError(f"{name}: expected a network, found a {type(value).__name__}")


def _with_fp16(name: str, network: Any) -> Any:
    """The same weights in a network with half precision, for families that have it."""
    family = architectures.find(network)
    convert = None if family is None else getattr(family.module("reader"), "half_precision", None)
    if convert is None:
        raise CheckpointError(f"{name}: a {type(network).__name__} has no half precision; leave out `force_fp16`")
    return convert(name, network)


def _frozen(module: torch.nn.Module) -> torch.nn.Module:
    """The module itself, to be used and not trained."""
    module.requires_grad_(False)
    return module.eval()


def snapshot_data(
    networks: dict[str, torch.nn.Module | None],
    training_set_kwargs: dict[str, Any] | None,
) -> dict[str, Any]:
    """The dictionary of a snapshot: detached copies on the CPU, in eval mode, without gradients.

    Args:
        networks: G, D, G_ema and augment_pipe (module or None).
        training_set_kwargs: the data set's options, plain values.
    """
    return {
        "training_set_kwargs": dict(training_set_kwargs) if training_set_kwargs else None,
        **{role: _frozen_copy(networks[role]) for role in (*NETWORKS, "augment_pipe")},
    }


def _frozen_copy(module: torch.nn.Module | None) -> torch.nn.Module | None:
    return None if module is None else _frozen(copy.deepcopy(module)).cpu()


def save_networks(data: dict[str, Any], path: str | os.PathLike) -> None:
    """Writes a snapshot dictionary as one pickle that stock StyleGAN2-ADA and stylegan3 trees load unchanged."""
    checkpoint.write_pickle(data, path)
