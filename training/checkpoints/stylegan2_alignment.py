"""StyleGAN2 networks of other resolutions, channels and labels: their blocks are named by resolution."""
from typing import Any, cast

from dnnlib import EasyDict
from dnnlib.errors import UserError
from torch_utils import misc
from torch_utils.network_types import Generator, Network

from .alignment import Alignment
from .rebuilding import MAX_RESOLUTION
from .stylegan2 import synthesis_options, with_synthesis_options


def of_network(network: Network) -> Alignment:
    """The alignment of a generator or discriminator."""
    axes = {name: 0 if ".torgb." in name else 1 for name, _ in misc.named_params_and_buffers(network)
            if name.endswith((".torgb.weight", ".torgb.bias", ".fromrgb.weight"))}
    is_sum = hasattr(network, "synthesis") and cast(Generator, network).synthesis.b4.architecture == "skip"
    return Alignment(
        image_axes=axes,
        is_added=lambda name: is_sum and name.endswith((".torgb.weight", ".torgb.bias")),
    )


def at_resolution(network: Network, resolution: int) -> dict[str, Any]:
    """The constructor arguments of the same network for images of another resolution.

    Layer by layer widths, as students have them, are cut off, or continued with half the width of the last block.

    Raises:
        UserError: there is no such resolution.
    """
    if not 4 <= resolution <= MAX_RESOLUTION or resolution & (resolution - 1):
        raise UserError(f"expected a power of two from 4 to {MAX_RESOLUTION}, found {resolution}", field="resolution")
    arguments = EasyDict(network.init_kwargs, img_resolution=resolution)
    is_generator = hasattr(network, "synthesis")
    holder = synthesis_options(arguments) if is_generator else arguments
    widths = holder.get("layer_channels")
    if widths is not None:
        blocks = resolution.bit_length() - network.img_resolution.bit_length()  # to be added; negative: to be removed
        holder.layer_channels = _resized(list(widths if is_generator else widths[::-1]), blocks)
        if not is_generator:
            holder.layer_channels.reverse()
    return with_synthesis_options(arguments, holder) if is_generator else arguments


def _resized(widths: list[int], blocks: int) -> list[int]:
    """Two widths per block, from low to high resolution, with blocks added or removed at the end."""
    if blocks < 0:
        return widths[: 2 * blocks]
    for _ in range(blocks):
        widths = [*widths, *[max(widths[-1] // 2, 1)] * 2]
    return widths
