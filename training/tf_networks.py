"""Networks of the TensorFlow StyleGAN2 code base → our Generator and Discriminator.

Both layouts of options (config-f and ADA) are served by one table each; what a table does not know is an error.
"""
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from dnnlib import EasyDict
from torch_utils.checkpoint import CheckpointError, TFNetworkRecord

from . import networks

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
        if version < MINIMUM_VERSION:
            raise CheckpointError(f"TensorFlow pickle version too low: {kind} has version {version}, "
                                  f"StyleGAN2 files have {MINIMUM_VERSION} or more")
        self.values = dict(network.state.get("static_kwargs", {}))
        self.kind = kind
        self.known = set(_UNUSED_OPTIONS[kind])

    def take(self, name: str, default: Any = None, none: Any = None) -> Any:
        """The option's value; `default` if absent, `none` where the stored value is None."""
        self.known.add(name)
        value = self.values.get(name, default)
        return none if value is None else value

    def finish(self) -> None:
        unknown = sorted(self.values.keys() - self.known)
        if unknown:
            raise CheckpointError(f"unknown TensorFlow kwarg {unknown[0]!r} of {self.kind}; "
                                  "this is not a StyleGAN2 network of a kind known here")


def generator_from_tf(network: TFNetworkRecord) -> networks.Generator:
    """Converts a TensorFlow StyleGAN2 generator: options, then every variable.

    Raises:
        CheckpointError: version below 4, an unknown option, or a variable that is missing or of the wrong shape.
    """
    o = _Options(network, "G")
    kwargs = EasyDict(
        z_dim=o.take("latent_size", 512),
        c_dim=o.take("label_size", 0),
        w_dim=o.take("dlatent_size", 512),
        img_resolution=o.take("resolution", 1024),
        img_channels=o.take("num_channels", 3),
        mapping_kwargs=EasyDict(
            num_layers=o.take("mapping_layers", 8),
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
            resample_filter=o.take("resample_kernel", [1, 3, 3, 1]),
            use_noise=o.take("use_noise", True),
            activation=o.take("nonlinearity", "lrelu"),
        ),
    )
    o.finish()
    return _filled(networks.Generator, kwargs, _GENERATOR, network.variables())


def discriminator_from_tf(network: TFNetworkRecord) -> networks.Discriminator:
    """Converts a TensorFlow StyleGAN2 discriminator. Absent options mean what they meant there: no mapping layers,
    and a minibatch-std group of the whole batch.

    Raises:
        CheckpointError: as for the generator.
    """
    o = _Options(network, "D")
    variables = network.variables()
    architecture = o.take("architecture", "resnet")
    resolution = o.take("resolution", 1024)
    if any(name.startswith("FromRGB_lod") for name in variables):  # StyleGAN1-style names of the input layers
        architecture = "orig"
        pattern = re.compile(r"FromRGB_lod(\d+)/(.*)")
        for name in [n for n in variables if pattern.fullmatch(n)]:
            level, rest = pattern.fullmatch(name).groups()  # type: ignore[union-attr]
            res = resolution // 2 ** int(level)
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
            resample_filter=o.take("resample_kernel", [1, 3, 3, 1]),
            freeze_layers=o.take("freeze_layers", 0),
        ),
        mapping_kwargs=EasyDict(
            activation,
            num_layers=o.take("mapping_layers", 0),
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
    with torch.random.fork_rng(devices=[]):  # the random initial weights are all overwritten
        module = cls(**kwargs).eval().requires_grad_(False)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if name.endswith("resample_filter"):
            continue
        source, kind = _tf_name(name, table)
        if source not in variables:
            raise CheckpointError(f"TensorFlow pickle: variable {source!r} (for {name}) is missing")
        value = _CONVERSIONS[kind](np.asarray(variables[source]))
        if value.shape != tuple(tensor.shape):
            raise CheckpointError(f"TensorFlow pickle: {source} has shape {list(value.shape)} once converted, "
                                  f"{name} expects {list(tensor.shape)}")
        tensor.data.copy_(torch.from_numpy(np.array(value, dtype=np.float32)))
    return module


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
