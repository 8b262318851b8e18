"""Networks of the TensorFlow StyleGAN2 code base → our Generator and Discriminator.

Both layouts of options (config-f and ADA) are served by one table each; what a table does not know is an error.
"""
import re
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from dnnlib import EasyDict
from torch_utils import misc
from torch_utils.checkpoint import CheckpointError, TFNetworkRecord

from . import networks
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

# Our name (regular expression), theirs (groups as \1; {noise} is the running number of a layer's noise), conversion.
_SYNTHESIS_LAYERS = [
    (r"synthesis\.b4\.conv1", r"synthesis/4x4/Conv", "conv"),
    (r"synthesis\.b(\d+)\.conv0", r"synthesis/\1x\1/Conv0_up", "conv_up"),
    (r"synthesis\.b(\d+)\.conv1", r"synthesis/\1x\1/Conv1", "conv"),
    (r"synthesis\.b(\d+)\.torgb", r"synthesis/\1x\1/ToRGB", "conv"),
]
_GENERATOR = [
    (r"mapping\.w_avg", r"dlatent_avg", "copy"),
    (r"mapping\.embed\.weight", r"mapping/LabelEmbed/weight", "dense"),
    (r"mapping\.embed\.bias", r"mapping/LabelEmbed/bias", "copy"),
    (r"mapping\.fc(\d+)\.weight", r"mapping/Dense\1/weight", "dense"),
    (r"mapping\.fc(\d+)\.bias", r"mapping/Dense\1/bias", "copy"),
    (r"synthesis\.b4\.const", r"synthesis/4x4/Const/const", "const"),
    (r"synthesis\.b(\d+)\.skip\.weight", r"synthesis/\1x\1/Skip/weight", "conv_up"),
    (r"synthesis\.b(\d+)\.conv([01])\.noise_const", r"synthesis/noise{noise}", "noise"),
]
for _ours, _theirs, _kind in _SYNTHESIS_LAYERS:
    _GENERATOR += [
        (_ours + r"\.weight", _theirs + "/weight", _kind),
        (_ours + r"\.bias", _theirs + "/bias", "copy"),
        (_ours + r"\.noise_strength", _theirs + "/noise_strength", "copy"),
        (_ours + r"\.affine\.weight", _theirs + "/mod_weight", "dense"),
        (_ours + r"\.affine\.bias", _theirs + "/mod_bias", "plus_one"),
    ]
_DISCRIMINATOR = [
    (r"b(\d+)\.fromrgb\.weight", r"\1x\1/FromRGB/weight", "conv"),
    (r"b(\d+)\.fromrgb\.bias", r"\1x\1/FromRGB/bias", "copy"),
    (r"b(\d+)\.conv0\.weight", r"\1x\1/Conv0/weight", "conv"),
    (r"b(\d+)\.conv0\.bias", r"\1x\1/Conv0/bias", "copy"),
    (r"b(\d+)\.conv1\.weight", r"\1x\1/Conv1_down/weight", "conv"),
    (r"b(\d+)\.conv1\.bias", r"\1x\1/Conv1_down/bias", "copy"),
    (r"b(\d+)\.skip\.weight", r"\1x\1/Skip/weight", "conv"),
    (r"mapping\.embed\.weight", r"LabelEmbed/weight", "dense"),
    (r"mapping\.embed\.bias", r"LabelEmbed/bias", "copy"),
    (r"mapping\.fc(\d+)\.weight", r"Mapping\1/weight", "dense"),
    (r"mapping\.fc(\d+)\.bias", r"Mapping\1/bias", "copy"),
    (r"b4\.conv\.weight", r"4x4/Conv/weight", "conv"),
    (r"b4\.conv\.bias", r"4x4/Conv/bias", "copy"),
    (r"b4\.fc\.weight", r"4x4/Dense0/weight", "dense"),
    (r"b4\.fc\.bias", r"4x4/Dense0/bias", "copy"),
    (r"b4\.out\.weight", r"Output/weight", "dense"),
    (r"b4\.out\.bias", r"Output/bias", "copy"),
]


class _Options:
    """A network's static options; remembers which ones were asked for, so that unknown ones stand out."""

    def __init__(self, network: TFNetworkRecord, kind: str) -> None:
        version = network.state.get("version", 0)
        if type(version) is not int or version < MINIMUM_VERSION:
            raise CheckpointError(f"TensorFlow pickle version too low: {kind} has version {reprlib.repr(version)}, "
                                  f"StyleGAN2 files have {MINIMUM_VERSION} or more")
        self.values = dict(network.state.get("static_kwargs") or {})
        self.kind = kind
        self.known = set(_UNUSED_OPTIONS[kind])

    def take(self, name: str, default: Any = None, none: Any = None) -> Any:
        """The option's value; `default` if absent, `none` where the stored value is None."""
        self.known.add(name)
        value = self.values.get(name, default)
        if not isinstance(value, str | int | float | None):
            raise CheckpointError(f"TensorFlow kwarg {name!r} of {self.kind}: expected a number, a name or None, "
                                  f"found {reprlib.repr(value)}")
        return none if value is None else value

    def take_resolution(self) -> int:
        """The image size, a power of two within reason."""
        size = self.take("resolution", 1024)
        if type(size) is not int or not 4 <= size <= MAX_RESOLUTION or size & (size - 1):
            raise CheckpointError(f"TensorFlow kwarg 'resolution' of {self.kind}: expected a power of two "
                                  f"from 4 to {MAX_RESOLUTION}, found {size!r}")
        return size

    def take_filter(self) -> list[float] | None:
        """The taps of the resampling filter."""
        self.known.add("resample_kernel")
        taps = self.values.get("resample_kernel", [1, 3, 3, 1])
        if isinstance(taps, np.ndarray):
            taps = taps.tolist()
        if taps is None or (isinstance(taps, list | tuple) and all(type(tap) in (int, float) for tap in taps)):
            return taps if taps is None else list(taps)
        raise CheckpointError(f"TensorFlow kwarg 'resample_kernel' of {self.kind}: expected a list of numbers, "
                              f"found {reprlib.repr(taps)}")

    def take_layers(self, name: str, default: int, variables: Mapping[str, Any]) -> int:
        """A number of layers, each of which needs variables."""
        count = self.take(name, default)
        if type(count) is not int or not 0 <= count <= len(variables):
            raise CheckpointError(f"TensorFlow kwarg {name!r} of {self.kind}: expected a number of layers, "
                                  f"found {count!r}; the file has {len(variables)} variables")
        return count

    def finish(self) -> None:
        unknown = sorted(str(name) for name in self.values.keys() - self.known)
        if unknown:
            raise CheckpointError(f"unknown TensorFlow kwarg {unknown[0]!r} of {self.kind}; "
                                  "this is not a StyleGAN2 network of a kind known here")


def generator_from_tf(network: TFNetworkRecord) -> networks.Generator:
    """Converts a TensorFlow StyleGAN2 generator: options, then every variable.

    Raises:
        CheckpointError: version below 4, an unknown option, or a variable that is missing or of the wrong shape.
    """
    o = _Options(network, "G")
    variables = network.variables()
    kwargs = EasyDict(
        z_dim=o.take("latent_size", 512),
        c_dim=o.take("label_size", 0),
        w_dim=o.take("dlatent_size", 512),
        img_resolution=o.take_resolution(),
        img_channels=o.take("num_channels", 3),
        mapping_kwargs=EasyDict(
            num_layers=o.take_layers("mapping_layers", 8, variables),
            embed_features=o.take("label_fmaps"),
            layer_features=o.take("mapping_fmaps"),
            activation=o.take("mapping_nonlinearity", "lrelu"),
            lr_multiplier=o.take("mapping_lrmul", 0.01),
            w_avg_beta=o.take("w_avg_beta", 0.995, none=1),
        ),
        synthesis_kwargs=EasyDict(
            channel_base=o.take("fmap_base", 16384) * 2,
            channel_max=o.take("fmap_max", 512),
            num_fp16_res=o.take("num_fp16_res", 0),
            conv_clamp=o.take("conv_clamp"),
            architecture=o.take("architecture", "skip"),
            resample_filter=o.take_filter(),
            use_noise=o.take("use_noise", True),
            activation=o.take("nonlinearity", "lrelu"),
        ),
    )
    o.finish()
    return _filled(networks.Generator, kwargs, _GENERATOR, variables)


def discriminator_from_tf(network: TFNetworkRecord) -> networks.Discriminator:
    """Converts a TensorFlow StyleGAN2 discriminator. Absent options mean what they meant there: no mapping layers,
    and a minibatch-std group of the whole batch.

    Raises:
        CheckpointError: as for the generator.
    """
    o = _Options(network, "D")
    variables = network.variables()
    architecture = o.take("architecture", "resnet")
    resolution = o.take_resolution()
    if any(name.startswith("FromRGB_lod") for name in variables):  # StyleGAN1-style names of the input layers
        architecture = "orig"
        pattern = re.compile(r"FromRGB_lod(\d+)/(.*)")
        for name in [n for n in variables if pattern.fullmatch(n)]:
            level, rest = pattern.fullmatch(name).groups()  # type: ignore[union-attr]
            res = resolution >> int(level)
            variables[f"{res}x{res}/FromRGB/{rest}"] = variables[name]
    activation = EasyDict(activation=o.take("nonlinearity", "lrelu"))
    features = o.take("mapping_fmaps")
    kwargs = EasyDict(
        c_dim=o.take("label_size", 0),
        img_resolution=resolution,
        img_channels=o.take("num_channels", 3),
        architecture=architecture,
        channel_base=o.take("fmap_base", 16384) * 2,
        channel_max=o.take("fmap_max", 512),
        num_fp16_res=o.take("num_fp16_res", 0),
        conv_clamp=o.take("conv_clamp"),
        cmap_dim=features,
        block_kwargs=EasyDict(
            activation,
            resample_filter=o.take_filter(),
            freeze_layers=o.take("freeze_layers", 0),
        ),
        mapping_kwargs=EasyDict(
            activation,
            num_layers=o.take_layers("mapping_layers", 0, variables),
            embed_features=features,
            layer_features=features,
            lr_multiplier=o.take("mapping_lrmul", 0.1),
        ),
        epilogue_kwargs=EasyDict(
            activation,
            mbstd_group_size=o.take("mbstd_group_size"),
            mbstd_num_channels=o.take("mbstd_num_features", 1),
        ),
    )
    o.finish()
    return _filled(networks.Discriminator, kwargs, _DISCRIMINATOR, variables)


def _filled(cls: type, kwargs: EasyDict, table: list[tuple[str, str, str]], variables: dict[str, Any]) -> Any:
    module = blank(cls, kwargs, sum(np.size(value) for value in variables.values() if isinstance(value, np.ndarray)))
    tensors = {}
    for name, tensor in misc.named_params_and_buffers(module):
        if name.endswith("resample_filter"):  # not in the file: as constructed
            tensors[name] = tensor
            continue
        source, kind = _tf_name(name, table)
        if source not in variables:
            raise CheckpointError(f"TensorFlow pickle: variable {source!r} (for {name}) is missing")
        tensors[name] = _converted(source, variables[source], kind, list(tensor.shape))
    fill(module, tensors)
    return module


def _converted(source: str, value: Any, kind: str, shape: list[int]) -> torch.Tensor:
    if not isinstance(value, np.ndarray | int | float):
        raise CheckpointError(f"TensorFlow pickle: {source} should be an array, found {reprlib.repr(value)}")
    array = np.asarray(value)
    if array.ndim == _RANKS.get(kind, array.ndim):
        array = _CONVERSIONS[kind](array)
        if list(array.shape) == shape:
            return torch.from_numpy(np.array(array, dtype=np.float32))
    raise CheckpointError(f"TensorFlow pickle: {source} has shape {list(np.shape(value))}, which does not convert "
                          f"to the {shape} that this architecture needs")


def _tf_name(name: str, table: list[tuple[str, str, str]]) -> tuple[str, str]:
    for ours, theirs, kind in table:
        match = re.fullmatch(ours, name)
        if match:
            return match.expand(theirs.replace("{noise}", str(_noise_index(name)))), kind
    raise CheckpointError(f"TensorFlow pickle: no rule for {name}")


def _noise_index(name: str) -> int:
    """noise0 belongs to 4x4; every higher resolution has two, conv0's first."""
    match = re.search(r"b(\d+)\.conv([01])\.", name)
    if match is None:
        return 0
    res, conv = int(match[1]), int(match[2])
    return 2 * (res.bit_length() - 1) - 5 + conv
