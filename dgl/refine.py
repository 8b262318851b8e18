"""Refinements of a sliced generator, applied after any score."""
from typing import Any

import torch

from dnnlib.errors import UserError


@torch.no_grad()
def svs(G: Any) -> None:
    """Replaces the singular values of every demodulated convolution's weight by their square roots, in place.

    A slice keeps the directions of its teacher's weights but loses much of their energy in the small ones; square roots
    even that out. The weight is taken as a matrix [O, I·K·K] and keeps its Frobenius norm, which demodulation would
    cancel row by row anyway. Layers without demodulation are left alone.

    Source: "SVS" for GAN compression, AAAI 2025; the norm is ours.

    Raises:
        UserError: there are no such convolutions in this kind of network.
    """
    if not hasattr(G, "synthesis"):
        raise UserError(f"svs is for demodulated convolutions, a {type(G).__name__} has none", field="refine")
    for layer in _demodulated(G.synthesis):
        weight = layer.weight.flatten(1).double()
        u, s, vh = torch.linalg.svd(weight, full_matrices=False)
        softened = (u * s.sqrt()) @ vh
        softened *= weight.norm() / softened.norm().clamp_min(1e-30)
        layer.weight.copy_(softened.reshape(layer.weight.shape))


def _demodulated(synthesis: Any) -> list[Any]:
    """The demodulated convolutions of a StyleGAN2 or StyleGAN3."""
    if hasattr(synthesis, "layer_names"):
        return [synthesis.get_submodule(name) for name in synthesis.layer_names[:-1]]  # the last one makes the image
    blocks = [getattr(synthesis, f"b{res}") for res in synthesis.block_resolutions]
    return [getattr(block, name) for block in blocks for name in ("conv0", "conv1") if hasattr(block, name)]
