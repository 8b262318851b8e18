"""Which BigGAN a set of tensors belongs to: constructor arguments from names and shapes, held against a configuration.

A configuration is the dictionary of options that the public code stores beside its networks.
"""
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from torch_utils.checkpoint import CheckpointError

from .. import networks_biggan as networks

Tensors = Mapping[str, torch.Tensor]

# Name in a configuration → constructor argument. What tensors tell is compared; what they do not tell is taken over.
_COMPARED = {
    "G": {"resolution": "img_resolution", "n_classes": "c_dim", "model": "model", "G_ch": "G_ch",
          "G_channels": "G_channels", "dim_z": "dim_z", "hier": "hier", "G_shared": "G_shared",
          "shared_dim": "shared_dim", "G_attn": "G_attn", "G_depth": "G_depth", "G_param": "G_param",
          "num_G_SVs": "num_G_SVs"},
    "D": {"resolution": "img_resolution", "n_classes": "c_dim", "model": "model", "D_ch": "D_ch",
          "D_channels": "D_channels", "D_wide": "D_wide", "D_attn": "D_attn", "D_depth": "D_depth",
          "D_param": "D_param", "num_D_SVs": "num_D_SVs"},
}
_TAKEN_OVER = {
    "G": ("SN_eps", "BN_eps", "num_G_SV_itrs", "G_init"),
    "D": ("SN_eps", "num_D_SV_itrs", "D_init"),
}


def network_kind(tensors: Tensors) -> str:
    """'G' or 'D', by the last layers' names in a file's tensors [...].

    Raises:
        CheckpointError: neither.
    """
    if "output_layer.2.weight" in tensors:
        return "G"
    if "embed.weight" in tensors:
        return "D"
    raise CheckpointError("neither a BigGAN generator (no output_layer.2.weight) nor a discriminator (no embed.weight)")


def options_of(tensors: Tensors) -> dict[str, Any]:
    """The constructor arguments that follow from names and shapes of tensors [...]. Of z, only the used part is known.

    Raises:
        CheckpointError: the tensors are not those of a BigGAN.
    """
    return (_generator_options if network_kind(tensors) == "G" else _discriminator_options)(tensors)


def _shape(tensors: Tensors, name: str) -> tuple[int, ...]:
    if name not in tensors:
        raise CheckpointError(f"not a BigGAN network: it has no {name}")
    return tuple(tensors[name].shape)


def _count(has: Callable[[int], bool]) -> int:
    number = 0
    while has(number):
        number += 1
    return number


def _common_options(tensors: Tensors, kind: str) -> dict[str, Any]:
    num_svs = _count(lambda i: f"linear.u{i}" in tensors)
    return {f"{kind}_param": "SN" if num_svs else "none", f"num_{kind}_SVs": num_svs or 1}


def width_options(kind: str, streams: list[int], img_resolution: int, table: Mapping[int, Sequence[int]]) -> dict:
    """The channel multiplier where the widths are those of the table, else the widths."""
    multiplier = streams[0] // table[img_resolution][0]
    if [step * multiplier for step in table[img_resolution]] == streams:
        return {f"{kind}_ch": multiplier}
    return {f"{kind}_channels": streams}


def _resolution(num_streams: int, table: Mapping[int, Sequence[int]]) -> int:
    for img_resolution, steps in table.items():
        if len(steps) == num_streams:
            return img_resolution
    raise CheckpointError(f"{num_streams - 1} stages fit no image size; known: {', '.join(map(str, table))}")


def _attention(resolutions: list[int]) -> str:
    return "_".join(map(str, sorted(set(resolutions)))) or "0"


def _generator_options(tensors: Tensors) -> dict[str, Any]:
    table = networks.GENERATOR_STREAMS
    deep = "blocks.0.0.conv4.weight" in tensors
    last_conv = "conv4" if deep else "conv2"
    num_blocks = _count(lambda i: f"blocks.{i}.0.{last_conv}.weight" in tensors)
    if num_blocks == 0:
        raise CheckpointError(f"not a BigGAN network: it has no blocks.0.0.{last_conv}.weight")
    first = _shape(tensors, "blocks.0.0.conv1.weight")[1]
    outputs = [_shape(tensors, f"blocks.{i}.0.{last_conv}.weight")[0] for i in range(num_blocks)]
    depth = _generator_depth([first, *outputs], table) if deep else 1
    streams = [first, *outputs[depth - 1 :: depth]]
    img_resolution = _resolution(len(streams), table)
    attended = [
        networks.BOTTOM << (stage + 1)
        for stage in range(len(streams) - 1)
        if f"blocks.{(stage + 1) * depth - 1}.1.theta.weight" in tensors
    ]
    options = {
        "model": "BigGANdeep" if deep else "BigGAN",
        "img_resolution": img_resolution,
        "img_channels": _shape(tensors, "output_layer.2.weight")[0],
        "G_attn": _attention(attended),
        **({"G_depth": depth} if deep else {}),
        **width_options("G", streams, img_resolution, table),
        **_common_options(tensors, "G"),
    }
    return {**options, **_latent_options(tensors, deep, len(streams))}


def _generator_depth(streams: list[int], table: Mapping[int, Sequence[int]]) -> int:
    """Blocks per stage of BigGAN-deep: those that give widths of the table, else two."""
    for steps in table.values():
        depth, rest = divmod(len(streams) - 1, len(steps) - 1)
        if rest == 0 and streams[0] % steps[0] == 0:
            multiplier = streams[0] // steps[0]
            plan = networks.generator_blocks([step * multiplier for step in steps], "BigGANdeep", depth)
            if [block.out_channels for block in plan] == streams[1:]:
                return depth
    return 2


def _latent_options(tensors: Tensors, deep: bool, num_pieces: int) -> dict[str, Any]:
    """Classes, z and the shared embedding: a gain sees the embedding and, if hierarchical, a piece of z behind it."""
    first_dim = _shape(tensors, "linear.weight")[1]
    gain = _shape(tensors, "blocks.0.0.bn1.gain.weight")
    if "shared.weight" not in tensors:
        return {"c_dim": gain[0], "G_shared": False, "hier": False, "dim_z": first_dim}
    c_dim, shared_dim = _shape(tensors, "shared.weight")
    options = {"c_dim": c_dim, "G_shared": True, "shared_dim": shared_dim, "hier": gain[1] > shared_dim}
    if deep:
        return {**options, "dim_z": first_dim - shared_dim}
    return {**options, "dim_z": first_dim * (num_pieces if options["hier"] else 1)}


def _discriminator_options(tensors: Tensors) -> dict[str, Any]:
    table = networks.DISCRIMINATOR_STREAMS
    deep = "input_conv.weight" in tensors
    last_conv = "conv4" if deep else "conv2"
    num_stages = _count(lambda i: f"blocks.{i}.0.{last_conv}.weight" in tensors)
    if num_stages == 0:
        raise CheckpointError(f"not a BigGAN network: it has no blocks.0.0.{last_conv}.weight")
    outputs = [_shape(tensors, f"blocks.{i}.0.{last_conv}.weight")[0] for i in range(num_stages)]
    streams = [_shape(tensors, "input_conv.weight")[0], *outputs] if deep else outputs
    img_resolution = _resolution(len(streams), table)
    model = "BigGANdeep" if deep else "BigGAN"
    depth = _count(lambda i: f"blocks.0.{i}.conv4.weight" in tensors) if deep else 1
    img_channels = _shape(tensors, "input_conv.weight" if deep else "blocks.0.0.conv1.weight")[1]
    plan = networks.discriminator_blocks(img_resolution, img_channels, streams, model, depth)
    hidden = [_shape(tensors, f"{block.name}.conv1.weight")[0] for block in plan]
    return {
        "model": model,
        "c_dim": _shape(tensors, "embed.weight")[0],
        "img_resolution": img_resolution,
        "img_channels": img_channels,
        "D_attn": _discriminator_attention(tensors, img_resolution, plan, depth),
        **({"D_depth": depth} if deep else {"D_wide": hidden == [block.hidden_channels for block in plan]}),
        **width_options("D", streams, img_resolution, table),
        **_common_options(tensors, "D"),
    }


def _discriminator_attention(tensors: Tensors, img_resolution: int, plan: list, depth: int) -> str:
    labels = []
    side = img_resolution
    for block in plan:
        side = side // 2 if block.resample else side
        if f"blocks.{block.stage}.{depth}.theta.weight" in tensors:
            labels.append(16 if img_resolution == 32 else side)
    return _attention(labels)


# ----------------------------------------------------------------------------------------------------------------------
# Configurations


def complete(options: dict[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The options, checked against a configuration, and those from it that tensors do not tell.

    Raises:
        CheckpointError: the configuration describes another network; the message names what differs.
    """
    kind = "G" if "G_param" in options else "D"
    for name, known in (("norm_style", ("bn",)), (f"{kind}_nl", ("relu", "inplace_relu", "ir"))):
        if name in config and config[name] not in known:
            raise CheckpointError(f"{name} {config[name]!r} is not supported, only {', '.join(known)}")
    stated = {argument: config[name] for name, argument in _COMPARED[kind].items() if name in config}
    if stated.get("model") not in networks.MODELS:  # the released files state the name of a program file
        stated.pop("model", None)
    if f"{kind}_param" in stated and stated[f"{kind}_param"] != "SN":
        stated[f"{kind}_param"] = "none"
    if f"{kind}_ch" in stated:
        stated.setdefault(f"{kind}_channels", None)
    try:
        actual, claimed = _facts(kind, options), _facts(kind, {**options, **stated})
        wrong = [name for name in actual if actual[name] != claimed[name]]
    except (ValueError, TypeError, KeyError, IndexError, RuntimeError) as error:
        raise CheckpointError(f"an option is not what it should be ({type(error).__name__}: {error})") from None
    if wrong:
        differing = [f"{name} {claimed[name]} instead of {actual[name]}" for name in wrong]
        raise CheckpointError(f"the configuration belongs to another network: {'; '.join(differing)}")
    taken = {name: config[name] for name in _TAKEN_OVER[kind] if name in config}
    for name, value in taken.items():
        number = isinstance(value, int | float) and math.isfinite(value) and value >= 0
        if not (isinstance(value, str) if name.endswith("init") else number):
            raise CheckpointError(f"{name} is not what it should be: {value!r}")
    return {**options, **taken}


def _facts(kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What options amount to, so that different spellings of the same network compare equal."""
    table = networks.GENERATOR_STREAMS if kind == "G" else networks.DISCRIMINATOR_STREAMS
    img_resolution, depth = options["img_resolution"], options.get(f"{kind}_depth", 1)
    streams = options.get(f"{kind}_channels") or [step * options[f"{kind}_ch"] for step in table[img_resolution]]
    if kind == "G":
        plan = networks.generator_blocks(streams, options["model"], depth, options["G_attn"])
    else:
        plan = networks.discriminator_blocks(
            img_resolution, options["img_channels"], streams, options["model"], depth, options["D_attn"],
            options.get("D_wide", True),
        )
    facts = {
        "image size": img_resolution,
        "number of classes": options["c_dim"],
        "model": options["model"],
        "widths": list(streams),
        "number of blocks": len(plan),
        "hidden widths": [block.hidden_channels for block in plan],
        "attention after": [block.name for block in plan if block.attention] or "no block",
        "spectral normalisation": options[f"{kind}_param"],
        "singular values": options[f"num_{kind}_SVs"],
    }
    if kind == "G":
        pieces = len(streams) if options["hier"] and options["model"] == "BigGAN" else 1
        shared_dim = (options.get("shared_dim") or options["dim_z"]) if options["G_shared"] else 0
        facts |= {"hierarchical z": bool(options["hier"]), "shared embedding": shared_dim,
                  "size of z": options["dim_z"] // pieces * pieces}
    return facts
