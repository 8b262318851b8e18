"""StyleGAN2 networks in pickles: constructor arguments derived from the record of a file."""
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from dnnlib import EasyDict
from torch_utils import misc
from torch_utils.checkpoint import CheckpointError, ModuleRecord
from torch_utils.network_types import Network
from torch_utils.ops import upfirdn2d

from .. import networks
from . import widths
from .rebuilding import MAX_RESOLUTION

_None = type(None)
HALF_PRECISION = {"num_fp16_res": 4, "conv_clamp": 256}  # what `half_precision` sets
_OWN = {"z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "mapping_kwargs", "synthesis_kwargs"}


def synthesis_options(arguments: Mapping[str, Any]) -> EasyDict:
    """The options of the synthesis network among a generator's constructor arguments, nested or flat."""
    flat = {name: value for name, value in arguments.items() if name not in _OWN}
    return EasyDict(flat, **arguments.get("synthesis_kwargs", {}))


def with_synthesis_options(arguments: Mapping[str, Any], options: Mapping[str, Any]) -> EasyDict:
    """A generator's constructor arguments with other options of the synthesis network, nested or flat as before."""
    own = {name: value for name, value in arguments.items() if name in _OWN - {"synthesis_kwargs"}}
    is_flat = bool(arguments.keys() - _OWN)
    return EasyDict(own, **(options if is_flat else {"synthesis_kwargs": EasyDict(options)}))


def _uniform(name: str, values: Iterable[Any]) -> Any:
    """The one value that all parts of a network share."""
    listed = list(values)
    if any(value != listed[0] for value in listed):
        raise CheckpointError(f"{name}: expected one value throughout the network, found {', '.join(map(str, listed))}")
    return listed[0]


def _num_fp16_res(blocks: dict[int, ModuleRecord], img_resolution: int, recorded: object) -> int:
    """The constructor argument that puts exactly the recorded blocks into half precision."""
    flags = {res: block.value("use_fp16", bool) for res, block in blocks.items()}
    is_count = type(recorded) is int and 0 <= recorded < 64
    for count in [*([recorded] if is_count else []), *range(img_resolution.bit_length())]:
        start = networks._fp16_from(img_resolution, count)
        if all(flag == (res >= start) for res, flag in flags.items()):
            return count
    raise CheckpointError(f"use_fp16: no num_fp16_res gives these blocks: {flags}")


def _resample_filter(block: ModuleRecord, recorded: object) -> Any:
    """The taps as recorded, or worked out from the prepared filter; failing that the filter itself."""
    if isinstance(recorded, list | tuple) and all(type(tap) in (int, float) for tap in recorded):
        return list(recorded)
    prepared = block.tensor("resample_filter")
    taps = prepared.sum(dim=0)
    taps = (taps / taps.abs().min()).round()
    if torch.equal(upfirdn2d.setup_filter(taps), prepared):
        return [int(tap) for tap in taps]
    return prepared.tolist()


def _width_arguments(img_resolution: int, channels: list[int], recorded: dict[str, Any], discriminator: bool) -> dict:
    """channel_base and channel_max, as recorded where they fit, or the list of widths."""
    stock = widths.discriminator_widths if discriminator else widths.generator_widths
    named = {"channel_base": recorded.get("channel_base", 32768), "channel_max": recorded.get("channel_max", 512)}
    if all(type(value) is int for value in named.values()) and stock(img_resolution, **named) == channels:
        return named
    return widths.stock_arguments(img_resolution, channels, discriminator) or {"layer_channels": channels}


def _weight(layer: ModuleRecord) -> torch.Tensor:
    weight = layer.tensor("weight")
    if weight.ndim not in (2, 4):
        raise CheckpointError(f"{layer.class_name}: weight has shape {list(weight.shape)}")
    return weight


def _resolution(record: ModuleRecord) -> int:
    resolution = record.value("img_resolution", int)
    if not 4 <= resolution <= MAX_RESOLUTION or resolution & (resolution - 1):
        raise CheckpointError(f"img_resolution: expected a power of two from 4 to {MAX_RESOLUTION}, found {resolution}")
    return resolution


def _blocks(record: ModuleRecord, resolutions: Iterable[int]) -> dict[int, ModuleRecord]:
    return {res: record.child(f"b{res}") for res in resolutions}


def _clamp(layers: Iterable[ModuleRecord]) -> float | None:
    return _uniform("conv_clamp", [layer.value("conv_clamp", int, float, _None) for layer in layers])


def _activation(layers: Iterable[ModuleRecord]) -> str:
    return _uniform("activation", [layer.value("activation", str) for layer in layers])


def _mapping_arguments(mapping: ModuleRecord) -> dict[str, Any]:
    num_layers, w_dim = mapping.value("num_layers", int), mapping.value("w_dim", int)
    if not 0 <= num_layers <= len(mapping.children):
        raise CheckpointError(f"mapping: num_layers is {num_layers}, but there are {len(mapping.children)} submodules")
    args: dict[str, Any] = {"num_layers": num_layers}
    if num_layers:
        first = mapping.child("fc0")
        args.update(activation=_activation([first]), lr_multiplier=first.value("bias_gain", int, float))
        if num_layers > 1 and _weight(first).shape[0] != w_dim:
            args["layer_features"] = _weight(first).shape[0]
    if mapping.value("c_dim", int) > 0 and _weight(mapping.child("embed")).shape[0] != w_dim:
        args["embed_features"] = _weight(mapping.child("embed")).shape[0]
    return args


def _is_flat(record: ModuleRecord) -> bool:
    """Whether a generator is of the stylegan3 tree, which has no `synthesis_kwargs`, but their content beside others.

    Its synthesis network has an attribute of its own, too: the constructor may have been called without options.
    """
    own = record.init_kwargs
    return "synthesis_kwargs" not in own and (
        bool(own.keys() - _OWN) or "num_fp16_res" in record.child("synthesis").state)


def base_size(height: int, width: int) -> dict[str, Any]:
    """The constructor argument for features of the lowest resolution; none for square ones.

    Raises:
        CheckpointError: neither side is 4.
    """
    if max(height, width) != 4 or min(height, width) < 1:
        raise CheckpointError(f"b4: expected a constant of 4x4, or a shorter side, found {height}x{width}")
    return {} if (height, width) == networks.SQUARE else {"base_size": [height, width]}


def base_size_of_area(area: int, recorded: object = None) -> dict[str, Any]:
    """The constructor argument of a discriminator whose b4 reads so many positions.

    Args:
        area: positions.
        recorded: [height, width] of them, if the file has that; upright otherwise, which makes no difference.

    Raises:
        CheckpointError: no rectangle with a side of 4 has as many.
    """
    if recorded == [4, area // 4] or recorded == [area // 4, 4]:
        height, width = recorded
        return base_size(height, width)
    return base_size(4, area // 4) if area % 4 == 0 else base_size(1, area)


def reads(record: ModuleRecord) -> bool:
    """Whether a record is of this family. StyleGAN3's generators have the same class name, and an input layer."""
    synthesis = record.children.get("synthesis")
    return record.class_name in ("Generator", "Discriminator") and (synthesis is None
                                                                    or "input" not in synthesis.children)


def generator_arguments(record: ModuleRecord) -> dict[str, Any]:
    """The constructor arguments of a recorded generator.

    Raises:
        CheckpointError: the record holds no StyleGAN2 generator.
    """
    synthesis, mapping = record.child("synthesis"), record.child("mapping")
    nested = record.init_kwargs.get("synthesis_kwargs")
    recorded = {**record.init_kwargs, **(nested if isinstance(nested, dict) else {}), **synthesis.init_kwargs}
    resolution = _resolution(synthesis)
    blocks = _blocks(synthesis, widths.block_resolutions(resolution))
    convs = [child for block in blocks.values() for name, child in block.children.items() if name in ("conv0", "conv1")]
    torgbs = [block.child("torgb") for block in blocks.values() if "torgb" in block.children]
    channels = []
    for res, block in blocks.items():
        mid = block.tensor("const") if res == 4 else _weight(block.child("conv0"))
        channels += [mid.shape[0], _weight(block.child("conv1")).shape[0]]
    const = blocks[4].tensor("const")
    if const.ndim != 3:
        raise CheckpointError(f"b4.const has shape {list(const.shape)}, expected three axes")
    options = EasyDict(
        **_width_arguments(resolution, channels, recorded, discriminator=False),
        num_fp16_res=_num_fp16_res(blocks, resolution, recorded.get("num_fp16_res")),
        conv_clamp=_clamp(convs + torgbs),
        architecture=_uniform("architecture", [block.value("architecture", str) for block in blocks.values()]),
        resample_filter=_resample_filter(blocks[resolution], recorded.get("resample_filter")),
        use_noise=_uniform("use_noise", [layer.value("use_noise", bool) for layer in convs]),
        activation=_activation(convs),
        **base_size(*const.shape[1:]),
    )
    if any(block.value("channels_last", bool) for block in blocks.values()):
        options.fp16_channels_last = True
    if _weight(convs[0]).shape[-1] != 3:
        options.kernel_size = _weight(convs[0]).shape[-1]
    beta = mapping.value("w_avg_beta", int, float, _None)
    return EasyDict(
        z_dim=record.value("z_dim", int),
        c_dim=record.value("c_dim", int),
        w_dim=record.value("w_dim", int),
        img_resolution=resolution,
        img_channels=record.value("img_channels", int),
        mapping_kwargs=EasyDict(**_mapping_arguments(mapping), w_avg_beta=beta),
        **(options if _is_flat(record) else {"synthesis_kwargs": options}),
    )


def discriminator_arguments(record: ModuleRecord) -> dict[str, Any]:
    """The constructor arguments of a recorded discriminator.

    Raises:
        CheckpointError: the record holds no StyleGAN2 discriminator.
    """
    recorded = record.init_kwargs
    resolution = _resolution(record)
    blocks = _blocks(record, widths.block_resolutions(resolution)[:0:-1])
    epilogue = record.child("b4")
    layers = [layer for block in blocks.values() for layer in block.children.values()]
    active = [block.child(name) for block in blocks.values() for name in ("conv0", "conv1")] + [epilogue.child("conv")]
    statistics = epilogue.child("mbstd").value("num_channels", int) if "mbstd" in epilogue.children else 0
    first = _weight(active[0]).shape[1] - (0 if blocks else statistics)  # b4.conv reads the statistics' channels too
    channels = [first, *[_weight(layer).shape[0] for layer in active],
             _weight(epilogue.child("fc")).shape[0]]
    activation = EasyDict(activation=_activation(active))
    block_kwargs = EasyDict(activation)
    if blocks:
        nested = recorded.get("block_kwargs")
        taps = nested.get("resample_filter") if isinstance(nested, dict) else None
        block_kwargs.resample_filter = _resample_filter(blocks[resolution], taps)
    frozen = sum("weight" in layer.buffers for layer in layers)
    if frozen:
        block_kwargs.freeze_layers = frozen
    if any(block.value("channels_last", bool) for block in blocks.values()):
        block_kwargs.fp16_channels_last = True
    area, odd = divmod(_weight(epilogue.child("fc")).shape[1], _weight(epilogue.child("conv")).shape[0])
    if odd:
        raise CheckpointError("b4.fc does not read all positions of b4.conv")
    epilogue_kwargs = EasyDict(activation, mbstd_num_channels=statistics)
    if "mbstd" in epilogue.children:
        epilogue_kwargs.mbstd_group_size = epilogue.child("mbstd").value("group_size", int, _None)
    conditional = record.value("c_dim", int) > 0
    return EasyDict(
        c_dim=record.value("c_dim", int),
        img_resolution=resolution,
        img_channels=record.value("img_channels", int),
        architecture=epilogue.value("architecture", str),
        num_fp16_res=_num_fp16_res(blocks, resolution, recorded.get("num_fp16_res")),
        conv_clamp=_clamp(active),
        cmap_dim=epilogue.value("cmap_dim", int) if conditional else None,
        block_kwargs=block_kwargs,
        mapping_kwargs=EasyDict(_mapping_arguments(record.child("mapping")) if conditional else {}),
        epilogue_kwargs=epilogue_kwargs,
        **_width_arguments(resolution, channels, recorded, discriminator=True),
        **base_size_of_area(area, recorded.get("base_size")),
    )


def half_precision(role: str, network: Network) -> Any:
    """The same weights in a network that computes its four highest resolutions in half precision, clamped to 256.

    Args:
        role: 'G', 'D' or 'G_ema'.
        network: generator or discriminator, returned as it is if it does so already.
    """
    given = network.init_kwargs
    if role == "D":
        arguments = {**given, **HALF_PRECISION}
    else:
        arguments = with_synthesis_options(given, {**synthesis_options(given), **HALF_PRECISION})
    if arguments == given:
        return network
    with torch.random.fork_rng(devices=[]):
        rebuilt = type(network)(**arguments)
    misc.copy_params_and_buffers(network, rebuilt, require_all=True)
    return rebuilt.requires_grad_(False).eval()
