"""Our networks → files in rosinality's layout."""
import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from dnnlib.files import open_atomic
from torch_utils import misc
from torch_utils.checkpoint import CheckpointError
from torch_utils.checkpoint.writing import torch_save
from torch_utils.network_types import Network, image_size

from ...networks import Discriminator, Generator
from .layout import KERNEL, ROLES, discriminator_table, generator_table, shape_there


def obstacles(role: str, network: Network) -> list[str]:
    """What of a network ('G', 'D' or 'G_ema') cannot be expressed in this layout, one line each."""
    expected: Any = Discriminator if role == "D" else Generator
    if not isinstance(network, expected):
        cls = type(network)
        return [f"it is a {cls.__module__}.{cls.__name__}, and only a StyleGAN2 has this layout"]
    lines = []
    if network.c_dim > 0:
        lines.append(f"it has {network.c_dim} classes, and this layout has no labels")
    if network.img_channels != 3:
        lines.append(f"it has {network.img_channels} image channels, and this layout has 3")
    height, width = image_size(network)
    if height != width:
        lines.append(f"its images are {width}x{height} (width x height), and this layout has square ones")
    if network.img_resolution < 8:
        lines.append("images are at least 8x8 in this layout")
    return lines + list(_discriminator_obstacles(network) if role == "D" else _generator_obstacles(network))


def _generator_obstacles(G: Any) -> Iterator[str]:
    if G.z_dim != G.w_dim or not G.mapping.num_layers:
        yield f"z has {G.z_dim} and w {G.w_dim} numbers; this layout has as many of both, and a mapping between them"
    if any(list(layer.weight.shape) != [G.w_dim] * 2 for name, layer in G.mapping.named_children() if name != "embed"):
        yield "layers of its mapping network have another width than w"
    blocks = [getattr(G.synthesis, f"b{res}") for res in G.synthesis.block_resolutions]
    if any(block.architecture != "skip" for block in blocks):
        yield f"its architecture is {blocks[0].architecture!r}, and this layout is 'skip'"
    layers = [layer for block in blocks for name, layer in block.named_children() if name.startswith("conv")]
    if any(not layer.use_noise or layer.activation != "lrelu" for layer in layers):
        yield "its layers have no noise inputs, or another activation than lrelu"


def _discriminator_obstacles(D: Discriminator) -> Iterator[str]:
    if D.b4.architecture != "resnet":
        yield f"its architecture is {D.b4.architecture!r}, and this layout is 'resnet'"
    if D.b4.mbstd is None or (D.b4.mbstd.group_size, D.b4.mbstd.num_channels) != (4, 1):
        yield "its minibatch standard deviation is not of one channel over groups of 4"


def state_dict(role: str, network: Any) -> dict[str, torch.Tensor]:
    """A network in this layout: name → contiguous float32 tensor [...], in the order of that code.

    Raises:
        CheckpointError: it cannot be expressed; says why.
    """
    reasons = obstacles(role, network)
    if reasons:
        raise CheckpointError(f"{role} cannot be written in rosinality's layout: {'; '.join(reasons)}")
    tensors = dict(misc.named_params_and_buffers(network))
    filters = [t.cpu() for name, t in tensors.items() if name.endswith("resample_filter")]
    if any(f.shape != KERNEL.shape or not torch.allclose(f, KERNEL) for f in filters):
        raise CheckpointError(f"{role} cannot be written in rosinality's layout: its resampling filter is not "
                              "[1, 3, 3, 1]")
    if role == "D":
        table, kernel = discriminator_table(network.img_resolution), KERNEL
    else:
        table, kernel = generator_table(network.img_resolution, network.mapping.num_layers), KERNEL * 4
    state = {}
    for name, (here, front) in table.items():
        value = kernel if not here else tensors[here].detach().cpu().reshape(shape_there(tensors[here], front))
        state[name] = value.clone(memory_format=torch.contiguous_format)
    return state


def save(networks: Mapping[str, Any], path: str | os.PathLike) -> list[str]:
    """Writes networks by role ('G', 'D', 'G_ema'; None leaves one out) as one file of this layout, atomically.

    Returns:
        Lines that say what a reader of the file does not learn.

    Raises:
        CheckpointError: a network cannot be expressed; says why. Nothing was written then.
    """
    data: dict[str, Any] = {"g_ema": state_dict("G_ema", networks["G_ema"])}
    data["latent_avg"] = networks["G_ema"].mapping.w_avg.detach().cpu().clone()
    lines = []
    for role in ("G", "D"):
        if networks.get(role) is None:
            lines.append(f"{role} is not known, so the file has none")
            continue
        try:
            data[ROLES[role]] = state_dict(role, networks[role])
        except CheckpointError as error:
            lines.append(f"{error}; the file has none")
    parts = [part for network in networks.values() if network is not None for part in network.modules()]
    if any(getattr(part, "conv_clamp", None) is not None for part in parts):
        lines.append("clamps of activations are not part of this layout; images differ where one was reached")
    if any(getattr(part, "use_fp16", False) for part in parts):
        lines.append("half precision is not part of this layout")
    with open_atomic(path, "wb") as f:
        torch_save(data, f)
    return lines
