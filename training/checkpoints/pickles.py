"""Network pickles of every StyleGAN2-ADA family member, read safely, and our snapshots, written for all of them."""
import copy
import functools
import hashlib
import io
import os
import reprlib
import zipfile
from collections.abc import Callable, Iterable, Mapping
from typing import IO, Any, BinaryIO

import torch

import dnnlib
from dnnlib.cli import LABEL_KINDS
from dnnlib.errors import UserError
from torch_utils import checkpoint
from torch_utils.checkpoint import CheckpointError, Foreign, ModuleRecord, TFNetworkRecord, describe
from torch_utils.network_types import Network

from .. import architectures
from . import rosinality, safetensors_files, state_dicts
from .parts import NETWORKS, Networks
from .records import build
from .tensorflow import discriminator_from_tf, generator_from_tf


def open_networks(
    path_or_url: str,
    force_fp16: bool = False,
    trust_pickle: bool = False,
    check_sha256: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """The networks in a local file or at a URL (downloaded once into the cache), of any kind of network file.

    Safetensors files, folders for a model hub and BigGAN checkpoints are recognised by their names, all else by its
    content. Networks are built when they are asked for (`parts.Networks`), so that one that is missing or cannot be
    read is an error only where it is needed.

    Args:
        path_or_url: file, folder, FOLDER:SUFFIX or URL.
        force_fp16: as for `load_networks`.
        trust_pickle: as for `load_networks`.
        check_sha256: called with the sha256 of the content, of all files of a folder together, before it is read. Every
            file is opened once, so that what was checked is what is read.

    Raises:
        CheckpointError: the file is missing or not what it should be; the message names it.
    """
    _refuse_run_dir(path_or_url)
    if safetensors_files.is_checkpoint(path_or_url):
        path_or_url = safetensors_files.file_of(path_or_url)
    elif (family := architectures.of_path(path_or_url)) is not None:
        return _open_checkpoint(family, path_or_url, force_fp16, trust_pickle, check_sha256)
    try:
        f = dnnlib.util.open_url(path_or_url)
    except UserError as error:
        raise CheckpointError(str(error)) from None
    with f:
        _check_content([f], check_sha256)
        return read_networks(f, path_or_url, force_fp16, trust_pickle)


def _refuse_run_dir(path: str) -> None:
    """A folder of snapshots is no network, unless it holds files of one."""
    names = sorted(os.listdir(path)) if os.path.isdir(path) else []
    snapshots = [name for name in names if name.startswith("network-snapshot-") and name.endswith(".pkl")]
    if snapshots and not any(name.endswith((".pth", ".safetensors")) for name in names):
        newest = os.path.join(path, snapshots[-1])
        raise CheckpointError(f"{path}: is a folder, expected a file; its newest network is {newest}")


def _open_checkpoint(
    family: architectures.Architecture,
    path: str,
    force_fp16: bool,
    trust_pickle: bool,
    check_sha256: Callable[[str], None] | None,
) -> dict[str, Any]:
    """The networks in files that by their names belong to a family whose checkpoints are no pickles."""
    if dnnlib.util.is_url(path):
        raise CheckpointError(f"{path}: such files are read from a disk; download them into one folder")
    module = family.module("files")
    with module.opened(path) as files:
        _check_content(files.values(), check_sha256)
        if os.path.isfile(path):
            (f,) = files.values()
            if _is_style_based(f):
                return read_networks(f, path, force_fp16, trust_pickle)
        if force_fp16:
            raise CheckpointError(f"{path}: {family.name} networks have no half precision; leave out `force_fp16`")
        return module.load_networks(path, files=files)


def _check_content(files: Iterable[IO[bytes]], check_sha256: Callable[[str], None] | None) -> None:
    """Passes the sha256 of all files together to a function; leaves them at their beginnings."""
    if check_sha256 is None:
        return
    digest = hashlib.sha256()
    for f in files:
        for block in iter(functools.partial(f.read, 1 << 20), b""):
            digest.update(block)
        f.seek(0)
    check_sha256(digest.hexdigest())


def _is_style_based(f: BinaryIO) -> bool:
    """Whether an open file called *.pth holds networks of a style-based family under any of the known layouts."""
    try:
        data = checkpoint.read(f, keep_foreign=True)
    except (CheckpointError, OSError):
        return False  # the BigGAN reader says what is wrong
    finally:
        f.seek(0)
    return rosinality.reads(data) or state_dicts.parts(data) is not None or isinstance(data, ModuleRecord) or (
        isinstance(data, dict) and any(isinstance(data.get(role), ModuleRecord) for role in NETWORKS))


def read_networks(
    f: BinaryIO, path_or_url: str, force_fp16: bool = False, trust_pickle: bool = False
) -> dict[str, Any]:
    """The networks in an open file, built when they are asked for; safetensors files are recognised by the name.

    Raises:
        CheckpointError: the file is not what it should be; the message names it by `path_or_url`.
    """
    if safetensors_files.is_checkpoint(path_or_url):
        nets = safetensors_files.load_networks(f, str(path_or_url))
        return _all_with_fp16(nets) if force_fp16 else nets
    try:
        return _opened(f, str(path_or_url), force_fp16, trust_pickle)
    except CheckpointError as error:
        named = str(path_or_url) in str(error)  # a URL is not: the file is a copy in the cache
        raise CheckpointError(f"{'' if named else f'{path_or_url}: '}{error}") from error.__cause__


def load_networks(f: BinaryIO, force_fp16: bool = False, trust_pickle: bool = False) -> dict[str, Any]:
    """Reads a network file of any known kind.

    Args:
        f: binary file with an SG2-ADA, stylegan3-tree, TensorFlow-era, rosinality or own file.
        force_fp16: rebuild G, D and G_ema with half precision in the four highest resolutions and a clamp of 256.
        trust_pickle: execute what the file contains, for classes that are not known here.

    Returns:
        dict with G, D, G_ema (torch modules on the CPU, no gradients), training_set_kwargs (dict or None),
        augment_pipe (module or None), and label_kind if the file says of what kind labels are. A network of a class
        that is not allowed, and one that is not in the file, are errors when they are asked for.

    Raises:
        CheckpointError: a refused, damaged or unknown file; the message names it.
    """
    nets = _opened(f, checkpoint.file_name(f), force_fp16, trust_pickle)
    readable = [role for role in nets if trust_pickle or not isinstance(nets.raw(role), Foreign)]
    for role in readable:
        nets[role]
    complete = all(role in readable for role in NETWORKS)
    return dict(nets.items()) if complete else nets


def _opened(f: BinaryIO, where: str, force_fp16: bool, trust_pickle: bool) -> Networks:
    """The networks of a file, none of which is built yet.

    Trusted files are read like others, and what they contain is executed only for what cannot be read so.
    """
    if _is_torchscript(f):
        raise CheckpointError(f"{where}: a TorchScript file, such as a detector; expected the pickle of a network")
    trusted = _Trusted(f) if trust_pickle else None
    try:
        parts, construct = _parts_in(checkpoint.read(f, keep_foreign=True))
    except CheckpointError as error:
        if trusted is None:
            raise CheckpointError(_at(f, error)) from error.__cause__
        parts, construct = trusted.parts()
    try:
        if not isinstance(parts.get("training_set_kwargs"), dict | None):
            raise CheckpointError(f"training_set_kwargs: expected a dictionary or None, "
                                  f"found a {type(parts['training_set_kwargs']).__name__}")
    except CheckpointError as error:
        raise CheckpointError(_at(f, error)) from error.__cause__

    def build_part(role: str, value: object) -> Any:
        try:
            network = construct(role, value)
        except CheckpointError:
            if trusted is None:
                raise
            by_role, trusted_construct = trusted.parts()
            network = trusted_construct(role, by_role.get(role))
        return _with_fp16(role, network) if force_fp16 and role in NETWORKS else network

    if parts.get("label_kind") not in (None, *LABEL_KINDS):
        raise CheckpointError(f"{where}: label_kind: expected {' or '.join(LABEL_KINDS)}, "
                              f"found {reprlib.repr(parts['label_kind'])}")
    names = [*NETWORKS, "training_set_kwargs", "augment_pipe", "label_kind"]
    names += ["notes"] if isinstance(parts.get("notes"), dict) else []  # others may mean something else by it
    known = {name: parts[name] for name in names if name in parts}
    return Networks(where, known, build_part, tuple(str(name) for name in parts if name not in known))


def _is_torchscript(f: BinaryIO) -> bool:
    """Whether an open file is a compiled program, which looks much like a file of torch.save."""
    start = f.tell()
    try:
        if f.read(2) != b"PK":
            return False
        with zipfile.ZipFile(f) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, *checkpoint.MALFORMED):
        return False  # the reader says what is wrong
    finally:
        f.seek(start)


def _at(f: BinaryIO, error: CheckpointError) -> str:
    """The text of an error with the name of its file, once."""
    name = checkpoint.file_name(f)
    return str(error) if str(error).startswith(f"{name}: ") else f"{name}: {error}"


class _Trusted:
    """A file whose origin is trusted: what it contains is executed when, and if, its parts are first asked for."""

    def __init__(self, f: BinaryIO) -> None:
        self.name = checkpoint.file_name(f)
        self.content = f.read()
        f.seek(0)

    @functools.cache  # noqa: B019 (one per file, which lives as long as its networks)
    def parts(self) -> tuple[dict[str, Any], Callable[[str, Any], Any]]:
        """What the file holds by role, and the function that makes a network of it."""
        f = io.BytesIO(self.content)
        f.name = self.name
        try:
            return _parts_in(checkpoint.read_trusted(f))
        except CheckpointError as error:
            raise CheckpointError(_at(f, error)) from error.__cause__


def _parts_in(data: object) -> tuple[dict[str, Any], Callable[[str, Any], Any]]:
    """What a file holds by role, and the function that makes a network of it."""
    match data:
        case ModuleRecord() | torch.nn.Module():
            name = data.class_name if isinstance(data, ModuleRecord) else type(data).__name__
            return {"D" if name.endswith("Discriminator") else "G_ema": data}, _as_module
        case tuple([TFNetworkRecord() as G, TFNetworkRecord() as D, TFNetworkRecord() as G_ema]):
            return {"G": G, "D": D, "G_ema": G_ema}, _as_module
        case Foreign():
            raise CheckpointError(checkpoint.refusal(data.name))
        case dict() if rosinality.reads(data):
            others = {key: None for key in data if key not in rosinality.KEYS}
            return {**others, **{role: data for role in rosinality.roles(data)}}, rosinality.build
        case dict() if (of_tensors := state_dicts.parts(data)) is not None:
            return of_tensors, state_dicts.build
        case dict():
            _refuse_other_families(data)
        case _:
            raise CheckpointError(f"expected a dictionary with {', '.join(NETWORKS)} or a TensorFlow triple, "
                                  f"found a {type(data).__name__}")
    parts = [data[name] for name in NETWORKS if data.get(name) is not None]
    if all(isinstance(part, Foreign) for part in parts):
        stranger = checkpoint.foreign_name(data)
        if stranger is not None:
            raise CheckpointError(checkpoint.refusal(stranger))
    if not parts:
        raise CheckpointError(f"the pickle holds no {', '.join(NETWORKS)}; "
                              f"found: {', '.join(map(reprlib.repr, list(data)[:8])) or 'nothing'}")
    return data, _as_module


# Keys of a file's dictionary → the code base that writes such files, of another architecture.
_OTHER_FAMILIES = {
    ("GAN",): "lucidrains' stylegan2-pytorch",
    ("params", "ckpt"): "MobileStyleGAN",
}


def _refuse_other_families(data: dict) -> None:
    for keys, name in _OTHER_FAMILIES.items():
        if all(key in data for key in keys):
            raise CheckpointError(f"this file is of {name}, whose networks have another architecture and cannot be "
                                  "read here")


def _all_with_fp16(data: dict[str, Any]) -> dict[str, Any]:
    for name in NETWORKS:
        if name in data:
            data[name] = _with_fp16(name, data[name])
    return data


def _as_module(name: str, value: object) -> Any:
    stranger = checkpoint.foreign_name(value)
    if stranger is not None:
        raise CheckpointError(f"{name}: {checkpoint.refusal(stranger)}")
    if isinstance(value, torch.nn.Module):
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


def _with_fp16(name: str, network: Network) -> Any:
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
    networks: Mapping[str, torch.nn.Module | None],
    training_set_kwargs: dict[str, Any] | None,
    notes: Mapping[str, Any] | None = None,
    label_kind: str | None = None,
) -> dict[str, Any]:
    """The dictionary of a snapshot: detached copies on the CPU, in eval mode, without gradients.

    Args:
        networks: G, D, G_ema and augment_pipe (module or None). One that is None or left out is left out of the
            snapshot, which then serves only those who do not need it.
        training_set_kwargs: the data set's options, plain values.
        notes: further plain values about the networks, the entry "notes"; left out if there are none.
        label_kind: of the labels, one of `dnnlib.cli.LABEL_KINDS`; None leaves it out.
    """
    return {
        "training_set_kwargs": dict(training_set_kwargs) if training_set_kwargs else None,
        **{role: _frozen_copy(networks[role]) for role in NETWORKS if networks.get(role) is not None},
        "augment_pipe": _frozen_copy(networks.get("augment_pipe")),
        **({"notes": dict(notes)} if notes else {}),
        **({} if label_kind is None else {"label_kind": label_kind}),
    }


def _frozen_copy(module: torch.nn.Module | None) -> torch.nn.Module | None:
    return None if module is None else _frozen(copy.deepcopy(module)).cpu()


def save_networks(data: dict[str, Any], path: str | os.PathLike) -> None:
    """Writes a snapshot dictionary as one pickle that stock StyleGAN2-ADA and stylegan3 trees load unchanged."""
    checkpoint.write_pickle(data, path)
