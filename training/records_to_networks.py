"""Records of foreign network pickles → our Generator, Discriminator and AugmentPipe.

Constructor arguments are derived from what the file's objects hold (attributes and tensor shapes), never from defaults:
the descendants of StyleGAN2-ADA differ in those. Afterwards every recorded attribute is compared with ours.
"""
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

from dnnlib import EasyDict
from torch_utils.checkpoint import CheckpointError, ModuleRecord
from torch_utils.ops import upfirdn2d

from . import networks, networks_biggan, widths
from .augment import AugmentPipe

# Attributes of other trees that say nothing a constructor needs, or that ours expresses otherwise.
_IGNORED_ATTRIBUTES = {
    "training", "in_features", "out_features", "in_channels_", "fused_modconv_default", "num_fp16_res",
}


def build(record: ModuleRecord) -> torch.nn.Module:
    """Rebuilds one recorded network with our classes, all tensors copied.

    Raises:
        CheckpointError: the class is not one of ours, or the record does not fit; the message names the difference.
    """
    builders: dict[str, Callable[[ModuleRecord], torch.nn.Module]] = {
        "Generator": _generator,
        "Discriminator": _discriminator,
        "AugmentPipe": _augment_pipe,
        "BigGANGenerator": _biggan,
        "BigGANDiscriminator": _biggan,
    }
    if record.class_name not in builders:
        raise CheckpointError(f"unknown network class {record.class_name!r}; known: {', '.join(builders)}. "
                              "Pass --trust-pickle to load it with the program text that the file contains")
    with torch.random.fork_rng(devices=[]):  # initial weights are overwritten; the caller's random state is not
        module = builders[record.class_name](record)
    _copy_tensors(record, module)
    _compare_attributes(record, module)
    module.train(bool(record.state.get("training", False)))
    return module.requires_grad_(False)


def _copy_tensors(record: ModuleRecord, module: torch.nn.Module) -> None:
    source = record.tensors()
    target = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    missing, extra = sorted(target.keys() - source.keys()), sorted(source.keys() - target.keys())
    if missing or extra:
        raise CheckpointError(f"{record.class_name}: tensors do not match this architecture; "
                              f"missing in the file: {_some(missing)}; unknown here: {_some(extra)}")
    for name, tensor in target.items():
        if tensor.shape != source[name].shape:
            raise CheckpointError(f"{record.class_name}: {name} has shape {list(source[name].shape)}, "
                                  f"expected {list(tensor.shape)}")
        tensor.data.copy_(source[name])


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "") if names else "none"


def _compare_attributes(record: ModuleRecord, module: torch.nn.Module) -> None:
    """Every plain number, string or flag that both the file's object and ours have must be equal."""
    for name, part in record.modules():
        ours = vars(module.get_submodule(name))
        for key, value in part.state.items():
            if key.startswith("_") or key in _IGNORED_ATTRIBUTES or key not in ours:
                continue
            same = math.isclose(value, ours[key], rel_tol=1e-6) if _numbers(value, ours[key]) else value == ours[key]
            if isinstance(value, bool | int | float | str | list | None) and not same:
                raise CheckpointError(f"{record.class_name}: {name or 'top level'}.{key} is {value!r} in the file, "
                                      f"but {ours[key]!r} in the network rebuilt from it")


def _numbers(*values: Any) -> bool:
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def _uniform(what: str, values: Iterable[Any]) -> Any:
    """The one value that all parts of a network share."""
    found = list(values)
    if any(value != found[0] for value in found):
        raise CheckpointError(f"{what}: expected one value throughout the network, found {', '.join(map(str, found))}")
    return found[0]


def _num_fp16_res(blocks: dict[int, ModuleRecord], img_resolution: int, recorded: Any) -> int:
    """The constructor argument that puts exactly the recorded blocks into half precision."""
    flags = {res: bool(block["use_fp16"]) for res, block in blocks.items()}
    candidates = ([recorded] if isinstance(recorded, int) else []) + list(range(img_resolution.bit_length()))
    for count in candidates:
        start = networks._fp16_from(img_resolution, count)
        if all(flag == (res >= start) for res, flag in flags.items()):
            return int(count)
    raise CheckpointError(f"use_fp16: no num_fp16_res gives these blocks: {flags}")


def _resample_filter(block: ModuleRecord, recorded: Any) -> Any:
    """The taps as recorded, or worked out from the prepared filter; failing that the filter itself."""
    if recorded is not None:
        return list(recorded)
    prepared = block.own_tensors()["resample_filter"]
    taps = prepared.sum(dim=0)
    taps = (taps / taps.abs().min()).round()
    if torch.equal(upfirdn2d.setup_filter(taps), prepared):
        return [int(tap) for tap in taps]
    return prepared.tolist()


def _width_arguments(img_resolution: int, found: list[int], recorded: dict[str, Any], discriminator: bool) -> dict:
    """channel_base and channel_max, as recorded where they fit, or the list of widths."""
    stock = widths.discriminator_widths if discriminator else widths.generator_widths
    named = {"channel_base": recorded.get("channel_base", 32768), "channel_max": recorded.get("channel_max", 512)}
    if stock(img_resolution, **named) == found:
        return named
    return widths.stock_arguments(img_resolution, found, discriminator) or {"layer_channels": found}


def _weight(layer: ModuleRecord) -> torch.Tensor:
    return layer.own_tensors()["weight"]


def _blocks(record: ModuleRecord, resolutions: Iterable[int]) -> dict[int, ModuleRecord]:
    return {res: record.child(f"b{res}") for res in resolutions}


def _mapping_arguments(mapping: ModuleRecord) -> dict[str, Any]:
    num_layers, w_dim = mapping["num_layers"], mapping["w_dim"]
    args: dict[str, Any] = {"num_layers": num_layers}
    if num_layers:
        first = mapping.child("fc0")
        args.update(activation=first["activation"], lr_multiplier=first["bias_gain"])
        if num_layers > 1 and _weight(first).shape[0] != w_dim:
            args["layer_features"] = _weight(first).shape[0]
    if mapping["c_dim"] > 0 and _weight(mapping.child("embed")).shape[0] != w_dim:
        args["embed_features"] = _weight(mapping.child("embed")).shape[0]
    return args


def _generator(record: ModuleRecord) -> networks.Generator:
    synthesis, mapping = record.child("synthesis"), record.child("mapping")
    if "input" in synthesis.children:
        raise CheckpointError("this is a StyleGAN3 generator; a StyleGAN2 generator is needed "
                              "(--trust-pickle loads it for commands that only run it)")
    recorded = {**record.init_kwargs, **dict(record.init_kwargs.get("synthesis_kwargs") or {}), **synthesis.init_kwargs}
    resolution = synthesis["img_resolution"]
    blocks = _blocks(synthesis, widths.block_resolutions(resolution))
    convs = [child for block in blocks.values() for name, child in block.children.items() if name in ("conv0", "conv1")]
    torgbs = [block.child("torgb") for block in blocks.values() if "torgb" in block.children]
    found = []
    for res, block in blocks.items():
        mid = block.own_tensors()["const"] if res == 4 else _weight(block.child("conv0"))
        found += [mid.shape[0], _weight(block.child("conv1")).shape[0]]
    top = list(blocks.values())[-1]
    synthesis_kwargs = EasyDict(
        **_width_arguments(resolution, found, recorded, discriminator=False),
        num_fp16_res=_num_fp16_res(blocks, resolution, recorded.get("num_fp16_res")),
        conv_clamp=_uniform("conv_clamp", [layer["conv_clamp"] for layer in convs + torgbs]),
        architecture=_uniform("architecture", [block["architecture"] for block in blocks.values()]),
        resample_filter=_resample_filter(top, recorded.get("resample_filter")),
        use_noise=_uniform("use_noise", [layer["use_noise"] for layer in convs]),
        activation=_uniform("activation", [layer["activation"] for layer in convs]),
    )
    if any(block["channels_last"] for block in blocks.values()):
        synthesis_kwargs.fp16_channels_last = True
    if _weight(convs[0]).shape[-1] != 3:
        synthesis_kwargs.kernel_size = _weight(convs[0]).shape[-1]
    return networks.Generator(
        z_dim=record["z_dim"],
        c_dim=record["c_dim"],
        w_dim=record["w_dim"],
        img_resolution=resolution,
        img_channels=record["img_channels"],
        mapping_kwargs=EasyDict(**_mapping_arguments(mapping), w_avg_beta=mapping["w_avg_beta"]),
        synthesis_kwargs=synthesis_kwargs,
    )


def _discriminator(record: ModuleRecord) -> networks.Discriminator:
    recorded = record.init_kwargs
    resolution = record["img_resolution"]
    blocks = _blocks(record, widths.block_resolutions(resolution)[:0:-1])
    epilogue = record.child("b4")
    mbstd = epilogue.children.get("mbstd")
    layers = [layer for block in blocks.values() for layer in block.children.values()]
    active = [block.child(name) for block in blocks.values() for name in ("conv0", "conv1")] + [epilogue.child("conv")]
    found = [_weight(active[0]).shape[1], *[_weight(layer).shape[0] for layer in active],
             _weight(epilogue.child("fc")).shape[0]]
    activation = EasyDict(activation=_uniform("activation", [layer["activation"] for layer in active]))
    block_kwargs = EasyDict(activation)
    if blocks:
        filters = dict(recorded.get("block_kwargs") or {}).get("resample_filter")
        block_kwargs.resample_filter = _resample_filter(next(iter(blocks.values())), filters)
    frozen = sum("weight" in (layer.state.get("_buffers") or {}) for layer in layers)
    if frozen:
        block_kwargs.freeze_layers = frozen
    if any(block["channels_last"] for block in blocks.values()):
        block_kwargs.fp16_channels_last = True
    epilogue_kwargs = EasyDict(activation, mbstd_num_channels=0)
    if mbstd is not None:
        epilogue_kwargs.update(mbstd_group_size=mbstd["group_size"], mbstd_num_channels=mbstd["num_channels"])
    conditional = record["c_dim"] > 0
    return networks.Discriminator(
        c_dim=record["c_dim"],
        img_resolution=resolution,
        img_channels=record["img_channels"],
        architecture=epilogue["architecture"],
        num_fp16_res=_num_fp16_res(blocks, resolution, recorded.get("num_fp16_res")),
        conv_clamp=_uniform("conv_clamp", [layer["conv_clamp"] for layer in active]),
        cmap_dim=epilogue["cmap_dim"] if conditional else None,
        block_kwargs=block_kwargs,
        mapping_kwargs=EasyDict(_mapping_arguments(record.child("mapping")) if conditional else {}),
        epilogue_kwargs=epilogue_kwargs,
        **_width_arguments(resolution, found, recorded, discriminator=True),
    )


def _augment_pipe(record: ModuleRecord) -> AugmentPipe:
    plain = {k: v for k, v in record.state.items() if not k.startswith("_") and k != "training"}
    return AugmentPipe(**plain)


def _biggan(record: ModuleRecord) -> torch.nn.Module:
    """These are our own classes alone, which keep all of their arguments."""
    try:
        return getattr(networks_biggan, record.class_name)(**record["options"], skip_init=True)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{record.class_name}: its options do not make a network: {error}") from None
