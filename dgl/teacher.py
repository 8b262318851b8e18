"""The trained network whose discriminator guides a student: loaded, checked against the data, frozen."""
import dataclasses
import hashlib
import os
from typing import Any

import dnnlib
from dnnlib.util import UserError
from training.biggan.checkpoints import network_files, split_suffix
from training.checkpoints.pickles import open_networks


class TeacherError(UserError):
    """A teacher that cannot guide this training."""


@dataclasses.dataclass
class Teacher:
    """A teacher's networks, as its file holds them, and where they came from."""

    url: str
    sha256: str
    G: Any
    G_ema: Any
    D: Any
    training_set_kwargs: dict[str, Any] | None


def load(url: str, trust_pickle: bool = False, sha256: str | None = None) -> Teacher:
    """Loads a teacher from a network pickle of any known kind.

    Args:
        url: path or URL.
        sha256: what the file must hash to; None accepts any.

    Raises:
        UserError: the file is missing, damaged, refused, or another one than `sha256` says.
    """
    found = file_sha256(url)
    if sha256 is not None and found != sha256:
        raise TeacherError(f"--teacher: {url} has changed: its sha256 is {found}, this run began with {sha256}")
    nets = open_networks(url, trust_pickle=trust_pickle)
    return Teacher(url, found, nets["G"], nets["G_ema"], nets["D"], nets["training_set_kwargs"])


def file_sha256(url: str) -> str:
    """The sha256 of a file, of what a URL delivers (kept in the download cache), or of a folder's networks."""
    place = split_suffix(url)[0]
    if not dnnlib.util.is_url(url) and not os.path.exists(place):
        hint = ", and no URL either: its host has no dot" if "://" in url else ""
        raise TeacherError(f"--teacher: {url}: no such file{hint}")
    digest = hashlib.sha256()
    for path in network_files(url) if os.path.isdir(place) else [url]:
        with dnnlib.util.open_url(str(path)) as f:
            for block in iter(lambda: f.read(1 << 20), b""):
                digest.update(block)
    return digest.hexdigest()


def check_alike(first: Teacher, other: Teacher) -> None:
    """Checks that another teacher is for the same images and labels as the first.

    Raises:
        TeacherError: it is not.
    """
    found = [(one.D.img_resolution, one.D.img_channels, one.D.c_dim) for one in (first, other)]
    if found[0] != found[1]:
        texts = [f"{one.url} is for {side}x{side} images of {channels} channel(s) and labels of size {labels}"
                 for one, (side, channels, labels) in zip((first, other), found)]
        raise TeacherError(f"--teacher: all teachers must be for the same images and labels, but {' and '.join(texts)}")


def check_fits(teacher: Teacher, resolution: int, num_channels: int, label_dim: int) -> None:
    """Checks that a teacher is for images and labels like the data set's.

    Raises:
        TeacherError: names what differs and what to do.
    """
    for role, network in (("G_ema", teacher.G_ema), ("D", teacher.D)):
        theirs = (network.img_resolution, network.img_channels, network.c_dim)
        what = f"--teacher: {role} of {os.path.basename(teacher.url)}"
        if theirs[0] != resolution:
            raise TeacherError(f"{what} is for {theirs[0]}x{theirs[0]} images, the data set's are "
                               f"{resolution}x{resolution}; convert the data with dataset_tool.py "
                               f"--resolution={theirs[0]}x{theirs[0]}, or pass another teacher")
        if theirs[1] != num_channels:
            raise TeacherError(f"{what} has {theirs[1]} image channel(s), the data set {num_channels}; convert the "
                               f"data with dataset_tool.py --force-channels={theirs[1]}, or pass another teacher")
        if theirs[2] != label_dim:
            hint = "fix dataset.json" if theirs[2] and label_dim else f"pass --cond={str(theirs[2] > 0).lower()}"
            raise TeacherError(f"{what} takes labels of size {theirs[2]}, the data set gives {label_dim}; {hint}, or "
                               "pass another teacher")
