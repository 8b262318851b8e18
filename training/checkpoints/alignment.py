"""Which tensors of two networks of one family belong together when their images or labels differ.

A family describes its networks in the module that its row in `training.architectures` names as `alignment`, with
`of_network(network) -> Alignment` and `at_resolution(network, resolution)`, the constructor arguments of the same
network for images of another resolution.
"""
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import cast

import torch

from torch_utils.network_types import Discriminator, Generator, Network


def _nothing(name: str) -> bool:
    return False


@dataclasses.dataclass(frozen=True)
class Alignment:
    """What transfer must know of one network.

    Attributes:
        stable_name: tensor name → a name that is the same at every resolution.
        image_axes: tensor name → its axis along the image channels: 0 if the layer makes them, 1 if it reads them.
        is_fixed: whether a buffer follows from the resolution, so that it is not copied between resolutions.
        is_added: whether a layer adds to the image what lower resolutions have made: where it is new it starts at
            zero, and the network makes its old images in the new size.
    """

    stable_name: Callable[[str], str] = str
    image_axes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    is_fixed: Callable[[str], bool] = _nothing
    is_added: Callable[[str], bool] = _nothing


def with_image_channels(value: torch.Tensor, axis: int, num: int) -> torch.Tensor:
    """A tensor [...] of a layer that makes (axis 0) or reads (axis 1) image channels, for another number of them.

    From one channel to several and back only: others are returned as they are. A layer that makes images gives every
    channel the same, or the mean of the channels. One that reads them sees the mean of the channels, or the one channel
    in place of all; its weights are rescaled, because they are divided by sqrt(fan-in) at run time.
    """
    old = value.shape[axis]
    if old == num or 1 not in (old, num):
        return value
    if axis == 0:
        return value.mean(dim=0, keepdim=True) if num == 1 else value.expand(num, *value.shape[1:])
    gain = math.sqrt(num / old)
    if num == 1:
        return value.sum(dim=1, keepdim=True) * gain
    return (value / num * gain).expand(-1, num, *value.shape[2:])


@torch.no_grad()
def of_labels(source: Network, target: Network) -> dict[str, torch.Tensor]:
    """Tensors [...] that compensate for labels that a network has gained or lost, by their names.

    A generator that loses labels makes the images of the average label. A discriminator that loses them gives its
    mean over the classes; one that gains them gives the same logit for every class, as far as its projection
    (arXiv:1802.05637) can: exactly, unless there are more classes than dimensions.
    """
    old, new = source.c_dim, target.c_dim
    if (old > 0) == (new > 0):
        return {}
    if hasattr(source, "z_dim"):
        return _of_generator(cast(Generator, source)) if old > 0 else {}
    judge, other = cast(Discriminator, source), cast(Discriminator, target)
    labels = torch.eye(max(old, new), device=next(source.parameters()).device)
    weight, bias = (tensor.double() for tensor in (judge.b4.out.weight, judge.b4.out.bias))
    if old > 0:
        projection = judge.mapping(None, labels).double().mean(dim=0, keepdim=True) / math.sqrt(judge.b4.cmap_dim)
    else:
        classes = other.mapping(None, labels).double() / math.sqrt(other.b4.cmap_dim)
        projection = torch.linalg.pinv(classes).sum(dim=1, keepdim=True)
    return {"b4.out.weight": projection @ weight, "b4.out.bias": projection @ bias}


def _of_generator(source: Generator) -> dict[str, torch.Tensor]:
    """The bias of the first mapping layer with what the labels add to it on average."""
    mapping = source.mapping
    if mapping.num_layers == 0 or mapping.z_dim == 0:
        return {}
    first = mapping.fc0
    embedded = mapping.embed(torch.eye(source.c_dim, device=first.weight.device)).double()
    embedded = embedded * (embedded.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
    added = embedded @ first.weight[:, mapping.z_dim:].double().t() * first.weight_gain
    return {"mapping.fc0.bias": first.bias.double() + added.mean(dim=0) / first.bias_gain}
