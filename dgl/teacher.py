"""The trained networks that guide a student: opened once per process, checked against the data, frozen."""
import copy
import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch

import dnnlib
from dnnlib.errors import UserError
from training.biggan.checkpoints import split_suffix
from training.checkpoints.parts import optional
from training.checkpoints.pickles import open_networks

from .heads import HeadsDiscriminator


class TeacherError(UserError):
    """A teacher that cannot guide this training."""


@dataclasses.dataclass(frozen=True)
class Teacher:
    """The networks in a teacher's file. They are shared by all who load it: copy one before training it.

    Attributes:
        url: path or URL of the file.
        sha256: of the file.
        G, G_ema, D: networks in eval mode, without gradients. G is G_ema in a file without G; D is None if the file
            holds none that can be read, which `load` allows on request.
        training_set_kwargs: what the file says about its data set; None if nothing.
        notes: what else those who trained the networks say about them; None if nothing.
        label_kind: what it says labels are, one of `dnnlib.cli.LABEL_KINDS`; None if nothing.
    """

    url: str
    sha256: str
    G: Any
    G_ema: Any
    D: Any
    training_set_kwargs: dict[str, Any] | None
    notes: Any = None
    label_kind: str | None = None


_loaded: dict[tuple[str, str], Teacher] = {}  # (url, sha256) → networks that this process has opened


def load(
    url: str, trust_pickle: bool = False, sha256: str | None = None, needs_discriminator: bool = True
) -> Teacher:
    """Loads a teacher from a network pickle of any known kind.

    Options, initial weights and the loss of a run all need it. So it is kept until `release_all`, and loading what is
    kept, by path and sha256, does not open the file again. Every file of a BigGAN
    folder is opened once, too.

    Args:
        url: path or URL.
        trust_pickle: execute what the file contains, for classes that are not known here.
        sha256: expected hash of the file; None accepts any, and always opens it.
        needs_discriminator: without, a file with a generator alone is a teacher too.

    Raises:
        UserError: the file is missing, damaged, refused, has another sha256, or lacks a network.
    """
    kept = None if sha256 is None else _loaded.get((url, sha256))
    if kept is not None and (kept.D is not None or not needs_discriminator):
        return kept
    path = split_suffix(url)[0]
    if not dnnlib.util.is_url(url) and not os.path.exists(path):
        hint = ", and no URL either: its host has no dot" if "://" in url else ""
        raise TeacherError(f"{url}: no such file{hint}", field="teacher")
    actual = ""

    def check(digest: str) -> None:
        nonlocal actual
        actual = digest
        if sha256 is not None and digest != sha256:
            raise TeacherError(f"{url} has changed: its sha256 is {digest}, this run began with {sha256}",
                               field="teacher")

    nets = open_networks(url, trust_pickle=trust_pickle, check_sha256=check)
    D = nets["D"] if needs_discriminator else optional(nets, "D")
    G_ema = nets["G_ema"]
    G = nets["G"] if "G" in nets else G_ema
    teacher = Teacher(url, actual, G, G_ema, D, nets["training_set_kwargs"], nets.get("notes"), nets.get("label_kind"))
    _loaded[url, actual] = teacher
    return teacher


def spec(teacher: Teacher, trust_pickle: bool = False) -> dict[str, Any]:
    """The arguments with which `load` gives this very teacher, as plain values for a run's configuration."""
    return {"url": teacher.url, "sha256": teacher.sha256, **({"trust_pickle": True} if trust_pickle else {})}


def release_all() -> None:
    """Releases all teachers that this process keeps; references to them stay valid."""
    _loaded.clear()


class TeacherSet:
    """The teachers of one run on its device.

    Attributes:
        discriminators: one of each teacher that has one; frozen, or copies in training mode that may be trained.
        first: the first teacher, frozen, which distillation compares with; None if it is not needed.

    Args:
        teachers: at least one.
        device: where to compute.
        update: train copies of the discriminators.
        with_generator: keep the first teacher's networks, on the device too.
    """

    def __init__(
        self, teachers: Sequence[Teacher], device: torch.device, update: bool = False, with_generator: bool = False
    ) -> None:
        self._update = update
        self.first = teachers[0] if with_generator else None
        self.discriminators: list[torch.nn.Module] = []
        for teacher in teachers:
            if teacher.D is None:
                continue
            D = copy.deepcopy(teacher.D).train() if update else teacher.D
            self.discriminators.append(D.requires_grad_(False).to(device))
        if self.first is not None:
            for network in (self.first.G_ema, self.first.D):
                if network is not None:
                    network.to(device)

    @classmethod
    def open(
        cls, specs: Sequence[Mapping[str, Any]], device: torch.device, update: bool = False,
        with_generator: bool = False, needs_discriminator: bool = True,
    ) -> "TeacherSet":
        """The teachers of these arguments of `load`; other teachers that the process keeps are released.

        Further arguments are those of the class and of `load`.

        Raises:
            UserError: a teacher cannot be loaded.
        """
        teachers = [load(**spec, needs_discriminator=needs_discriminator) for spec in specs]
        release_all()
        return cls(teachers, device, update, with_generator)

    def use_heads(self) -> None:
        """Puts a trainable HeadsDiscriminator on every discriminator, and in its place."""
        self._update = True
        self.discriminators = [HeadsDiscriminator(D).requires_grad_(False) for D in self.discriminators]

    def logits(self, img: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """What all discriminators say of images [N, C, H, W] with labels [N, c_dim]: [N, teachers]."""
        return torch.cat([D(img, c) for D in self.discriminators], dim=1)

    def state_dict(self) -> dict[str, Any]:
        """What training has changed: nothing, or the discriminators' tensors."""
        return {"teachers": [D.state_dict() for D in self.discriminators]} if self._update else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict()`."""
        for D, tensors in zip(self.discriminators, state.get("teachers", [])):
            D.load_state_dict(tensors)


def check_alike(first: Teacher, other: Teacher) -> None:
    """Checks that another teacher is for the same images and labels as the first.

    Raises:
        TeacherError: it is not.
    """
    networks = [teacher.G_ema if teacher.D is None else teacher.D for teacher in (first, other)]
    sizes = [(network.img_resolution, network.img_channels, network.c_dim) for network in networks]
    if sizes[0] != sizes[1]:
        texts = [f"{teacher.url} is for {side}x{side} images of {channels} channel(s) and labels of size {labels}"
                 for teacher, (side, channels, labels) in zip((first, other), sizes)]
        raise TeacherError(f"all teachers must be for the same images and labels, but {' and '.join(texts)}",
                           field="teacher")


def check_fits(teacher: Teacher, resolution: int, num_channels: int, label_dim: int) -> None:
    """Checks that a teacher is for images and labels like the data set's.

    Raises:
        TeacherError: names what differs and what to do.
    """
    for role, network in (("G_ema", teacher.G_ema), ("D", teacher.D)):
        if network is None:
            continue
        side, channels, labels = network.img_resolution, network.img_channels, network.c_dim
        name = f"{role} of {os.path.basename(teacher.url)}"
        problem = None
        if side != resolution:
            problem = (f"{name} is for {side}x{side} images, the data set's are {resolution}x{resolution}; convert the "
                       f"data to {side}x{side} with dataset_tool.py")
        elif channels != num_channels:
            problem = (f"{name} has {channels} image channel(s), the data set {num_channels}; convert the data to "
                       f"{channels} channel(s) with dataset_tool.py")
        elif labels != label_dim:
            hint = "fix dataset.json" if labels and label_dim else f"pass `cond={str(labels > 0).lower()}`"
            problem = f"{name} takes labels of size {labels}, the data set gives {label_dim}; {hint}"
        if problem is not None:
            raise TeacherError(f"{problem}, or pass another teacher", field="teacher")
