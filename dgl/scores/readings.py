"""What a layer reads, as the rows of a linear system whose unknowns are its weights: one reader per kind of layer."""
import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from training import networks_stylegan3 as stylegan3

from ..refit import rows
from ..refit.stylegan3 import Convolution, styles_of

PlacesOf = Callable[[Any, int, int], torch.Tensor]  # (layer, pixels, images) → positions [images, P]


@dataclasses.dataclass
class Reading:
    """What a layer read in one pass of N images.

    Attributes:
        rows: inputs at the sampled positions [R, K]; times `rows.weight_matrix` they are the outputs.
        gain: squared factor of each output, such as demodulation, summed over the images, [O] or a number.
        energy: squared factor of each input channel, such as its style, summed over the images, [I].
    """
    rows: torch.Tensor
    gain: torch.Tensor | float
    energy: torch.Tensor


def reader_of(layer: Any) -> Callable[[Any, torch.Tensor, PlacesOf], Reading]:
    """The function that reads a layer: (inputs of its forward, output [N, O, H, W], places) → `Reading`."""
    if isinstance(layer, stylegan3.SynthesisInput):
        probe = copy.deepcopy(layer)  # whose outputs are the Fourier features
        probe.weight.data = torch.eye(len(probe.weight)).to(probe.weight) * len(probe.weight) ** 0.5
        return lambda inputs, output, places: _fourier(layer, probe, inputs, output, places)
    kind = _alias_free if isinstance(layer, stylegan3.SynthesisLayer) else _modulated if hasattr(
        layer, "affine") else _plain
    return lambda inputs, output, places: kind(layer, inputs, output, places)


def _modulated(layer: Any, inputs: Any, output: torch.Tensor, places: PlacesOf) -> Reading:
    """StyleGAN2's convolutions with styles."""
    x = inputs[0].detach()
    at = places(layer, output.shape[2] * output.shape[3], len(x))
    styles = layer.affine(inputs[1])
    if hasattr(layer, "noise_const") or hasattr(layer, "up"):  # with demodulation
        gain: torch.Tensor | float = _squared_demodulation(layer, styles)
    else:
        styles = styles * layer.weight_gain
        gain = len(x)
    scaled = x * styles[:, :, None, None]
    return Reading(rows.patches(scaled, layer, at).flatten(0, 1), gain, styles.double().square().sum(dim=0))


def _plain(layer: Any, inputs: Any, output: torch.Tensor, places: PlacesOf) -> Reading:
    """Convolutions without styles, of StyleGAN2's shortcuts."""
    x = inputs[0].detach()
    at = places(layer, output.shape[2] * output.shape[3], len(x))
    energy = x.double().square().mean(dim=[2, 3]).sum(dim=0)
    return Reading(rows.patches(x, layer, at).flatten(0, 1), len(x) * layer.weight_gain**2, energy)


def _alias_free(layer: Any, inputs: Any, output: torch.Tensor, places: PlacesOf) -> Reading:
    """StyleGAN3's layers: the convolution before the filters, over its whole canvas."""
    x = inputs[0].detach()
    padding = layer.conv_kernel - 1
    at = places(layer, (layer.in_size[0] + padding) * (layer.in_size[1] + padding), len(x))
    styles = styles_of(layer, inputs[1])
    gain = len(x) if layer.is_torgb else _squared_demodulation(layer, styles)
    scaled = x * (styles * layer.magnitude_ema.rsqrt())[:, :, None, None]
    matrix = rows.patches(scaled, Convolution(layer.weight, padding), at).flatten(0, 1)
    return Reading(matrix, gain, styles.double().square().sum(dim=0))


def _fourier(layer: Any, probe: Any, inputs: Any, output: torch.Tensor, places: PlacesOf) -> Reading:
    """StyleGAN3's input layer, a dense map of Fourier features."""
    features = probe(inputs[0].detach())
    at = places(layer, output.shape[2] * output.shape[3], len(features))
    energy = features.double().square().mean(dim=[2, 3]).sum(dim=0)
    return Reading(rows.gather(features, at).flatten(0, 1), len(features) / len(layer.freqs), energy)


def _squared_demodulation(layer: Any, styles: torch.Tensor) -> torch.Tensor:
    """Summed over the styles [N, I]: [O]."""
    power = layer.weight.square().sum(dim=[2, 3])
    return (styles.square() @ power.t() + 1e-8).reciprocal().double().sum(dim=0)
