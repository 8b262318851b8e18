"""StyleGAN3 generators of other resolutions, channels and labels: layers are aligned by their number.

The band of every layer grows with the resolution of the images, but for the input's, and the weights do not depend on
it. So what is copied computes the old features in other bands: the images are similar, not the same.
"""
import re
from typing import Any

from dnnlib import EasyDict
from dnnlib.errors import UserError
from torch_utils.network_types import Generator

from ..checkpoints.alignment import Alignment
from ..checkpoints.rebuilding import MAX_RESOLUTION

MIN_RESOLUTION = 16
_LAYER = re.compile(r"(synthesis\.L\d+)_\d+_\d+")  # names of layers contain their size and width


def without_width(name: str) -> str:
    """The name of a tensor without what depends on size and width: `synthesis.L3_36_16.weight` → `synthesis.L3.weight`.
    """
    return _LAYER.sub(r"\1", name)


def of_network(network: Generator) -> Alignment:
    """The alignment of a generator."""
    last = f"synthesis.{network.synthesis.layer_names[-1]}"

    def stable_name(name: str) -> str:
        return without_width(name.replace(f"{last}.", "synthesis.torgb."))

    return Alignment(
        stable_name=stable_name,
        image_axes={f"{last}.weight": 0, f"{last}.bias": 0},
        is_fixed=lambda name: name.endswith(("up_filter", "down_filter")),
    )


def at_resolution(network: Generator, resolution: int) -> dict[str, Any]:
    """The constructor arguments of the same network for images of another resolution.

    Raises:
        UserError: there is no such resolution.
    """
    if not MIN_RESOLUTION <= resolution <= MAX_RESOLUTION or resolution & (resolution - 1):
        raise UserError(f"expected a power of two from {MIN_RESOLUTION} to {MAX_RESOLUTION} for a StyleGAN3, "
                        f"found {resolution}", field="resolution")
    return EasyDict(network.init_kwargs, img_resolution=resolution)
