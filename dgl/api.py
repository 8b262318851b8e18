"""The Python interface: networks by path, URL or hub id."""
import os
import re
from typing import TYPE_CHECKING

from dnnlib.errors import UserError

if TYPE_CHECKING:
    import torch

ROLES = ("G_ema", "G", "D")


def load(
    network: str | os.PathLike[str], role: str = "G_ema", device: "str | torch.device" = "cpu",
    trust_pickle: bool = False,
) -> "torch.nn.Module":
    """A network from a file of any known kind, in eval mode, without gradients.

    Nothing in the file is executed. A generator is called as `G(z, c, truncation_psi=0.7)` with z [N, z_dim] and
    labels c [N, c_dim] or None, and returns images [N, C, H, W] in [-1, 1].

    Args:
        network: path or URL of a pickle, a safetensors file, a folder of `from_pretrained`, or BigGAN files.
        role: "G_ema" (the averaged generator), "G" or "D".
        device: where to put it.
        trust_pickle: execute what the file contains, for classes that are not known here.

    Raises:
        UserError: an unknown role, or a file that is missing, damaged, refused or without this network.
    """
    if role not in ROLES:
        raise UserError(f"expected one of {', '.join(ROLES)}, found {role!r}", field="role")
    from training.checkpoints.pickles import open_networks

    return open_networks(os.fspath(network), trust_pickle=trust_pickle)[role].to(device)


def from_pretrained(
    name: str | os.PathLike[str], revision: str | None = None, device: "str | torch.device" = "cpu"
) -> "torch.nn.Module":
    """The averaged generator in a folder that `export.py` wrote for a model hub, or on the Hugging Face hub.

    Only safetensors and JSON files are read or fetched, never pickles.

    Args:
        name: a folder, or OWNER/NAME on the hub, which needs the package huggingface_hub (the extra [hub]).
        revision: branch, tag or commit on the hub.
        device: where to put it.

    Raises:
        UserError: there is no such folder or repository, the package is missing, or the files are damaged.
    """
    folder = os.fspath(name)
    if os.path.isdir(folder):
        if revision is not None:
            raise UserError(f"a folder ({folder}) has no revisions; leave it out", field="revision")
    elif re.fullmatch(r"[\w.-]+/[\w.-]+", folder) and not folder.startswith("."):
        folder = _fetched(folder, revision)
    else:
        raise UserError(f"expected a folder or OWNER/NAME on the hub, found {folder!r}", field="name")
    from training.checkpoints import safetensors_files

    return load(safetensors_files.file_of(folder), device=device)


def _fetched(name: str, revision: str | None) -> str:
    """The folder in the hub client's cache with a repository's safetensors and JSON files."""
    from training.export.packages import require

    (hub,) = require(("huggingface_hub",), "hub", f"{name} is no folder here; fetching it from the hub")
    try:
        return hub.snapshot_download(name, revision=revision, allow_patterns=["*.safetensors", "*.json"])
    except Exception as error:  # the client's own, of many kinds
        raise UserError(f"{name} cannot be fetched from the hub: {str(error).splitlines()[0]}", field="name") from error
