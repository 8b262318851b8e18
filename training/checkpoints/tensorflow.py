"""Networks of the TensorFlow StyleGAN2 code base → our Generator and Discriminator.

Both layouts of options (config-f and ADA) are served by one table each; what a table does not know is an error.
"""
import itertools
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from dnnlib import EasyDict
from torch_utils import misc
from torch_utils.checkpoint import CheckpointError, TFNetworkRecord

from .. import networks
from .rebuilding import MAX_RESOLUTION, blank, fill

MINIMUM_VERSION = 4
_UNUSED_OPTIONS = {
    "G": {"truncation_psi", "truncation_cutoff", "style_mixing_prob", "structure", "conditioning", "fused_modconv",
          "randomize_noise", "resolution_h", "resolution_w"},
    "D": {"structure", "conditioning"},
}

Convert = Callable[[np.ndarray], np.ndarray]
_CONVERSIONS: dict[str, Convert] = {
    "copy": lambda a: a,
    "dense": lambda a: a.T,  # [in, out] → [out, in]
    "conv": lambda a: a.transpose(3, 2, 0, 1),  # [kh, kw, in, out] → [out, in, kh, kw]
    "conv_up": lambda a: a[::-1, ::-1].transpose(3, 2, 0, 1),  # the up-convolutions are stored flipped
    "plus_one": lambda a: a + 1,  # style biases are stored relative to one
    "const": lambda a: a[0],
    "noise": lambda a: a[0, 0],
}

_RANKS = {"dense": 2, "conv": 4, "conv_up": 4, "const": 4, "noise": 4}

# An option's name there, its value where it is absent, and which arguments of our constructor it becomes.
_GENERATOR = [
    ("latent_size", 512, "z_dim"),
    ("label_size", 0, "c_dim"),
    ("dlatent_size", 512, "w_dim"),
    ("resolution", 1024, "img_resolution"),
    ("num_channels", 3, "img_channels"),
    ("w_avg_beta", 0.995, "mapping_kwargs.w_avg_beta"),
    ("label_fmaps", None, "mapping_kwargs.embed_features"),
    ("mapping_fmaps", None, "mapping_kwargs.layer_features"),
    ("mapping_layers", 8, "mapping_kwargs.num_layers"),
    ("mapping_lrmul", 0.01, "mapping_kwargs.lr_multiplier"),
    ("mapping_nonlinearity", "lrelu", "mapping_kwargs.activation"),
    ("architecture", "skip", "synthesis_kwargs.architecture"),
    ("fmap_base", 16384, "synthesis_kwargs.channel_base"),
    ("fmap_max", 512, "synthesis_kwargs.channel_max"),
    ("nonlinearity", "lrelu", "synthesis_kwargs.activation"),
    ("use_noise", True, "synthesis_kwargs.use_noise"),
    ("resample_kernel", [1, 3, 3, 1], "synthesis_kwargs.resample_filter"),
    ("num_fp16_res", 0, "synthesis_kwargs.num_fp16_res"),
    ("conv_clamp", None, "synthesis_kwargs.conv_clamp"),
]
_DISCRIMINATOR = [
    ("architecture", "resnet", "architecture"),
    ("resolution", 1024, "img_resolution"),
    ("num_channels", 3, "img_channels"),
    ("label_size", 0, "c_dim"),
    ("fmap_base", 16384, "channel_base"),
    ("fmap_max", 512, "channel_max"),
    ("num_fp16_res", 0, "num_fp16_res"),
    ("conv_clamp", None, "conv_clamp"),
    ("freeze_layers", 0, "block_kwargs.freeze_layers"),
    ("resample_kernel", [1, 3, 3, 1], "block_kwargs.resample_filter"),
    ("mapping_layers", 0, "mapping_kwargs.num_layers"),
    ("mapping_lrmul", 0.1, "mapping_kwargs.lr_multiplier"),
    ("mapping_fmaps", None, "mapping_kwargs.embed_features mapping_kwargs.layer_features cmap_dim"),
    ("mbstd_group_size", None, "epilogue_kwargs.mbstd_group_size"),
    ("mbstd_num_features", 1, "epilogue_kwargs.mbstd_num_channels"),
    ("nonlinearity", "lrelu", "block_kwargs.activation mapping_kwargs.activation epilogue_kwargs.activation"),
]
# What is not taken over as it is.
_TRANSLATED: dict[str, Callable[[Any], Any]] = {
    "fmap_base": lambda base: base * 2,
    "resample_kernel": lambda taps: None if taps is None else list(taps),
    "w_avg_beta": lambda beta: 1 if beta is None else beta,  # the average stays as it is
}


def generator_from_tf(network: TFNetworkRecord) -> networks.Generator:
    """Converts a TensorFlow StyleGAN2 generator: options, then every variable.

    Raises:
        CheckpointError: version below 4, an unknown option, or a variable that is missing or of the wrong shape.
    """
    variables = network.variables()
    kwargs = _arguments(network, "G", _GENERATOR, len(variables))
    names = _generator_names(kwargs.img_resolution, kwargs.mapping_kwargs.num_layers)
    return _filled(networks.Generator, kwargs, names, variables)


def discriminator_from_tf(network: TFNetworkRecord) -> networks.Discriminator:
    """Converts a TensorFlow StyleGAN2 discriminator. Absent options mean what they meant there: no mapping layers,
    and a minibatch-std group of the whole batch.

    Raises:
        CheckpointError: as for the generator.
    """
    variables = network.variables()
    kwargs = _arguments(network, "D", _DISCRIMINATOR, len(variables))
    names = _discriminator_names(kwargs.img_resolution, kwargs.mapping_kwargs.num_layers)
    if any(name.startswith("FromRGB_lod") for name in variables):  # StyleGAN1's names, of its only architecture
        kwargs.architecture = "orig"
        if "FromRGB_lod0/weight" in variables:  # the full size; the others served progressive growing
            names |= _layer(f"b{kwargs.img_resolution}.fromrgb", "FromRGB_lod0", "conv")
    return _filled(networks.Discriminator, kwargs, names, variables)


# ----------------------------------------------------------------------------------------------------------------------
# Options


_STYLEGAN1_OPTIONS = {"use_wscale", "use_styles", "use_pixel_norm", "use_instance_norm", "const_input_layer"}


def _arguments(
    network: TFNetworkRecord, kind: str, table: list[tuple[str, Any, str]], num_variables: int
) -> EasyDict:
    """The arguments of our constructor that a network's static options stand for."""
    version = network.state.get("version", 0)
    if type(version) is not int or version < MINIMUM_VERSION:
        raise CheckpointError(f"{kind} is a TensorFlow network of version {reprlib.repr(version)}; "
                              f"those of StyleGAN2 begin with version {MINIMUM_VERSION}")
    options = dict(network.state.get("static_kwargs") or {})
    kwargs = EasyDict()
    for name, default, places in table:
        value = _checked(kind, name, options.pop(name, default), num_variables)
        value = _TRANSLATED.get(name, lambda same: same)(value)
        for place in places.split():
            _put(kwargs, place, value)
    strange = sorted(str(name) for name in options.keys() - _UNUSED_OPTIONS[kind])
    if _STYLEGAN1_OPTIONS.intersection(strange):
        raise CheckpointError(f"{kind} is of StyleGAN (2018, TensorFlow), whose architecture is not read here; "
                              "StyleGAN2 and later are")
    if strange:
        raise CheckpointError(f"TensorFlow kwarg {strange[0]!r} of {kind} has no meaning here: "
                              "no StyleGAN2 network of a known kind has it")
    return kwargs


def _put(kwargs: EasyDict, place: str, value: object) -> None:
    """Sets an argument, or with a dot an argument of a part."""
    part, _, name = place.rpartition(".")
    (kwargs.setdefault(part, EasyDict()) if part else kwargs)[name] = value


def _checked(kind: str, name: str, value: object, num_variables: int) -> Any:
    """The option's value if it is of the sort that our constructors can judge; arrays as lists."""
    if name == "resample_kernel":
        value = value.tolist() if isinstance(value, np.ndarray) else value
        fits, expected = _are_taps(value), "a list of numbers"
    elif name == "resolution":
        fits = type(value) is int and 4 <= value <= MAX_RESOLUTION and value.bit_count() == 1
        expected = f"a power of two from 4 to {MAX_RESOLUTION}"
    elif name == "mapping_layers":  # each of which needs variables
        fits = type(value) is int and 0 <= value <= num_variables
        expected = f"a number of layers up to that of the {num_variables} variables"
    else:
        fits, expected = isinstance(value, str | int | float | None), "a number, a name or None"
    if not fits:
        raise CheckpointError(f"TensorFlow kwarg {name!r} of {kind}: expected {expected}, found {reprlib.repr(value)}")
    return value


def _are_taps(value: object) -> bool:
    return value is None or (isinstance(value, list | tuple) and all(type(tap) in (int, float) for tap in value))


# ----------------------------------------------------------------------------------------------------------------------
# Names: for each tensor that we may have, the variable and its conversion

_Names = dict[str, tuple[str, str]]


def _layer(name: str, variable: str, kind: str) -> _Names:
    return {f"{name}.weight": (f"{variable}/weight", kind), f"{name}.bias": (f"{variable}/bias", "copy")}


def _modulated(name: str, variable: str, kind: str) -> _Names:
    """A layer with styles."""
    return _layer(name, variable, kind) | {
        f"{name}.affine.weight": (f"{variable}/mod_weight", "dense"),
        f"{name}.affine.bias": (f"{variable}/mod_bias", "plus_one"),
        f"{name}.noise_strength": (f"{variable}/noise_strength", "copy"),
    }


def _mapping(num_layers: int, embed: str, layers: str) -> _Names:
    names = _layer("mapping.embed", embed, "dense")
    for i in range(num_layers):
        names |= _layer(f"mapping.fc{i}", f"{layers}{i}", "dense")
    return names


def _sizes(resolution: int) -> list[int]:
    return [1 << i for i in range(2, resolution.bit_length())]


def _generator_names(resolution: int, num_layers: int) -> _Names:
    names = _mapping(num_layers, "mapping/LabelEmbed", "mapping/Dense") | {
        "mapping.w_avg": ("dlatent_avg", "copy"),
        "synthesis.b4.const": ("synthesis/4x4/Const/const", "const"),
    }
    convs = [("conv0", "Conv0_up", "conv_up"), ("conv1", "Conv1", "conv")]
    noise_images = (f"synthesis/noise{i}" for i in itertools.count())  # numbered from the first layer to the last
    for res in _sizes(resolution):
        block, folder = f"synthesis.b{res}", f"synthesis/{res}x{res}"
        names |= _layer(f"{block}.skip", f"{folder}/Skip", "conv_up")
        names |= _modulated(f"{block}.torgb", f"{folder}/ToRGB", "conv")
        for layer, word, kind in convs if res > 4 else [("conv1", "Conv", "conv")]:
            names |= _modulated(f"{block}.{layer}", f"{folder}/{word}", kind)
            names[f"{block}.{layer}.noise_const"] = next(noise_images), "noise"
    return names


def _discriminator_names(resolution: int, num_layers: int) -> _Names:
    names = _mapping(num_layers, "LabelEmbed", "Mapping") | _layer("b4.out", "Output", "dense")
    names |= _layer("b4.fc", "4x4/Dense0", "dense") | _layer("b4.conv", "4x4/Conv", "conv")
    for res in _sizes(resolution):
        for layer, word in (("fromrgb", "FromRGB"), ("skip", "Skip"), ("conv0", "Conv0"), ("conv1", "Conv1_down")):
            names |= _layer(f"b{res}.{layer}", f"{res}x{res}/{word}", "conv")
    return names


# ----------------------------------------------------------------------------------------------------------------------
# Tensors


def _filled(cls: type, kwargs: EasyDict, names: _Names, variables: Mapping[str, Any]) -> Any:
    module = blank(cls, kwargs, sum(np.size(value) for value in variables.values() if isinstance(value, np.ndarray)))
    tensors = {}
    for name, tensor in misc.named_params_and_buffers(module):
        if name.endswith("resample_filter"):  # not in the file: as constructed
            tensors[name] = tensor
            continue
        source, kind = names[name]
        if source not in variables:
            raise CheckpointError(f"TensorFlow pickle: variable {source!r} (for {name}) is missing")
        tensors[name] = _converted(source, variables[source], kind, list(tensor.shape))
    fill(module, tensors)
    return module


def _converted(source: str, value: object, kind: str, shape: list[int]) -> torch.Tensor:
    if not isinstance(value, np.ndarray | int | float):
        raise CheckpointError(f"TensorFlow pickle: {source} should be an array, found {reprlib.repr(value)}")
    array = np.asarray(value)
    if array.ndim == _RANKS.get(kind, array.ndim):
        array = _CONVERSIONS[kind](array)
        if list(array.shape) == shape:
            return torch.from_numpy(np.array(array, dtype=np.float32))
    raise CheckpointError(f"TensorFlow pickle: {source} has shape {list(np.shape(value))}, which does not convert "
                          f"to the {shape} that this architecture needs")
