"""Reads network pickles of the whole StyleGAN2-ADA family; run as a program, rewrites one in the current format.

BigGANs can be written as the folders of the public code, too.
"""
import os
from typing import Any, BinaryIO

import click

from dnnlib.cli import Command, trust_pickle_option
from dnnlib.util import UserError


def load_network_pkl(f: BinaryIO, force_fp16: bool = False, trust_pickle: bool = False) -> dict[str, Any]:
    """Loads the networks in a pickle without executing anything the file contains.

    Reads SG2-ADA pickles, StyleGAN2 pickles of the stylegan3 tree, TensorFlow-era triples, and our own.

    Args:
        f: binary file object.
        force_fp16: rebuild the networks with half precision in their four highest resolutions and a clamp of 256.
        trust_pickle: execute what the file contains, for classes that are not known here.

    Returns:
        dict with G, D and G_ema (torch modules on the CPU), training_set_kwargs (dict or None), augment_pipe (module or
        None).

    Raises:
        torch_utils.checkpoint.CheckpointError: the file is damaged, refused, or not a network pickle.
    """
    from training.checkpoints.pickles import load_networks

    return load_networks(f, force_fp16=force_fp16, trust_pickle=trust_pickle)


@click.command(cls=Command)
@click.option("--source", help="Network pickle to read: path or URL.", required=True, metavar="[PATH|URL]")
@click.option("--dest", help="Pickle to write (*.pkl), or of a BigGAN the folder for the files of the public code.",
              required=True, metavar="PATH")
@click.option("--force-fp16", help="Half precision in the four highest resolutions.", type=bool, default=False,
              show_default=True, metavar="BOOL")
@trust_pickle_option
def main(source: str, dest: str, force_fp16: bool, trust_pickle: bool) -> None:
    """Rewrite a network pickle, for example one of the TensorFlow era, in the format of this code base.

    A BigGAN is read from pickles and from the public files, and written as either.

    \b
    Examples:
      # A network of the TensorFlow era.
      python legacy.py --source=stylegan2-horse-config-f.pkl --dest=horse.pkl
    \b
      # A BigGAN, for programs that read the public files.
      python legacy.py --source=biggan-student.pkl --dest=student-folder
    """
    from training import architectures
    from training.checkpoints.pickles import open_networks, save_networks, snapshot_data

    if os.path.exists(dest) and os.path.exists(source) and os.path.samefile(source, dest):
        raise UserError(f"--dest: {dest} is what --source names; name another")
    data = open_networks(source, force_fp16=force_fp16, trust_pickle=trust_pickle)
    family = architectures.find(data["G_ema"])
    if family is not None and family.files is not None and not dest.endswith(".pkl"):
        _save_folder(family.module("files"), {name: data[name] for name in ("G", "D", "G_ema")}, dest)
    else:
        networks = {name: data[name] for name in ("G", "D", "G_ema", "augment_pipe")}
        save_networks(snapshot_data(networks, data["training_set_kwargs"]), dest)
    click.echo(f"{dest}: the networks of {source}")


def _save_folder(files: Any, networks: dict[str, Any], folder: str) -> None:
    """Networks as the files of their family's public code."""
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise UserError(f"--dest: {folder} is a file; a BigGAN is written into a folder, or as a name ending in .pkl")
    for name, network in networks.items():
        for obstacle in files.unknown_to_public_code(network):
            click.echo(f"Warning: the public code cannot load {name}: {obstacle}", err=True)
    files.save_checkpoint(folder, networks)


if __name__ == "__main__":
    main()
