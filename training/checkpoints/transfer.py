"""Weights of one network for another: by name, and where images, labels or widths differ, as much as fits."""
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch

from dnnlib.errors import UserError
from torch_utils import misc
from torch_utils.checkpoint import CheckpointError
from torch_utils.network_types import image_size

from .. import architectures
from .alignment import Alignment, of_labels, with_image_channels
from .pickles import NETWORKS, open_networks

_INPUTS = 1  # the axis of a weight that its inputs lie along
_DIVISIBLE = (".weight", ".bias", ".freqs", ".phases")  # buffers of which a part is of use; others are statistics


@dataclasses.dataclass
class Transplant:
    """Which tensors of a network were copied whole, copied in part, or kept as they were initialised.

    Attributes:
        copied, new: names.
        partial: names, of which less was copied, or in another form.
        left_out: names of the source that the network has no place for.
        shapes: name → [shape] of partial and new tensors, and what it was made of.
    """

    copied: list[str] = dataclasses.field(default_factory=list)
    partial: list[str] = dataclasses.field(default_factory=list)
    new: list[str] = dataclasses.field(default_factory=list)
    left_out: list[str] = dataclasses.field(default_factory=list)
    shapes: dict[str, str] = dataclasses.field(default_factory=dict)

    def lines(self, network: str) -> list[str]:
        """A summary line, and one for every tensor that was not copied whole."""
        head = f"{network}: {len(self.copied)} tensors copied, {len(self.partial)} in part, {len(self.new)} new"
        head += f", {len(self.left_out)} left out" if self.left_out else ""
        kinds = {"partial": self.partial, "new": self.new, "left out": self.left_out}
        return [head, *(f"  {kind}: {name} {self.shapes[name]}" for kind, names in kinds.items() for name in names)]


@torch.no_grad()
def transplant(source: torch.nn.Module, target: torch.nn.Module) -> Transplant:
    """Copies parameters and buffers by name; of other resolutions by the names that the family aligns them by.

    A parameter of another shape is copied as far as both reach. Weights of gained inputs start at zero, gained outputs
    as they were initialised, and where the number of inputs changed, what was copied is rescaled for the gain of
    1/sqrt(inputs) at run time (arXiv:1710.10196, section 4.1). So a network that gains channels or labels makes the
    images it made. Greyscale and colour are converted (`alignment.with_image_channels`), gained or lost labels are
    compensated (`alignment.of_labels`), and blocks that add to the image start at zero (`Alignment.is_added`).

    Raises:
        UserError: the networks are for other images, and their family cannot be aligned.
    """
    alignments = _alignments(source, target)
    is_resized = any(_differs(source, target, name) for name in ("img_resolution", "img_channels"))
    known = {alignments[0].stable_name(name): (name, tensor)
             for name, tensor in misc.named_params_and_buffers(source)}
    statistics = {name for name, _ in target.named_buffers() if not name.endswith(_DIVISIBLE)}
    axes = alignments[1].image_axes
    report = Transplant()
    for name, tensor in misc.named_params_and_buffers(target):
        stable = alignments[1].stable_name(name)
        if is_resized and alignments[1].is_fixed(name):
            known.pop(stable, None)
            continue
        value = known.pop(stable)[1] if stable in known else None
        report.shapes[name] = str(list(tensor.shape))
        if value is not None and value.shape == tensor.shape:
            tensor.copy_(value)
            report.copied.append(name)
        elif value is not None and name not in statistics and value.ndim == tensor.ndim:
            report.shapes[name] += f" from {list(value.shape)}"
            if name in axes:
                value = with_image_channels(value, axes[name], tensor.shape[axes[name]])
            _copy_shared(value, tensor)
            report.partial.append(name)
        else:
            report.new.append(name)
    for name, tensor in known.values():
        report.left_out.append(name)
        report.shapes.setdefault(name, str(list(tensor.shape)))
    if architectures.find(target) is not None and alignments[1].image_axes:
        _make_up(source, target, alignments[1], report)
    return report


def _differs(source: Any, target: Any, attribute: str) -> bool:
    return getattr(source, attribute, None) != getattr(target, attribute, None)


def _alignments(source: Any, target: Any) -> list[Alignment]:
    """The alignments of both networks."""
    family = architectures.find(target)
    if family is not None and family.alignment is not None and architectures.find(source) is family:
        sizes = [image_size(network) for network in (source, target)]
        if sizes[0][0] * sizes[1][1] != sizes[0][1] * sizes[1][0]:
            shapes = [f"{width}x{height}" for height, width in sizes]
            raise UserError(f"the pickle's network makes {shapes[0]} images (width x height) and this one {shapes[1]}: "
                            "networks for images of one shape do not fit another; name another pickle", field="resume")
        return [family.module("alignment").of_network(network) for network in (source, target)]
    for attribute in ("img_resolution", "img_channels"):
        if _differs(source, target, attribute):
            values = [getattr(network, attribute) for network in (source, target)]
            raise UserError(f"{attribute} is {values[0]} in the pickle, but {values[1]} in the data set, and a "
                            f"{type(target).__name__} can only start from one for the same images; convert the data "
                            "with dataset_tool.py, or name another pickle", field="resume")
    return [Alignment(), Alignment()]


def _copy_shared(value: torch.Tensor, tensor: torch.Tensor) -> None:
    """Copies the part that two tensors of as many axes share; gained inputs of it become zero."""
    shared = tuple(slice(0, min(a, b)) for a, b in zip(value.shape, tensor.shape))
    gain = 1.0
    if tensor.ndim > _INPUTS and tensor.shape[_INPUTS] != value.shape[_INPUTS]:
        gain = math.sqrt(tensor.shape[_INPUTS] / value.shape[_INPUTS])
        tensor[shared[0]].zero_()
    tensor[shared] = value[shared].to(tensor.device) * gain


def _make_up(source: Any, target: Any, alignment: Alignment, report: Transplant) -> None:
    """Labels, and new blocks that add to the image."""
    tensors = dict(misc.named_params_and_buffers(target))
    for name, value in of_labels(source, target).items():
        tensors[name].copy_(value)
    added = [name for name in (*report.copied, *report.partial, *report.new) if alignment.is_added(name)]
    if any(name not in report.new for name in added):
        for name in added:
            if name in report.new:
                tensors[name].zero_()
                report.shapes[name] += ", zero"


def from_pickle(
    networks: Mapping[str, torch.nn.Module],
    url: str,
    trust_pickle: bool = False,
) -> list[str]:
    """Starts G, D and G_ema from a network pickle (transfer learning).

    A file with one of the generators starts both from it; one without a discriminator that can be read leaves D as it
    was initialised.

    Args:
        networks: 'G', 'D' and 'G_ema', changed in place.
        url: path or URL of the pickle.

    Returns:
        Lines that say what was copied and what a pickle cannot restore.

    Raises:
        UserError: the networks are for other images and cannot be aligned, or have nothing in common.
    """
    source: dict[str, Any] = open_networks(url, trust_pickle=trust_pickle)
    lines = [f"Starting from {url}; its optimizer state, image count and augmentation strength are not in a pickle"]
    for name, target in networks.items():
        if name not in NETWORKS:
            continue
        role = name
        if name not in source and name != "D":
            role = "G" if name == "G_ema" else "G_ema"
            lines.append(f"{name}: starts from {role}, the only generator in the file")
        try:
            network = source[role]
        except CheckpointError as error:
            if name != "D":
                raise
            lines.append(f"D: as it was initialised ({error})")
            continue
        report = transplant(network, target)
        if not report.copied:
            kinds = [type(net).__name__ for net in (network, target)]
            raise UserError(f"nothing of the pickle's {kinds[0]} fits a {kinds[1]}", field="resume")
        lines += report.lines(name)
    return lines
