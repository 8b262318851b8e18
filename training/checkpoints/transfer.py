"""Weights of one network for another: by name where shapes agree, in part where labels were added or removed."""
import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from dnnlib.errors import UserError

from .pickles import open_networks

_INPUTS = 1  # the axis of a weight that its inputs lie along


@dataclasses.dataclass
class Transplant:
    """Which tensors of a network were copied whole, copied in part, or kept as they were initialised."""

    copied: list[str] = dataclasses.field(default_factory=list)
    partial: list[str] = dataclasses.field(default_factory=list)
    new: list[str] = dataclasses.field(default_factory=list)

    def lines(self, network: str) -> list[str]:
        """A summary line, and one for every tensor that was not copied whole."""
        head = f"{network}: {len(self.copied)} tensors copied, {len(self.partial)} in part, {len(self.new)} new"
        details = [f"  {kind}: {name}" for kind in ("partial", "new") for name in getattr(self, kind)]
        return [head, *details]


@torch.no_grad()
def transplant(source: torch.nn.Module, target: torch.nn.Module) -> Transplant:
    """Copies parameters and buffers by name.

    A parameter of another shape is copied where its source fits in as a leading block and only one axis differs, as is
    the case of a mapping network that gains or loses its label half: the first columns belong to z; of a gained half
    the weights start at zero, and where the number of inputs changed, what was copied is rescaled for the gain of
    1/sqrt(inputs) at run time (arXiv:1710.10196, section 4.1). So a network that gains labels makes the images it made.

    Raises:
        UserError: the networks are for different image sizes.
    """
    for attribute in ("img_resolution", "img_channels"):
        source_value, target_value = getattr(source, attribute), getattr(target, attribute)
        if source_value != target_value:
            raise UserError(f"{attribute} is {source_value} in the pickle, but {target_value} in the data set",
                            field="resume")
    known = {**dict(source.named_parameters()), **dict(source.named_buffers())}
    buffers = dict(target.named_buffers())  # statistics: half of them known would be no statistics
    report = Transplant()
    for name, tensor in [*target.named_parameters(), *buffers.items()]:
        value = known.get(name)
        if value is None:
            report.new.append(name)
        elif value.shape == tensor.shape:
            tensor.copy_(value)
            report.copied.append(name)
        elif name not in buffers and _copy_leading(value, tensor):
            report.partial.append(name)
        else:
            report.new.append(name)
    return report


def _copy_leading(value: torch.Tensor, tensor: torch.Tensor) -> bool:
    """Copies the part that two tensors share if they differ in one axis only; a gained part becomes zero."""
    different = [axis for axis, (a, b) in enumerate(zip(value.shape, tensor.shape)) if a != b]
    if value.ndim != tensor.ndim or len(different) != 1:
        return False
    shared = tuple(slice(0, min(a, b)) for a, b in zip(value.shape, tensor.shape))
    gain = (tensor.shape[1] / value.shape[1]) ** 0.5 if different == [_INPUTS] else 1
    tensor.zero_()
    tensor[shared] = value[shared].to(tensor.device) * gain
    return True


def from_pickle(
    networks: Mapping[str, torch.nn.Module],
    url: str,
    trust_pickle: bool = False,
) -> list[str]:
    """Starts G, D and G_ema from a network pickle (transfer learning).

    Args:
        networks: 'G', 'D' and 'G_ema', changed in place.
        url: path or URL of the pickle.

    Returns:
        Lines that say what was copied and what a pickle cannot restore.

    Raises:
        UserError: the networks are for different image sizes, or have nothing in common.
    """
    source: dict[str, Any] = open_networks(url, trust_pickle=trust_pickle)
    lines = [f"Starting from {url}; its optimizer state, image count and augmentation strength are not in a pickle"]
    for name, target in networks.items():
        report = transplant(source[name], target)
        if not report.copied:
            kinds = [type(network).__name__ for network in (source[name], target)]
            raise UserError(f"nothing of the pickle's {kinds[0]} fits a {kinds[1]}", field="resume")
        lines += report.lines(name)
    return lines
