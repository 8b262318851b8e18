"""Records of foreign StyleGAN3 generators → constructor arguments of ours."""
import reprlib
from collections.abc import Iterable
from typing import Any

import torch

from dnnlib import EasyDict
from torch_utils import misc
from torch_utils.checkpoint import CheckpointError, ModuleRecord
from torch_utils.network_types import Network

from .widths import stock_widths, width_arguments

_SHAPE = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")
_SCHEDULE = {"first_cutoff": 2, "first_stopband": 2**2.1, "last_stopband_rel": 2**0.3}  # not to be had from attributes
_NUMBER = (int, float)
_KNOWN = {
    *_SHAPE, *_SCHEDULE, "mapping_kwargs", "synthesis_kwargs", "channel_base", "channel_max", "layer_channels",
    "num_layers", "num_critical", "margin_size", "output_scale", "num_fp16_res", "conv_kernel", "filter_size",
    "lrelu_upsampling", "use_radial_filters", "conv_clamp", "magnitude_ema_beta",
}
_MAX_LAYERS = 100
_HALF_PRECISION = {"num_fp16_res": 4, "conv_clamp": 256}  # what `half_precision` sets


def reads(record: ModuleRecord) -> bool:
    """Whether a record is a generator of this architecture. (Discriminators are those of StyleGAN2.)"""
    synthesis = record.children.get("synthesis")
    return record.class_name == "Generator" and synthesis is not None and "input" in synthesis.children


def generator_arguments(record: ModuleRecord) -> dict[str, Any]:
    """Constructor arguments of a recorded generator.

    Raises:
        CheckpointError: the record lacks something, or belongs to a descendant with options of its own.
    """
    synthesis, mapping = record.child("synthesis"), record.child("mapping")
    recorded = _recorded(record)
    num_layers = synthesis.value("num_layers", int)
    names = synthesis.value("layer_names", list)
    if not 1 <= num_layers <= _MAX_LAYERS or len(names) != num_layers + 1:
        raise CheckpointError(f"synthesis: num_layers is {num_layers}, but layer_names has {len(names)} entries")
    layers = [synthesis.child(name) for name in names]
    widths = [layers[0].value("in_channels", int), *(layer.value("out_channels", int) for layer in layers[:-1])]
    cutoffs = [layer.value("out_cutoff", *_NUMBER) for layer in layers[:-1]]
    return EasyDict(
        {name: record.value(name, int) for name in _SHAPE},
        mapping_kwargs=_mapping_arguments(mapping),
        **_width_arguments(cutoffs, widths, recorded),
        **{name: recorded.get(name, default) for name, default in _SCHEDULE.items()},
        num_layers=num_layers,
        **{name: synthesis.value(name, int) for name in ("num_critical", "margin_size", "num_fp16_res")},
        output_scale=synthesis.value("output_scale", *_NUMBER),
        **_layer_arguments(layers),
    )


def discriminator_arguments(record: ModuleRecord) -> dict[str, Any]:
    """Never called: a discriminator beside such a generator is one of StyleGAN2.

    Raises:
        CheckpointError: always.
    """
    raise CheckpointError("StyleGAN3 has no discriminator of its own")


def half_precision(role: str, network: Network) -> Any:
    """The same weights in a generator that computes its highest sampling rates in half precision, clamped to 256.

    Args:
        role: 'G' or 'G_ema'.
        network: generator, returned as it is if it does so already.
    """
    given = network.init_kwargs
    arguments = {**given, **_HALF_PRECISION}
    arguments.pop("synthesis_kwargs", None)
    if arguments == given:
        return network
    with torch.random.fork_rng(devices=[]):
        rebuilt = type(network)(**arguments)
    misc.copy_params_and_buffers(network, rebuilt, require_all=True)
    return rebuilt.requires_grad_(False).eval()


def _recorded(record: ModuleRecord) -> dict[str, Any]:
    """The arguments that the file states, those of the synthesis network included."""
    nested = record.init_kwargs.get("synthesis_kwargs")
    stated = {**record.init_kwargs, **record.child("synthesis").init_kwargs,
              **(nested if isinstance(nested, dict) else {})}
    if stated.pop("square", True) is not True:
        raise CheckpointError("this StyleGAN3 generator is one of StyleGAN-Human for images that are not square, whose "
                              "layers have other sizes, and cannot be read; its StyleGAN2 networks can")
    unknown = sorted(stated.keys() - _KNOWN)
    if unknown:
        raise CheckpointError(f"this StyleGAN3 generator was built with {', '.join(unknown)}, which the StyleGAN3 of "
                              "the paper has not: it belongs to a descendant, such as StyleGAN-XL, that cannot be read")
    for name in _SCHEDULE:
        value = stated.get(name, 1)
        if type(value) not in _NUMBER or not 0 < value < 1 << 20:
            raise CheckpointError(f"{name}: expected a positive number, found {reprlib.repr(value)}")
    return stated


def _width_arguments(cutoffs: list[float], widths: list[int], recorded: dict[str, Any]) -> dict[str, Any]:
    """channel_base and channel_max, as recorded where they fit, or whatever expresses the widths."""
    if min(cutoffs) <= 0 or min(widths) < 1:
        raise CheckpointError("synthesis: cutoff frequencies and channels must be positive")
    named = {"channel_base": recorded.get("channel_base", 32768), "channel_max": recorded.get("channel_max", 512)}
    if all(type(value) is int for value in named.values()) and stock_widths(cutoffs, **named) == widths:
        return named
    return width_arguments(cutoffs, widths)


def _mapping_arguments(mapping: ModuleRecord) -> dict[str, Any]:
    num_layers = mapping.value("num_layers", int)
    if not 0 <= num_layers <= len(mapping.children):
        raise CheckpointError(f"mapping: num_layers is {num_layers}, but there are {len(mapping.children)} submodules")
    arguments = EasyDict(num_layers=num_layers, w_avg_beta=mapping.value("w_avg_beta", *_NUMBER))
    if num_layers:
        arguments.lr_multiplier = mapping.child("fc0").value("bias_gain", *_NUMBER)
    return arguments


def _layer_arguments(layers: list[ModuleRecord]) -> dict[str, Any]:
    """What all layers share; the last one, which makes the image, has no filters."""
    hidden = layers[:-1]

    def ratio(above: str, below: str) -> int:
        """The one integer ratio of two attributes, where there is a filter."""
        pairs = [(layer.value(above, int), layer.value(below, int)) for layer in hidden]
        ratios = [a // b for a, b in pairs if a > 1 and b > 1 and a % b == 0]
        return _uniform(above, ratios) if ratios else 6

    rates = [(layer.value("tmp_sampling_rate", *_NUMBER),
              max(layer.value("in_sampling_rate", *_NUMBER), layer.value("out_sampling_rate", *_NUMBER)))
             for layer in hidden]
    if any(rate <= 0 or tmp % rate for tmp, rate in rates):
        raise CheckpointError("sampling rates: those of the nonlinearity must be multiples of a layer's")
    return {
        "conv_kernel": _uniform("conv_kernel", [layer.value("conv_kernel", int) for layer in hidden]),
        "filter_size": ratio("up_taps", "up_factor"),
        "lrelu_upsampling": _uniform("lrelu_upsampling", [int(tmp // rate) for tmp, rate in rates]),
        "use_radial_filters": any(layer.value("down_radial", bool) for layer in hidden),
        "conv_clamp": _uniform("conv_clamp", [layer.value("conv_clamp", *_NUMBER, type(None)) for layer in layers]),
        "magnitude_ema_beta": _uniform(
            "magnitude_ema_beta", [layer.value("magnitude_ema_beta", *_NUMBER) for layer in layers]
        ),
    }


def _uniform(name: str, values: Iterable[Any]) -> Any:
    """The one value that all layers share."""
    unique = list(dict.fromkeys(values))
    if len(unique) != 1:
        raise CheckpointError(f"{name}: expected one value throughout the network, found {', '.join(map(str, unique))}")
    return unique[0]
