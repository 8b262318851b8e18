"""Reads network files of the whole StyleGAN2-ADA family; run as a program, rewrites one in the current format.

BigGANs can be written as the folders of the public code, too.
"""
import os
from typing import Any, BinaryIO

import click

from dnnlib.cli import Command, trust_pickle_option
from dnnlib.errors import UserError


def load_network_pkl(f: BinaryIO, force_fp16: bool = False, trust_pickle: bool = False) -> dict[str, Any]:
    """Loads the networks in a pickle without executing anything the file contains.

    Reads SG2-ADA pickles, pickles of the stylegan3 tree, TensorFlow-era triples, rosinality's files, and our own.

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
@click.option("--dest", help="Pickle to write (*.pkl), or for a BigGAN the folder for the files of the public code.",
              required=True, metavar="PATH")
@click.option("--format", "layout", help="How to write the file: a pickle of this code base, or the layout of "
              "rosinality's StyleGAN2 code (*.pt).", type=click.Choice(["pickle", "rosinality"]), default="pickle",
              show_default=True)
@click.option("--force-fp16", help="Half precision in the four highest resolutions.", type=bool, default=False,
              show_default=True, metavar="BOOL")
@click.option("--resolution", help="Resize the networks to another resolution, as a start of training: blocks that "
              "fit are copied, others are new.", type=click.IntRange(min=4), metavar="INT")
@trust_pickle_option
def main(
    source: str, dest: str, layout: str, force_fp16: bool, resolution: int | None, trust_pickle: bool
) -> None:
    """Rewrite a network file, for example one of the TensorFlow era, in the format of this code base.

    A BigGAN is read from pickles and from the public files, and written as either. Networks of the file that are
    missing or cannot be read are left out of the new one, with a message.

    \b
    Examples:
      # A network of the TensorFlow era.
      python legacy.py --source=stylegan2-horse-config-f.pkl --dest=horse.pkl
    \b
      # A StyleGAN2, for programs that read rosinality's checkpoints.
      python legacy.py --source=horse.pkl --dest=horse.pt --format=rosinality
    \b
      # A network for 512x512 images that starts from one for 256x256.
      python legacy.py --source=horse256.pkl --dest=horse512.pkl --resolution=512
    \b
      # A BigGAN, for programs that read the public files.
      python legacy.py --source=biggan-student.pkl --dest=student-folder
    """
    from training import architectures
    from training.checkpoints import resizing
    from training.checkpoints.pickles import open_networks, save_networks, snapshot_data

    if os.path.exists(dest) and os.path.exists(source) and os.path.samefile(source, dest):
        raise UserError(f"--dest: {dest} is what --source names; name another")
    data = open_networks(source, force_fp16=force_fp16, trust_pickle=trust_pickle)
    networks, data_kwargs = _readable(data), data["training_set_kwargs"]
    if resolution is not None:
        networks, lines = resizing.resized(networks, resolution)
        click.echo("\n".join(lines))
        data_kwargs = dict(data_kwargs, resolution=resolution) if data_kwargs else None
    family, are_kept = architectures.find(next(iter(networks.values()))), False
    if layout == "rosinality":
        _save_rosinality(networks, dest)
    elif family is not None and family.files is not None and not dest.endswith(".pkl"):
        _save_folder(family.module("files"), {name: networks[name] for name in ("G", "D", "G_ema") if name in networks},
                     dest)
    else:
        notes = data.get("notes") if resolution is None else None
        save_networks(snapshot_data(networks, data_kwargs, notes, data.get("label_kind")), dest)
        are_kept = notes is not None
    if data.get("notes") and not are_kept:
        click.echo("Warning: left out: the notes that a pickle has beside its networks", err=True)
    click.echo(f"{dest}: the networks of {source}")


def _readable(data: Any) -> dict[str, Any]:
    """The networks and the augmentation of a file, but for those that cannot be read, which are named.

    Raises:
        UserError: none of the networks can be read.
    """
    networks: dict[str, Any] = {}
    problems: list[UserError] = []
    for role in ("G_ema", "G", "D", "augment_pipe"):
        try:
            networks[role] = data[role]
        except UserError as error:
            problems.append(error)
    if not networks.keys() & {"G", "D", "G_ema"}:
        raise problems[0]
    for problem in problems:
        click.echo(f"Warning: left out: {problem}", err=True)
    for name in getattr(data, "others", ()):
        click.echo(f"Warning: left out: {name}; only networks and the data set's options are rewritten", err=True)
    return networks


def _save_rosinality(networks: dict[str, Any], dest: str) -> None:
    """Networks as one file of rosinality's layout.

    Raises:
        UserError: the file's name has another ending, or there is no averaged generator.
    """
    from training.checkpoints import rosinality

    if not dest.endswith((".pt", ".pth")):
        raise UserError(f"--dest: expected a name ending in .pt with --format=rosinality, found {dest}")
    if "G_ema" not in networks:
        raise UserError("--format: rosinality's layout needs G_ema, which the file does not have")
    for line in rosinality.save(networks, dest):
        click.echo(f"Note: {line}", err=True)


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
