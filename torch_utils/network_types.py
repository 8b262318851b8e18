"""The types of networks in annotations: what the generators and discriminators of every family have.

No network derives from these classes, because the classes of networks stand alone in the files that pickles embed. What
a family has of its own is typed as in its own module.
"""
from typing import Any

import torch

from dnnlib.errors import UserError


class Network(torch.nn.Module):
    """A generator or a discriminator."""

    c_dim: int  # length of a label
    img_resolution: int  # the longer side of the images
    img_channels: int
    init_kwargs: dict[str, Any]  # what it was made with, of persistent classes
    options: dict[str, Any]  # the same, of BigGAN's


def image_size(network: Any) -> tuple[int, int]:
    """Height and width of the images of a generator or discriminator; they are square unless it says otherwise."""
    height, width = getattr(network, "img_size", [network.img_resolution] * 2)
    return height, width


def check_square(network: Any, need: str, field: str) -> None:
    """Checks that a network is for square images, where nothing else will do.

    Args:
        network: generator or discriminator.
        need: what needs square images; the beginning of the message.
        field: the argument that the message names.

    Raises:
        UserError: its images have another shape.
    """
    height, width = image_size(network)
    if height != width:
        raise UserError(f"{need} needs square images; those of this network are {width}x{height} (width x height)",
                        field=field)


class Generator(Network):
    """A network that is called with latents [N, z_dim] and labels [N, c_dim] and returns images [N, C, H, W]."""

    z_dim: int
    w_dim: int  # of families with styles, as are the following
    num_ws: int
    mapping: Any  # differs between families
    synthesis: Any


class Discriminator(Network):
    """A network that is called with images [N, C, H, W] and labels [N, c_dim] and returns logits [N, 1]."""

    block_resolutions: list[int]  # of StyleGAN2, with a block b<resolution> for each
    b4: Any
    mapping: Any  # of networks with labels
    blocks: Any  # of BigGAN, as is the following
    input_conv: torch.nn.Module | None
