"""Channel sets and slicing rules of StyleGAN3 generators (Karras et al. 2021, arXiv:2106.12423).

Sets: the Fourier features, the channels that the input layer makes of them, and every layer's output. The input layer's
weight is dense, so features and channels are chosen by scores of their own, but a network has as many of both. Filters,
sizes and sampling rates do not depend on widths, so equivariance survives. The stored magnitudes of the layers' inputs
are kept: where channels that do nothing are removed, the images stay the same. Image channels, latents and mapping are
never cut. The discriminator is that of StyleGAN2.
"""
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from torch_utils.network_types import Network
from training.networks_stylegan3 import FullyConnectedLayer, Generator, SynthesisInput, SynthesisLayer
from training.stylegan3.alignment import without_width
from training.stylegan3.widths import width_arguments

from ..macs import LayerCost
from ..plan import Axis, Consumer, Plan, Rule

_FEATURES, _INPUT = "features", "input"


def generator_plan(G: Any) -> Plan:
    """The plan of a StyleGAN3 generator of any size."""
    sets = {_FEATURES: len(G.synthesis.input.freqs), _INPUT: len(G.synthesis.input.weight)}
    rules = {
        "synthesis.input.weight": Rule({0: Axis(_INPUT), 1: Axis(_FEATURES)}, fan_in_gain=True),
        "synthesis.input.freqs": Rule({0: Axis(_FEATURES)}),
        "synthesis.input.phases": Rule({0: Axis(_FEATURES)}),
    }
    consumers = {_FEATURES: [Consumer("synthesis.input", _INPUT)]}
    previous = _INPUT
    layers = [G.synthesis.get_submodule(name) for name in G.synthesis.layer_names]
    for i, (name, layer) in enumerate(zip(G.synthesis.layer_names, layers)):
        path, output = f"synthesis.{name}", None if layer.is_torgb else f"L{i}"
        axes = {1: Axis(previous)} if output is None else {0: Axis(output), 1: Axis(previous)}
        rules[f"{path}.weight"] = Rule(axes, fan_in_gain=output is None)  # demodulation cancels the gain elsewhere
        for tensor in ("affine.weight", "affine.bias"):
            rules[f"{path}.{tensor}"] = Rule({0: Axis(previous)})
        consumers[previous] = [Consumer(path, output)]
        if output is not None:
            sets[output] = len(layer.weight)
            rules[f"{path}.bias"] = Rule({0: Axis(output)})
            previous = output
    cutoffs = [layer.out_cutoff for layer in layers[:-1]]

    def build(widths: Sequence[int]) -> Generator:
        if widths[0] != widths[1]:
            raise ValueError(f"expected as many features as input channels, found {widths[0]} and {widths[1]}")
        dropped = ("channel_base", "channel_max", "layer_channels", "synthesis_kwargs")
        arguments = {key: value for key, value in G.init_kwargs.items() if key not in dropped}
        nested = {key: value for key, value in G.init_kwargs.get("synthesis_kwargs", {}).items() if key not in dropped}
        shape = {key: getattr(G, key) for key in ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")}
        return Generator(**{**arguments, **nested, **shape, **width_arguments(cutoffs, widths[1:])})

    return Plan(sets, rules, consumers, build, lambda z, c, batch: _applied(G, z, c, batch), _fit,
                stable_name=without_width)


def _fit(wished: Mapping[str, int]) -> dict[str, int]:
    """As many features as channels of the input layer."""
    return {**wished, _FEATURES: wished[_INPUT]}


def _applied(
    G: Any, z: torch.Tensor | None, c: torch.Tensor | None, batch: int
) -> Callable[[str, torch.Tensor], torch.Tensor]:
    """Magnitudes as layers apply them (`dgl.plan.Applied`): modulated by the styles of latents, and demodulated."""
    ws = G.mapping(z, c)[:, 0]

    def applied(name: str, magnitude: torch.Tensor) -> torch.Tensor:
        layer = G.get_submodule(name)
        if isinstance(layer, SynthesisInput):
            return magnitude.sum(dim=0) / magnitude.shape[1] ** 0.5
        energy = layer.weight.square().sum(dim=[2, 3]).double()  # [O, I]
        total = torch.zeros_like(magnitude[0])
        for w in ws.split(batch):
            styles = layer.affine(w).double()  # [n, I]
            if layer.is_torgb:
                total += styles.abs().sum(dim=0) * magnitude.sum(dim=0) / layer.in_channels**0.5
            else:
                demodulation = (styles.square() @ energy.t() + 1e-8).rsqrt()  # [n, O]
                total += (styles.abs() * (demodulation @ magnitude)).sum(dim=0)
        return total * layer.magnitude_ema.double().rsqrt() / len(ws)

    return applied


def layer_costs(network: Network) -> list[LayerCost]:
    """Multiply-accumulates of every layer with weights, for one image.

    Convolutions, which run at the rate of their input before any resampling, so that both conventions are the same; the
    input layer (its dense map, and two products per feature and position); affine layers and the mapping network.
    Filters do not count (`filter_macs` has those), nor do modulation, demodulation, bias and activation.
    """
    costs = []
    for name, module in network.named_modules():
        layer: Any = module
        if isinstance(module, FullyConnectedLayer):
            macs = layer.weight.numel()
        elif isinstance(module, SynthesisInput):
            macs = (layer.weight.numel() + 2 * len(layer.freqs)) * layer.size[0] * layer.size[1]
        elif isinstance(module, SynthesisLayer):
            sides = [side + layer.conv_kernel - 1 for side in layer.in_size]
            macs = layer.weight.numel() * sides[0] * sides[1]
        else:
            continue
        costs.append(LayerCost(name, macs, macs))
    return costs


def filter_macs(G: Any) -> int:
    """Multiply-accumulates of the filters of a generator for one image, without those by inserted zeros."""
    total = 0
    for name in G.synthesis.layer_names:
        layer = G.synthesis.get_submodule(name)
        if layer.is_torgb:
            continue
        source, out = layer.in_size[0] + layer.conv_kernel - 1, layer.out_size[0]
        between = (out - 1) * layer.down_factor + layer.down_taps  # side at the rate of the nonlinearity
        total += layer.out_channels * layer.up_taps // layer.up_factor * (source * between + between**2)
        if layer.down_radial:
            total += layer.out_channels * layer.down_taps**2 * out**2
        else:
            total += layer.out_channels * layer.down_taps * (between * out + out**2)
    return total
