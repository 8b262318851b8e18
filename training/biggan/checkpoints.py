"""BigGAN checkpoints: folders of G.pth, G_ema.pth, D.pth and state_dict.pth, read without executing them, and written.

Every file may carry a suffix behind an underscore (best0, copy1, ...). `state_dict.pth`, which holds the options of the
run, is optional, and live objects in it are passed over. StudioGAN's generators are converted. FOLDER:SUFFIX names the
files of a suffix; without one, those without, or the only ones there are.
"""
import collections
import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch

from dnnlib.bounded import open_regular
from dnnlib.errors import FileError
from dnnlib.files import open_atomic
from torch_utils.checkpoint import MALFORMED, CheckpointError, read_torch_file
from torch_utils.checkpoint.writing import torch_save
from torch_utils.network_types import Network

from ..checkpoints.parts import WholeNetworks
from ..checkpoints.rebuilding import rebuild
from ..networks_biggan import BigGANDiscriminator, BigGANGenerator
from . import layout, studiogan

_FILE = re.compile(r"(?P<role>G_ema|G|D|state_dict)(?:_(?P<suffix>\w+))?\.pth")
_STUDIOGAN_FILE = re.compile(r"model=(?P<role>G_ema|G|D)-(?P<suffix>\w+)-weights-step=(?P<step>\d+)\.pth")
_CLASSES: dict[str, Any] = {"G": BigGANGenerator, "D": BigGANDiscriminator}
_CONVERTED_EPS = 1e-4  # of every norm in files converted from the TensorFlow weights, which alone have no sv0

_ROLES = ("G", "G_ema", "D")
_BOOKKEEPING = {"itr": 0, "epoch": 0, "save_num": 0, "save_best_num": 0, "best_IS": 0, "best_FID": 999999}


def split_suffix(path: str | os.PathLike, suffix: str = "") -> tuple[str, str]:
    """FOLDER:SUFFIX in two; every other path with the suffix that is given."""
    if suffix:
        return os.fspath(path), suffix
    folder, colon, end = os.fspath(path).rpartition(":")
    if colon and re.fullmatch(r"\w+", end) and os.path.isdir(folder) and not os.path.exists(path):
        return folder, end
    return os.fspath(path), ""


def load_generator(path: str | os.PathLike, ema: bool = True, suffix: str = "") -> torch.nn.Module:
    """The generator in a folder or a file, in eval mode on the CPU, without gradients.

    Args:
        path: a .pth file, or a folder with G_ema.pth or G.pth.
        ema: in a folder, prefer the moving average; otherwise only the raw network will do.
        suffix: of the files in a folder.

    Raises:
        CheckpointError: the file is missing, damaged, of another kind, or contradicts its state_dict.pth; names it.
    """
    file = _find(path, ("G_ema", "G") if ema else ("G",), suffix)
    return _load(file, "G")


def load_discriminator(path: str | os.PathLike, suffix: str = "") -> torch.nn.Module:
    """The discriminator in a folder or a file; as `load_generator`."""
    return _load(_find(path, ("D",), suffix), "D")


def network_files(path: str | os.PathLike, suffix: str = "") -> list[Path]:
    """The files that `load_networks` reads networks from."""
    folder, suffix = split_suffix(path, suffix)
    if os.path.isdir(folder):
        return list(_files(folder, suffix).values())
    return [Path(path)]


@contextlib.contextmanager
def opened(path: str | os.PathLike, suffix: str = "") -> Iterator[dict[Path, IO[bytes]]]:
    """The `network_files`, open until the context ends.

    Raises:
        CheckpointError: one of them cannot be read.
    """
    with contextlib.ExitStack() as stack:
        try:
            files = {file: stack.enter_context(open_regular(file)) for file in network_files(path, suffix)}
        except FileError as error:
            raise CheckpointError(str(error)) from None
        yield files


def load_networks(
    path: str | os.PathLike, suffix: str = "", files: Mapping[Path, IO[bytes]] | None = None
) -> dict[str, Any]:
    """All networks of a folder, or the one in a file, as `training.checkpoints.pickles.load_networks` returns them.

    A missing G stands in for G_ema and the other way round. Asking for a network that is not there at all raises a
    CheckpointError that names it.

    Args:
        path: the folder or file.
        suffix: of the files in a folder.
        files: what `opened` gives for this path, if they are open already.
    """
    if files is None:
        with opened(path, suffix) as files:
            return load_networks(path, suffix, files)
    nets: dict[str, Any] = WholeNetworks(os.fspath(path), "put {0}.pth beside the others".format)
    folder, suffix = split_suffix(path, suffix)
    if os.path.isdir(folder):
        by_role = _files(folder, suffix)
        for role in _ROLES:
            if role in by_role:
                nets[role] = _load(by_role[role], role[0], files)
        if not any(role in nets for role in _ROLES):
            _find(folder, ("G_ema", "G", "D"), suffix)
    else:
        network = _load(_find(path, (), suffix), None, files)
        nets["D" if isinstance(network, BigGANDiscriminator) else "G_ema"] = network
    for role, other in (("G", "G_ema"), ("G_ema", "G")):
        if role not in nets and other in nets:
            nets[role] = nets[other]
    return nets


# ----------------------------------------------------------------------------------------------------------------------
# Finding files


def _available(folder: str | os.PathLike) -> dict[str, dict[str, Path]]:
    """Suffix → role → file."""
    matches = []
    for file in sorted(Path(folder).iterdir()):
        match = _FILE.fullmatch(file.name) or _STUDIOGAN_FILE.fullmatch(file.name)
        if match and not (match["suffix"] or "").startswith("optim"):
            matches.append((int(match.groupdict().get("step") or 0), file, match))
    by_suffix: dict[str, dict[str, Path]] = {}
    for _, file, match in sorted(matches, key=lambda entry: entry[0]):  # of several steps the last remains
        by_suffix.setdefault(match["suffix"] or "", {})[match["role"]] = file
    return by_suffix


def _files(folder: str | os.PathLike, suffix: str) -> dict[str, Path]:
    """Role → file: of a suffix; without one, of the files that have none, or else of the only suffix there is."""
    by_suffix = _available(folder)
    with_networks = [name for name, files in by_suffix.items() if any(role in files for role in _ROLES)]
    if not suffix and "" not in with_networks and len(with_networks) == 1:
        suffix = with_networks[0]
    return by_suffix.get(suffix, {})


def _find(path: str | os.PathLike, roles: tuple[str, ...], suffix: str) -> Path:
    """The file itself, or the first of the roles in a folder."""
    folder, suffix = split_suffix(path, suffix)
    if not os.path.isdir(folder):
        if suffix:
            raise CheckpointError(f"{os.fspath(path)}: a suffix ({suffix}) goes with a folder, not with a file")
        return Path(path)
    files = _files(folder, suffix)
    for role in roles:
        if role in files:
            return files[role]
    names = " or ".join(f"{role}{f'_{suffix}' if suffix else ''}.pth" for role in roles)
    by_suffix = _available(folder)
    others = ", ".join(file.name for files in by_suffix.values() for file in files.values())
    hint = f"; {folder}:SUFFIX takes those with a suffix" if any(by_suffix) and not suffix else ""
    raise CheckpointError(f"{folder}: no {names} in this folder; found: {others or 'no checkpoint'}{hint}")


def _config_of(file: Path, files: Mapping[Path, IO[bytes]]) -> tuple[Path, dict[str, Any]]:
    """The state_dict.pth that goes with a file, and the options in it; none if it is not there."""
    match = _FILE.fullmatch(file.name)
    suffix = f"_{match['suffix']}" if match and match["suffix"] else ""
    path = file.with_name(f"state_dict{suffix}.pth")
    if match is None or not path.is_file():
        return path, {}
    data = read_torch_file(path, files.get(path))
    config = data.get("config") if isinstance(data, dict) else None
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: expected a dictionary with an entry 'config'; remove the file to go without it")
    return path, config


# ----------------------------------------------------------------------------------------------------------------------
# Reading


def _load(file: Path, kind: str | None, files: Mapping[Path, IO[bytes]] = {}) -> torch.nn.Module:
    """The network in a file; files that are open already are read as they are."""
    tensors = _read_tensors(file, files.get(file))
    try:
        tensors, given = _to_public_layout(tensors)
        actual_kind = layout.network_kind(tensors)
        if kind not in (None, actual_kind):
            names = {"G": "generator", "D": "discriminator"}
            raise CheckpointError(f"expected a {names[str(kind)]}, found a {names[actual_kind]}")
        options = {**layout.options_of(tensors), **given}
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from None
    except MALFORMED as error:
        raise CheckpointError(f"{file}: tensors of unexpected shapes ({type(error).__name__}: {error})") from None
    config_path, config = _config_of(file, files)
    try:
        options = layout.complete(options, config)
    except CheckpointError as error:
        raise CheckpointError(f"{config_path}: {error} (in {file.name})") from None
    try:
        return rebuild(_CLASSES["G" if "G_param" in options else "D"], {**options, "skip_init": True}, tensors)
    except (CheckpointError, ValueError) as error:
        raise CheckpointError(f"{file}: {error}") from None


def _read_tensors(file: Path, f: IO[bytes] | None) -> dict[str, torch.Tensor]:
    """The tensors [...] of a network's file by name, out of StudioGAN's wrapper if there is one."""
    data = read_torch_file(file, f)
    if isinstance(data, dict) and isinstance(data.get("state_dict"), dict):
        data = data["state_dict"]
    if isinstance(data, dict) and "param_groups" in data:
        raise CheckpointError(f"{file}: this is the state of an optimizer, not of a network")
    if not isinstance(data, dict) or not data or not all(isinstance(value, torch.Tensor) for value in data.values()):
        raise CheckpointError(f"{file}: expected a dictionary of a network's tensors by name")
    return data


def _to_public_layout(tensors: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors under the names of our networks, and constructor arguments that go with where they come from."""
    if studiogan.is_studiogan(tensors):
        return studiogan.convert(tensors), dict(studiogan.OPTIONS)
    tensors = {_plain_norm_name(name): tensor for name, tensor in _without_counters(tensors).items()}
    vectors = [name for name in tensors if name.endswith(".u0")]
    if vectors and not any(name.endswith(".sv0") for name in tensors):
        given = {"SN_eps": _CONVERTED_EPS}
        if layout.network_kind(tensors) == "G":
            given["BN_eps"] = _CONVERTED_EPS
        return {**tensors, **{f"{name[:-2]}sv0": torch.ones([1]) for name in vectors}}, given
    return tensors, {}


def _plain_norm_name(name: str) -> str:
    """The statistics of the public code's other batch norms (mybn, cross_replica) under the plain one's names."""
    return re.sub(r"\.bn\.(?:stored|running)_(mean|var)$", r".stored_\1", name)


def _without_counters(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Standing statistics are stored as sums beside their count: divided by it."""
    statistics = {}
    for name, tensor in tensors.items():
        prefix, _, leaf = name.rpartition(".")
        if leaf in ("accumulation_counter", "num_batches_tracked") and prefix.endswith(".bn"):
            continue
        counter = tensors.get(f"{prefix}.accumulation_counter", torch.zeros([1]))
        if counter.numel() != 1:
            raise CheckpointError(f"{prefix}.accumulation_counter: expected one number, found {list(counter.shape)}")
        count = float(counter) or 1
        statistics[name] = tensor / count if count != 1 and leaf in ("stored_mean", "stored_var") else tensor
    return statistics


# ----------------------------------------------------------------------------------------------------------------------
# Writing


def save_checkpoint(
    folder: str | os.PathLike,
    networks: Mapping[str, Any],
    suffix: str = "",
    itr: int = 0,
) -> list[Path]:
    """Writes networks as the public code does, so that it loads them: tensors by name, and the options beside them.

    The public code knows three image channels, spectral normalisation and the widths of a channel multiplier only.

    Args:
        folder: made if missing.
        networks: any of G, G_ema and D.
        suffix: of the files.
        itr: generator steps so far.

    Returns:
        The files, state_dict.pth last.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    end = f"_{suffix}" if suffix else ""
    contents: dict[str, Any] = {
        role: collections.OrderedDict((name, tensor.cpu().clone()) for name, tensor in network.state_dict().items())
        for role, network in networks.items()
    }
    contents["state_dict"] = {**_BOOKKEEPING, "itr": itr, "config": config_of(networks)}
    files = []
    for role, content in contents.items():
        files.append(Path(folder, f"{role}{end}.pth"))
        with open_atomic(files[-1]) as f:
            torch_save(content, f)
    return files


def unknown_to_public_code(network: Network) -> list[str]:
    """What keeps the public code from loading a network; nothing if it does."""
    options, kind = network.options, "G" if isinstance(network, BigGANGenerator) else "D"
    reasons = []
    if options["img_channels"] != 3:
        reasons.append(f"it is for images of {options['img_channels']} channel(s), not 3")
    if options.get(f"{kind}_param") != "SN":
        reasons.append("it has no spectral normalisation")
    if options.get(f"{kind}_channels") is not None:
        reasons.append(f"its widths {options[f'{kind}_channels']} are not those of a channel multiplier")
    return reasons


def config_of(networks: Mapping[str, Any]) -> dict[str, Any]:
    """The options of networks as the public code names them."""
    config: dict[str, Any] = {
        "norm_style": "bn", "mybn": False, "cross_replica": False, "G_nl": "relu", "D_nl": "relu",
        "G_activation": torch.nn.ReLU(), "D_activation": torch.nn.ReLU(), "skip_init": True,
    }
    for role, network in networks.items():
        options = dict(network.options)
        config |= {"resolution": options.pop("img_resolution"), "n_classes": options.pop("c_dim")}
        options.pop("img_channels")
        if options.get(f"{role[0]}_channels") is None:
            options.pop(f"{role[0]}_channels")
        config |= options
    return config
