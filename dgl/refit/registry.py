"""Which families of networks can be refitted, and doing it by the network's class."""
import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch

from dnnlib.errors import UserError
from dnnlib.progress import Progress
from torch_utils import distributed
from torch_utils.network_types import Generator, image_size
from training import architectures

from ..scores.sampling import latents
from . import biggan, discriminator, generator, stylegan3
from .report import RefitOptions, Report, check_finite
from .walk import refit_generator

Images = Callable[[int], torch.Tensor]

_LATENTS_PER_PASS = 8  # at least, in passes that make images
_PASS_PIXELS = 8 * 64**2  # of the images of one pass, if they are small

_GENERATORS: dict[str, Any] = {
    "training.networks.Generator": generator,
    "training.networks_stylegan3.Generator": stylegan3,
    "training.networks_biggan.BigGANGenerator": biggan,
}
_DISCRIMINATORS = {"training.networks.Discriminator": discriminator}


def applies(network: torch.nn.Module) -> bool:
    """Whether slices of networks of this class can be refitted."""
    return architectures.class_path(network) in {**_GENERATORS, **_DISCRIMINATORS}


def prepared(network: Any) -> Any:
    """What a slice that will be refitted is cut out of: the network itself, or a copy with other weights that computes
    the same.

    A BigGAN's spectral normalisation is folded into its weights, because it would take away the scale of a fit.
    """
    kind = architectures.class_path(network)
    return biggan.prepared(network) if _GENERATORS.get(kind) is biggan else network


def images_of(G: Generator, seed: int) -> Images:
    """A generator's images, other ones in every call, in full precision.

    Args:
        G: any generator.
        seed: of the latents; the images depend on nothing else.
    """
    random = torch.Generator().manual_seed(seed)
    batch = max(_LATENTS_PER_PASS, _PASS_PIXELS // math.prod(image_size(G)))

    @torch.no_grad()
    def images(num: int) -> torch.Tensor:
        z, c = latents(G, num, random)
        parts = zip(z.split(batch), c.split(batch))
        return torch.cat([G(*part, noise_mode="const", force_fp32=True) for part in parts])

    return images


def refit_network(
    name: str,
    teacher: torch.nn.Module,
    student: torch.nn.Module,
    keep: Mapping[str, torch.Tensor],
    options: RefitOptions,
    images: Images | None = None,
) -> Report | None:
    """Refits a slice to its teacher in place, on the device and in the modes that they have; shows progress.

    Args:
        name: of the network in messages, such as G_ema.
        teacher: the network that was sliced.
        student: the slice, of `prepared(teacher)`; its tensors are replaced by the fitted ones.
        keep: channel set → kept channels, ascending int64 [C'].
        options: see `RefitOptions`.
        images: for a discriminator, what gives images to fit it on.

    Returns:
        What was fitted; None if every channel was kept, so that there is nothing to fit.

    Raises:
        UserError: networks of this class cannot be refitted, or the teacher holds NaN or infinite values.
        ValueError: a discriminator without images, or a slice of what is not prepared.
    """
    kind = architectures.class_path(teacher)
    if not applies(teacher):
        known = ", ".join([*_GENERATORS, *_DISCRIMINATORS])
        raise UserError(f"slices of a {kind} cannot be refitted, only those of {known}; pass `refit=False`",
                        field="refit")
    check_finite(teacher, name)
    if all(tensor.shape == own.shape for tensor, own in zip(teacher.parameters(), student.parameters())):
        return None
    modes = [network.training for network in (teacher, student)]
    teacher.eval()
    student.eval()
    module: Any = _GENERATORS.get(kind) or _DISCRIMINATORS[kind]
    enabled = None if distributed.is_main() else False
    try:
        with Progress(module.num_layers(student), f"refit {name}", unit="layer", enabled=enabled) as bar:
            if kind in _GENERATORS:
                G, narrow = cast(Generator, teacher), cast(Generator, student)
                return refit_generator(module.Walk, G, narrow, keep, options, bar.update)
            if images is None:
                raise ValueError("refit_network: a discriminator needs images")
            return module.refit_discriminator(teacher, student, keep, options, images, bar.update)
    finally:
        for network, mode in zip((teacher, student), modes):
            network.train(mode)
