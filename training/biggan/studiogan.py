"""Checkpoints of StudioGAN (its big_resnet backbone) in the layout of the public BigGAN checkpoints.

A generator's conversion is exact in eval mode. A discriminator has no exact counterpart: there the activation in front
of a block also acts on the block's shortcut.
"""
import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F

from torch_utils.checkpoint import CheckpointError

OPTIONS = {"BN_eps": 1e-4, "SN_eps": 1e-6}
_OUTPUT_EPS_GAP = 1e-4 - 1e-5  # its last batch norm adds 1e-4 to the variance, ours 1e-5
_TOLERANCE = 1e-6  # relative, of a singular value

_TOP = {"linear0": "linear", "shared": "shared", "bn4": "output_layer.0", "conv2d5": "output_layer.2"}
_IN_BLOCK = {
    "conv2d1": "conv1", "conv2d2": "conv2", "conv2d0": "conv_sc",
    "conv1x1_theta": "theta", "conv1x1_phi": "phi", "conv1x1_g": "g", "conv1x1_attn": "o",
}
_LEAVES = {
    "weight_orig": "weight", "running_mean": "stored_mean", "running_var": "stored_var", "sigma": "gamma",
}


def is_studiogan(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether the names of a file's tensors [...] are StudioGAN's."""
    return any(name.startswith(("linear0.", "linear1.")) or ".conv2d1." in name for name in tensors)


def convert(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A generator's tensors [...] under their public names; to be used with `OPTIONS`.

    Raises:
        CheckpointError: it cannot be converted exactly; the message says why.
    """
    if "linear1.weight_orig" in tensors or "linear1.weight" in tensors:
        raise CheckpointError("a StudioGAN discriminator has no exact counterpart here: its activation in front of a "
                              "block acts on the shortcut too, which changes every score. Use a discriminator of the "
                              "public BigGAN code, or train one")
    if any(".conv2d3." in name for name in tensors):
        raise CheckpointError("a StudioGAN generator with deep blocks; only its big_resnet generators convert exactly")
    if "shared.weight" not in tensors:
        raise CheckpointError("a StudioGAN generator of another backbone, such as resnet or deep_conv; only its "
                              "big_resnet generators, which share an embedding of the classes, are BigGANs")
    converted = {}
    stages = _stages(tensors)
    for name, tensor in tensors.items():
        layer, _, leaf = name.rpartition(".")
        if leaf in ("weight_v", "num_batches_tracked"):
            continue
        layer = _layer_name(layer, stages)
        if leaf == "weight_u":
            weight, v = tensors[f"{name[:-1]}orig"], tensors[f"{name[:-1]}v"]
            sigma = tensor.double() @ weight.flatten(1).double() @ v.double()
            converted[f"{layer}.u0"] = _start_vector(layer, weight, tensor, float(sigma))
            converted[f"{layer}.sv0"] = sigma.to(tensor.dtype).reshape(1)
            continue
        converted[f"{layer}.{_LEAVES.get(leaf, leaf)}"] = tensor.reshape([]) if leaf == "sigma" else tensor
    for leaf in ("weight", "bias"):
        if f"output_layer.0.{leaf}" in converted:
            tensor = converted.pop(f"output_layer.0.{leaf}")
            converted[f"output_layer.0.{'gain' if leaf == 'weight' else 'bias'}"] = tensor
    if "output_layer.0.stored_var" in converted:
        converted["output_layer.0.stored_var"] = converted["output_layer.0.stored_var"] + _OUTPUT_EPS_GAP
    return converted


def _stages(tensors: Mapping[str, torch.Tensor]) -> dict[int, str]:
    """Its block number → our place: there, attention is a separate block."""
    numbers = {int(match[1]) for name in tensors if (match := re.match(r"blocks\.(\d+)\.0\.", name))}
    places: dict[int, str] = {}
    stage = -1
    for number in sorted(numbers):
        attention = any(name.startswith(f"blocks.{number}.0.conv1x1_") for name in tensors)
        stage += not attention
        places[number] = f"blocks.{stage}.{int(attention)}"
    return places


def _layer_name(layer: str, stages: Mapping[int, str]) -> str:
    match = re.fullmatch(r"blocks\.(\d+)\.0(?:\.(.+))?", layer)
    if match is None:
        return _TOP.get(layer, layer)
    parts = [_IN_BLOCK.get(part, part) for part in (match[2] or "").split(".") if part]
    if parts[1:] == ["bn"]:  # bnN.bn holds the statistics of bnN
        parts.pop()
    return ".".join([stages[int(match[1])], *parts])


def _start_vector(name: str, weight: torch.Tensor, u: torch.Tensor, target: float) -> torch.Tensor:
    """The vector [1, out] from which one power iteration finds `target`, the singular value that the file states.

    The file's u does where it has converged. Averages of vectors, as in an EMA network, have not: then a vector
    between the leading singular vector and one away from it is searched by bisection.

    Raises:
        CheckpointError: there is none.
    """
    matrix = weight.flatten(1).double()

    def norm_after(vector: torch.Tensor) -> float:
        return float((F.normalize(vector @ matrix, dim=0) @ matrix.t()).norm())

    def close(vector: torch.Tensor) -> bool:
        return abs(norm_after(vector) - target) <= _TOLERANCE * target

    high = F.normalize(u.double(), dim=0)
    if close(high):
        return high.to(u.dtype)[None]
    for _ in range(1000):
        if norm_after(high) >= target:
            break
        high = F.normalize(matrix @ (high @ matrix), dim=0)
    noise = torch.randn(len(high), generator=torch.Generator().manual_seed(0), dtype=high.dtype)
    low = F.normalize(noise - torch.dot(noise, high) * high, dim=0)
    for _ in range(100):
        middle = (high + low) / 2
        if norm_after(middle) >= target:
            high = middle
        else:
            low = middle
    if not close(high):
        raise CheckpointError(f"{name}: no vector gives the spectral norm {target:g} that the file's vectors state; "
                              "they have not converged")
    return F.normalize(high, dim=0).to(u.dtype)[None]
