"""Records of foreign network pickles → our Generator, Discriminator and AugmentPipe.

Constructor arguments are derived from what the file's objects hold (attributes and tensor shapes), never from defaults:
the descendants of StyleGAN2-ADA differ in those. Afterwards every recorded attribute is compared with ours.
"""
import math
import reprlib
from collections.abc import Callable, Iterable
from typing import Any

import torch

from dnnlib import EasyDict
from torch_utils.checkpoint import CheckpointError, ModuleRecord
from torch_utils.ops import upfirdn2d

from .. import networks, networks_biggan
from ..augment import AugmentPipe
from . import widths
from .rebuilding import MAX_RESOLUTION, rebuild

_None = type(None)
_PLAIN = (bool, int, float, str, list, _None)


def build(record: ModuleRecord) -> torch.nn.Module:
    """Rebuilds one recorded network with our classes, all tensors copied.

    Raises:
        CheckpointError: the class is not one of ours, or the record does not fit; the message names the difference.
    """
    if record.class_name not in _NETWORKS:
        raise CheckpointError(f"unknown network class {record.class_name!r}; known: {', '.join(_NETWORKS)}. "
                              "Pass --trust-pickle to load it with the program text that the file contains")
    cls, arguments = _NETWORKS[record.class_name]
    module = rebuild(cls, arguments(record), record.tensors())
    _compare(record, module)
    return module.train(record.state.get("training") is True)


def _compare(record: ModuleRecord, module: torch.nn.Module) -> None:
    """Class names, and every plain number, string or flag that both the file's object and ours have, must be equal."""
    parts = dict(module.named_modules())
    for name, part in record.modules():
        where = name or "the network"
        if name not in parts:
            raise CheckpointError(f"{where} is a {part.class_name} in the file; this architecture has no such part")
        if part.class_name != type(parts[name]).__name__:
            raise CheckpointError(f"{where} is a {part.class_name} in the file, "
                                  f"expected a {type(parts[name]).__name__}")
        ours = vars(parts[name])
        for key, value in part.state.items():
            compared = key in ours and not key.startswith("_") and key != "training"
            if compared and type(value) in _PLAIN and not _equal(value, ours[key]):
                raise CheckpointError(f"{where}.{key} is {reprlib.repr(value)} in the file, "
                                      f"but {ours[key]!r} in the network rebuilt from it")


def _equal(value: Any, ours: Any) -> bool:
    numbers = all(type(v) in (int, float) for v in (value, ours))
    return math.isclose(value, ours, rel_tol=1e-6) if numbers else value == ours


def _uniform(what: str, values: Iterable[Any]) -> Any:
    """The one value that all parts of a network share."""
    found = list(values)
    if any(value != found[0] for value in found):
        raise CheckpointError(f"{what}: expected one value throughout the network, found {', '.join(map(str, found))}")
    return found[0]


def _num_fp16_res(blocks: dict[int, ModuleRecord], img_resolution: int, recorded: Any) -> int:
    """The constructor argument that puts exactly the recorded blocks into half precision."""
    flags = {res: block.value("use_fp16", bool) for res, block in blocks.items()}
    is_count = type(recorded) is int and 0 <= recorded < 64
    for count in [*([recorded] if is_count else []), *range(img_resolution.bit_length())]:
        start = networks._fp16_from(img_resolution, count)
        if all(flag == (res >= start) for res, flag in flags.items()):
            return count
    raise CheckpointError(f"use_fp16: no num_fp16_res gives these blocks: {flags}")


def _resample_filter(block: ModuleRecord, recorded: Any) -> Any:
    """The taps as recorded, or worked out from the prepared filter; failing that the filter itself."""
    if isinstance(recorded, list | tuple) and all(type(tap) in (int, float) for tap in recorded):
        return list(recorded)
    prepared = block.tensor("resample_filter")
    taps = prepared.sum(dim=0)
    taps = (taps / taps.abs().min()).round()
    if torch.equal(upfirdn2d.setup_filter(taps), prepared):
        return [int(tap) for tap in taps]
    return prepared.tolist()


def _width_arguments(img_resolution: int, found: list[int], recorded: dict[str, Any], discriminator: bool) -> dict:
    """channel_base and channel_max, as recorded where they fit, or the list of widths."""
    stock = widths.discriminator_widths if discriminator else widths.generator_widths
    named = {"channel_base": recorded.get("channel_base", 32768), "channel_max": recorded.get("channel_max", 512)}
    if all(type(value) is int for value in named.values()) and stock(img_resolution, **named) == found:
        return named
    return widths.stock_arguments(img_resolution, found, discriminator) or {"layer_channels": found}


def _weight(layer: ModuleRecord) -> torch.Tensor:
    weight = layer.tensor("weight")
    if weight.ndim not in (2, 4):
        raise CheckpointError(f"{layer.class_name}: weight has shape {list(weight.shape)}")
    return weight


def _resolution(record: ModuleRecord) -> int:
    found = record.value("img_resolution", int)
    if not 4 <= found <= MAX_RESOLUTION or found & (found - 1):
        raise CheckpointError(f"img_resolution: expected a power of two from 4 to {MAX_RESOLUTION}, found {found}")
    return found


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


def _generator(record: ModuleRecord) -> dict[str, Any]:
    synthesis, mapping = record.child("synthesis"), record.child("mapping")
    if "input" in synthesis.children:
        raise CheckpointError("this is a StyleGAN3 generator; a StyleGAN2 generator is needed "
                              "(--trust-pickle loads it for commands that only run it)")
    nested = record.init_kwargs.get("synthesis_kwargs")
    recorded = {**record.init_kwargs, **(nested if isinstance(nested, dict) else {}), **synthesis.init_kwargs}
    resolution = _resolution(synthesis)
    blocks = _blocks(synthesis, widths.block_resolutions(resolution))
    convs = [child for block in blocks.values() for name, child in block.children.items() if name in ("conv0", "conv1")]
    torgbs = [block.child("torgb") for block in blocks.values() if "torgb" in block.children]
    found = []
    for res, block in blocks.items():
        mid = block.tensor("const") if res == 4 else _weight(block.child("conv0"))
        found += [mid.shape[0], _weight(block.child("conv1")).shape[0]]
    synthesis_kwargs = EasyDict(
        **_width_arguments(resolution, found, recorded, discriminator=False),
        num_fp16_res=_num_fp16_res(blocks, resolution, recorded.get("num_fp16_res")),
        conv_clamp=_clamp(convs + torgbs),
        architecture=_uniform("architecture", [block.value("architecture", str) for block in blocks.values()]),
        resample_filter=_resample_filter(blocks[resolution], recorded.get("resample_filter")),
        use_noise=_uniform("use_noise", [layer.value("use_noise", bool) for layer in convs]),
        activation=_activation(convs),
    )
    if any(block.value("channels_last", bool) for block in blocks.values()):
        synthesis_kwargs.fp16_channels_last = True
    if _weight(convs[0]).shape[-1] != 3:
        synthesis_kwargs.kernel_size = _weight(convs[0]).shape[-1]
    beta = mapping.value("w_avg_beta", int, float, _None)
    return EasyDict(
        z_dim=record.value("z_dim", int),
        c_dim=record.value("c_dim", int),
        w_dim=record.value("w_dim", int),
        img_resolution=resolution,
        img_channels=record.value("img_channels", int),
        mapping_kwargs=EasyDict(**_mapping_arguments(mapping), w_avg_beta=beta),
        synthesis_kwargs=synthesis_kwargs,
    )


def _discriminator(record: ModuleRecord) -> dict[str, Any]:
    recorded = record.init_kwargs
    resolution = _resolution(record)
    blocks = _blocks(record, widths.block_resolutions(resolution)[:0:-1])
    epilogue = record.child("b4")
    layers = [layer for block in blocks.values() for layer in block.children.values()]
    active = [block.child(name) for block in blocks.values() for name in ("conv0", "conv1")] + [epilogue.child("conv")]
    statistics = epilogue.child("mbstd").value("num_channels", int) if "mbstd" in epilogue.children else 0
    first = _weight(active[0]).shape[1] - (0 if blocks else statistics)  # b4.conv reads the statistics' channels too
    found = [first, *[_weight(layer).shape[0] for layer in active],
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
        **_width_arguments(resolution, found, recorded, discriminator=True),
    )


def _augment_pipe(record: ModuleRecord) -> dict[str, Any]:
    arguments = {key: record.value(key, int, float, list) for key in record.state
                 if not key.startswith("_") and key != "training"}
    bands = arguments.get("imgfilter_bands")
    if not isinstance(bands, list) or not all(type(band) in (int, float) for band in bands):
        raise CheckpointError(f"imgfilter_bands: expected a list of numbers, found {reprlib.repr(bands)}")
    return arguments


def _biggan(record: ModuleRecord) -> dict[str, Any]:
    """These are our own classes alone, which keep all of their arguments."""
    return {**record.value("options", dict), "skip_init": True}


_NETWORKS: dict[str, tuple[type, Callable[[ModuleRecord], dict[str, Any]]]] = {
    "Generator": (networks.Generator, _generator),
    "Discriminator": (networks.Discriminator, _discriminator),
    "AugmentPipe": (AugmentPipe, _augment_pipe),
    "BigGANGenerator": (networks_biggan.BigGANGenerator, _biggan),
    "BigGANDiscriminator": (networks_biggan.BigGANDiscriminator, _biggan),
}
