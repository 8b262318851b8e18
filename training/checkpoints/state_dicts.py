"""State dictionaries of StyleGAN2 and StyleGAN3 without their objects: the architecture from names and shapes.

Names are those of SG2-ADA and the stylegan3 tree. What tensors do not show is taken as in the authors' own networks:
leaky ReLU, a multiplier of 0.01 for the mapping network's learning rate, no clamp, full precision; for StyleGAN3 the
schedule of frequencies and two critically sampled layers; for discriminators groups of 4 in the minibatch deviation.
"""
import logging
import re
from collections.abc import Mapping
from typing import Any, NoReturn

import torch

from dnnlib import EasyDict
from torch_utils.checkpoint import CheckpointError

from .. import networks, networks_stylegan3
from . import widths
from .parts import NETWORKS
from .rebuilding import MAX_RESOLUTION, rebuild
from .stylegan2 import base_size, base_size_of_area

_log = logging.getLogger(__name__)
_GENERATOR, _STYLEGAN3, _DISCRIMINATOR = "synthesis.b4.const", "synthesis.input.freqs", "b4.out.weight"
_LAYER = re.compile(r"synthesis\.(L(\d+)_(\d+)_\d+)\.weight")
_FIRST_RATE = 16  # sampling rate of StyleGAN3's first layers
_MAX_LAYERS = 100

Tensors = Mapping[str, torch.Tensor]


def _tensors(value: object) -> dict[str, torch.Tensor] | None:
    """The tensors [...] of a state dictionary, by names without the prefix of parallel training; None if it is none."""
    if not isinstance(value, dict) or not value:
        return None
    if not all(isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in value.items()):
        return None
    tensors = {name.removeprefix("module."): tensor for name, tensor in value.items()}
    return tensors if tensors.keys() & {_GENERATOR, _STYLEGAN3, _DISCRIMINATOR} else None


def parts(data: object) -> dict[str, Any] | None:
    """Role → state dictionary of a file's content: one alone, also beside other entries as "state_dict" (as StudioGAN
    writes them), or a dictionary of them; None for every other content.
    """
    if isinstance(data, dict) and _tensors(data.get("state_dict")) is not None:
        data = data["state_dict"]
    alone = _tensors(data)
    if alone is not None:
        return {"D" if _DISCRIMINATOR in alone else "G_ema": data}
    if isinstance(data, dict) and any(_tensors(data.get(role)) is not None for role in NETWORKS):
        return data
    return None


def build(role: str, value: object) -> torch.nn.Module:
    """The network of a state dictionary, in eval mode on the CPU, without gradients.

    Raises:
        CheckpointError: it is none of a known network, or the tensors do not fit together; the message names one.
    """
    tensors = _tensors(value)
    if tensors is None:
        raise CheckpointError(f"{role}: expected a state dictionary of a StyleGAN2 or StyleGAN3 network")
    try:
        if _DISCRIMINATOR in tensors:
            cls: Any = networks.Discriminator
            arguments = _discriminator(tensors)
        elif _STYLEGAN3 in tensors:
            cls, arguments = networks_stylegan3.Generator, _stylegan3(tensors)
        else:
            cls, arguments = networks.Generator, _generator(tensors)
        network: torch.nn.Module = rebuild(cls, arguments, tensors)
    except KeyError as error:
        raise CheckpointError(f"{role}: the state dictionary has no {error.args[0]}") from None
    except (IndexError, ValueError) as error:
        raise CheckpointError(f"{role}: the tensors make no network ({error})") from None
    _log.warning("%s: a state dictionary does not say everything; taken as in the authors' networks: leaky ReLU, no "
                 "clamp, full precision", role)
    return network


def _wrong(name: str, value: object) -> NoReturn:
    raise CheckpointError(f"{name}: not that of a network, found {value}")


def _resolution(tensors: Tensors, pattern: str) -> int:
    """The highest resolution of blocks whose tensors are named like this."""
    resolutions = [int(match[1]) for name in tensors if (match := re.match(pattern, name))]
    largest = max(resolutions, default=4)
    if largest > MAX_RESOLUTION or largest & (largest - 1):
        _wrong("resolution", largest)
    return largest


def _count(tensors: Tensors, prefix: str) -> int:
    """How many layers fc0, fc1, ... a mapping network has."""
    return sum(re.fullmatch(rf"{re.escape(prefix)}fc\d+\.weight", name) is not None for name in tensors)


def _mapping(tensors: Tensors, w_dim: int) -> tuple[int, int, EasyDict]:
    """z_dim, c_dim, and the arguments of a generator's mapping network."""
    arguments = EasyDict(num_layers=_count(tensors, "mapping."))
    embed = tensors.get("mapping.embed.weight")
    embedded, c_dim = (0, 0) if embed is None else embed.shape
    z_dim = (tensors["mapping.fc0.weight"].shape[1] if arguments.num_layers else w_dim) - embedded
    return z_dim, c_dim, arguments


def _architecture(tensors: Tensors, image_layer: str) -> str:
    if any(name.endswith(".skip.weight") for name in tensors):
        return "resnet"
    return "skip" if sum(name.endswith(f".{image_layer}.weight") for name in tensors) > 1 else "orig"


def _filter(tensors: Tensors) -> list[Any]:
    prepared = next(tensor for name, tensor in tensors.items() if name.endswith("resample_filter"))
    taps = prepared.sum(dim=0)
    taps = (taps / taps.abs().min()).round()
    return [int(tap) for tap in taps]


def _generator(tensors: Tensors) -> EasyDict:
    resolution = _resolution(tensors, r"synthesis\.b(\d+)\.conv1\.weight$")
    layers = []
    for res in widths.block_resolutions(resolution):
        first = tensors[_GENERATOR] if res == 4 else tensors[f"synthesis.b{res}.conv0.weight"]
        layers += [first.shape[0], tensors[f"synthesis.b{res}.conv1.weight"].shape[0]]
    w_dim = tensors["synthesis.b4.conv1.affine.weight"].shape[1]
    z_dim, c_dim, mapping = _mapping(tensors, w_dim)
    if mapping.num_layers > 1 and tensors["mapping.fc0.weight"].shape[0] != w_dim:
        mapping.layer_features = tensors["mapping.fc0.weight"].shape[0]
    if c_dim and tensors["mapping.embed.weight"].shape[0] != w_dim:
        mapping.embed_features = tensors["mapping.embed.weight"].shape[0]
    if "mapping.w_avg" not in tensors:
        mapping.w_avg_beta = None
    stock: dict[str, Any] = widths.stock_arguments(resolution, layers, False) or {"layer_channels": layers}
    kernel = tensors["synthesis.b4.conv1.weight"].shape[2]
    return EasyDict(
        z_dim=z_dim, c_dim=c_dim, w_dim=w_dim, img_resolution=resolution,
        img_channels=tensors[f"synthesis.b{resolution}.torgb.weight"].shape[0],
        mapping_kwargs=mapping,
        synthesis_kwargs=EasyDict(
            **stock,
            architecture=_architecture(tensors, "torgb"),
            resample_filter=_filter(tensors),
            use_noise="synthesis.b4.conv1.noise_strength" in tensors,
            **base_size(*tensors[_GENERATOR].shape[1:]),
            **({} if kernel == 3 else {"kernel_size": kernel}),
        ),
    )  # fmt: skip


def _stylegan3(tensors: Tensors) -> EasyDict:
    layers = sorted((int(match[2]), match[1], int(match[3])) for name in tensors if (match := _LAYER.fullmatch(name)))
    names, sizes = [name for _, name, _ in layers], [size for _, _, size in layers]
    if [number for number, *_ in layers] != list(range(len(layers))) or not 3 < len(layers) <= _MAX_LAYERS:
        _wrong("layers", ", ".join(names[:4]))
    hidden = [tensors[f"synthesis.{name}.weight"] for name in names[:-1]]
    w_dim = tensors["synthesis.input.affine.weight"].shape[1]
    z_dim, c_dim, mapping = _mapping(tensors, w_dim)
    arguments = EasyDict(
        z_dim=z_dim, c_dim=c_dim, w_dim=w_dim, img_resolution=sizes[-1],
        img_channels=tensors[f"synthesis.{names[-1]}.weight"].shape[0], mapping_kwargs=mapping,
        num_layers=len(hidden), margin_size=(sizes[0] - min(_FIRST_RATE, sizes[-1])) // 2,
        conv_kernel=hidden[0].shape[2],
        use_radial_filters=any(name.endswith("down_filter") and tensor.ndim == 2 for name, tensor in tensors.items()),
        conv_clamp=None, num_fp16_res=0,
    )  # fmt: skip
    if sizes[-1] > MAX_RESOLUTION:
        _wrong("resolution", sizes[-1])
    return EasyDict(arguments, layer_channels=[hidden[0].shape[1], *(weight.shape[0] for weight in hidden)])


def _discriminator(tensors: Tensors) -> EasyDict:
    resolution = _resolution(tensors, r"b(\d+)\.conv1\.weight$")
    blocks = [f"b{res}" for res in widths.block_resolutions(resolution)[:0:-1]]
    weights = [tensors[f"{block}.{layer}.weight"] for block in blocks for layer in ("conv0", "conv1")]
    weights += [tensors["b4.conv.weight"], tensors["b4.fc.weight"]]
    before = weights[-3].shape[0] if blocks else tensors["b4.fromrgb.weight"].shape[0]
    statistics = weights[-2].shape[1] - before
    layers = [weights[0].shape[1] if blocks else before, *(weight.shape[0] for weight in weights)]
    embed = tensors.get("mapping.embed.weight")
    conditional: dict[str, Any] = {}
    if embed is not None:
        conditional = {"cmap_dim": tensors["b4.out.weight"].shape[0],
                       "mapping_kwargs": EasyDict(num_layers=_count(tensors, "mapping."))}
    stock: dict[str, Any] = widths.stock_arguments(resolution, layers, True) or {"layer_channels": layers}
    first = next(name for name in tensors if name.endswith("fromrgb.weight"))
    return EasyDict(
        c_dim=0 if embed is None else embed.shape[1], img_resolution=resolution, img_channels=tensors[first].shape[1],
        architecture=_architecture(tensors, "fromrgb"),
        block_kwargs=EasyDict(resample_filter=_filter(tensors)) if blocks else EasyDict(),
        epilogue_kwargs=EasyDict(mbstd_num_channels=statistics, mbstd_group_size=4),
        **conditional, **stock,
        **base_size_of_area(tensors["b4.fc.weight"].shape[1] // tensors["b4.conv.weight"].shape[0]),
    )  # fmt: skip
