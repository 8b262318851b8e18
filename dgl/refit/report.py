"""What a refit says about itself: the error of every layer, and how far the images of teacher and student agree."""
import dataclasses
import math
from typing import Any

import torch

from dnnlib.errors import UserError
from torch_utils import misc

from .solve import Fit


@dataclasses.dataclass(frozen=True)
class RefitOptions:
    """Settings of a refit.

    Attributes:
        seed: of latents and positions.
        ridge: see `dgl.refit.solve.demodulated`.
        iterations: alternations per demodulated layer.
        num_latents: at high resolutions; there are up to eight times as many at low ones, where each is cheap.
        memory: bytes of features that are held at once; fewer latents where images are large.
        max_rows: of one linear system.
    """
    seed: int = 0
    ridge: float = 0.03
    iterations: int = 3
    num_latents: int = 128
    memory: int = 1 << 30
    max_rows: int = 32768


@dataclasses.dataclass(frozen=True)
class LayerFit:
    """One layer: squared error over variance before and after, and smallest, mean and largest scale of a channel."""

    layer: str
    before: float
    after: float
    scale_min: float
    scale_mean: float
    scale_max: float


@dataclasses.dataclass(frozen=True)
class Report:
    """All layers in order, and the PSNR in dB of outputs on other latents than those of the fit, before and after.

    Images are in [-1, 1], so the peak is 2. Of a discriminator, it is that of the logits, and the peak is twice their
    standard deviation.
    """

    layers: list[LayerFit]
    psnr_before: float
    psnr_after: float

    def as_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        return dataclasses.asdict(self)

    def summary(self) -> str:
        """One line."""
        errors = [math.prod(getattr(fit, name) for fit in self.layers) ** (1 / max(len(self.layers), 1))
                  for name in ("before", "after")]
        return (f"relative error of a layer {errors[0]:.3g} -> {errors[1]:.3g} (geometric mean of {len(self.layers)}), "
                f"PSNR to the teacher {self.psnr_before:.1f} -> {self.psnr_after:.1f} dB")


def layer_fit(name: str, fit: Fit) -> LayerFit:
    """The report's row of one fit."""
    scale = fit.scale
    mean = float(scale.log().mean().exp())
    return LayerFit(name, fit.before, fit.after, float(scale.min()), mean, float(scale.max()))


def psnr(a: torch.Tensor, b: torch.Tensor, peak: float = 2.0) -> float:
    """Peak signal-to-noise ratio of two tensors of one shape, [N, C, H, W] or any, in dB; infinite if equal."""
    error = float((a.double() - b.double()).square().mean())
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


def check_finite(network: torch.nn.Module, name: str) -> None:
    """A network with NaN cannot be refitted.

    Raises:
        UserError: names the tensors.
    """
    bad = [key for key, tensor in misc.named_params_and_buffers(network) if not tensor.isfinite().all()]
    if bad:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise UserError(f"values in {bad[0]}{more} of {name} are NaN or infinite, so the slice cannot be refitted; "
                        "pass another network, or `refit=False`", field="teacher")
