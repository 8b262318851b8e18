"""Channel sets and slicing rules of StyleGAN2 networks.

Generator: set 0 is the constant, one further set for every convolution's output (Liu et al. 2021, arXiv:2104.02244,
section 3). Discriminator: the first block's input, then every convolution's output, then b4.fc's. Where a block adds a
shortcut, the shortcut's output belongs to the same set as the convolution's. Mapping, latents, noise, resampling
filters and image channels are never cut.
"""
from collections.abc import Callable, Sequence
from typing import Any

import torch

from dnnlib import EasyDict
from dnnlib.errors import UserError
from torch_utils.network_types import Network
from training.checkpoints import widths as stock
from training.checkpoints.stylegan2 import synthesis_options, with_synthesis_options
from training.networks import (
    Conv2dLayer,
    Discriminator,
    FullyConnectedLayer,
    Generator,
    SynthesisLayer,
    ToRGBLayer,
)

from ..macs import LayerCost
from ..plan import Axis, Consumer, Plan, Rule


def _named(names: Sequence[str], sizes: Sequence[int]) -> dict[str, int]:
    return dict(zip(names, sizes, strict=True))


def _width_arguments(img_resolution: int, widths: Sequence[int], discriminator: bool) -> dict[str, Any]:
    """Stock arguments where a stock network has these widths, else the list of widths."""
    return stock.stock_arguments(img_resolution, widths, discriminator) or {"layer_channels": list(widths)}


def _without_widths(kwargs: dict[str, Any]) -> EasyDict:
    return EasyDict({k: v for k, v in kwargs.items() if k not in ("channel_base", "channel_max", "layer_channels")})


def generator_plan(G: Any) -> Plan:
    """The plan of a StyleGAN2 generator of any architecture and size."""
    tensors = {**dict(G.named_parameters()), **dict(G.named_buffers())}
    names, sizes = ["b4.const"], [G.synthesis.b4.const.shape[0]]
    rules = {"synthesis.b4.const": Rule({0: Axis("b4.const")})}
    consumers: dict[str, list[Consumer]] = {}
    previous = "b4.const"
    for res in G.synthesis.block_resolutions:
        block_input = previous
        for conv in ("conv0", "conv1") if res > 4 else ("conv1",):
            layer, this = f"synthesis.b{res}.{conv}", f"b{res}.{conv}"
            names.append(this)
            sizes.append(tensors[f"{layer}.weight"].shape[0])
            rules.update(_modulated(layer, previous, Axis(this)))
            consumers.setdefault(previous, []).append(Consumer(layer, this))
            previous = this
        if f"synthesis.b{res}.torgb.weight" in tensors:
            layer = f"synthesis.b{res}.torgb"
            rules.update(_modulated(layer, previous, None))
            consumers.setdefault(previous, []).append(Consumer(layer, None))
        if f"synthesis.b{res}.skip.weight" in tensors:
            layer = f"synthesis.b{res}.skip"
            rules[f"{layer}.weight"] = Rule({0: Axis(previous), 1: Axis(block_input)}, fan_in_gain=True)
            consumers[block_input].append(Consumer(layer, previous))

    def build(widths: Sequence[int]) -> Generator:
        kwargs = G.init_kwargs
        options = _without_widths(synthesis_options(kwargs))
        options.update(_width_arguments(G.img_resolution, widths, discriminator=False))
        sizes = {name: getattr(G, name) for name in ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")}
        return Generator(**with_synthesis_options({**kwargs, **sizes}, options))

    return Plan(_named(names, sizes), rules, consumers, build, lambda z, c, batch: _applied(G, z, c, batch))


def _modulated(layer: str, source: str, output: Axis | None) -> dict[str, Rule]:
    """Rules of a modulated convolution; without demodulation (torgb, no output set) the gain must be corrected."""
    axes = {1: Axis(source)} if output is None else {0: output, 1: Axis(source)}
    rules = {
        f"{layer}.weight": Rule(axes, fan_in_gain=output is None),
        f"{layer}.affine.weight": Rule({0: Axis(source)}),
        f"{layer}.affine.bias": Rule({0: Axis(source)}),
    }
    if output is not None:
        rules[f"{layer}.bias"] = Rule({0: output})
    return rules


def discriminator_plan(D: Any) -> Plan:
    """The plan of a StyleGAN2 discriminator of any architecture and size."""
    tensors = {**dict(D.named_parameters()), **dict(D.named_buffers())}
    top = f"b{D.img_resolution}"
    names, sizes = [f"{top}.in"], [D.b4.in_channels]
    rules: dict[str, Rule] = {}
    consumers: dict[str, list[Consumer]] = {}
    previous = names[0]

    def connect(layer: str, source: Axis | None, output: str | None) -> None:
        """Rules of an ordinary layer; its weight's axis 1 reads `source`, its axis 0 is `output`."""
        axes = ({} if output is None else {0: Axis(output)}) | ({} if source is None else {1: source})
        rules[f"{layer}.weight"] = Rule(axes, fan_in_gain=source is not None)
        if output is not None and f"{layer}.bias" in tensors:
            rules[f"{layer}.bias"] = Rule({0: Axis(output)})
        if source is not None:
            consumers.setdefault(source.set_name, []).append(Consumer(layer, output))

    for res in D.block_resolutions:
        block = f"b{res}"
        if f"{block}.fromrgb.weight" in tensors:
            connect(f"{block}.fromrgb", None, previous)
        block_input = previous
        for conv in ("conv0", "conv1"):
            names.append(f"{block}.{conv}")
            sizes.append(tensors[f"{block}.{conv}.weight"].shape[0])
            connect(f"{block}.{conv}", Axis(previous), names[-1])
            previous = names[-1]
        if f"{block}.skip.weight" in tensors:
            connect(f"{block}.skip", Axis(block_input), previous)
    if D.block_resolutions:
        sizes[0] = tensors[f"{top}.conv0.weight"].shape[1]
    if "b4.fromrgb.weight" in tensors:
        connect("b4.fromrgb", None, previous)
    names += ["b4.conv", "b4.fc"]
    sizes += [tensors["b4.conv.weight"].shape[0], tensors["b4.fc.weight"].shape[0]]
    num_statistics = tensors["b4.conv.weight"].shape[1] - sizes[-3]  # channels of the minibatch standard deviation
    connect("b4.conv", Axis(previous, extra=num_statistics), "b4.conv")
    positions = tensors["b4.fc.weight"].shape[1] // tensors["b4.conv.weight"].shape[0]
    connect("b4.fc", Axis("b4.conv", repeat=positions), "b4.fc")
    connect("b4.out", Axis("b4.fc"), None)

    def build(widths: Sequence[int]) -> Discriminator:
        kwargs = _without_widths(D.init_kwargs)
        kwargs.update({name: getattr(D, name) for name in ("c_dim", "img_resolution", "img_channels")})
        if num_statistics and widths[-3] % num_statistics:
            raise UserError(f"this discriminator has a minibatch standard deviation of {num_statistics} "
                            f"channels, which do not divide the {widths[-3]} channels left before it", field="d_width")
        if D.c_dim > 0:
            kwargs.cmap_dim = D.b4.cmap_dim
        return Discriminator(**kwargs, **_width_arguments(D.img_resolution, widths, discriminator=True))

    return Plan(_named(names, sizes), rules, consumers, build, lambda z, c, batch: _applied(D, z, c, batch))


def _applied(
    network: Any, z: torch.Tensor | None, c: torch.Tensor | None, batch: int
) -> Callable[[str, torch.Tensor], torch.Tensor]:
    """Magnitudes as layers apply them (`dgl.plan.Applied`): modulated by the styles of latents, and demodulated."""
    ws = None if z is None else network.mapping(z, c, skip_w_avg_update=True)[:, 0]

    def applied(name: str, magnitude: torch.Tensor) -> torch.Tensor:
        layer = network.get_submodule(name)
        if not isinstance(layer, SynthesisLayer | ToRGBLayer):
            return magnitude.sum(dim=0) * layer.weight_gain
        assert ws is not None
        energy = layer.weight.square().sum(dim=[2, 3]).double()  # [O, I]
        total = torch.zeros_like(magnitude[0])
        for w in ws.split(batch):
            styles = layer.affine(w).double()  # [n, I]
            if isinstance(layer, ToRGBLayer):
                total += styles.abs().sum(dim=0) * magnitude.sum(dim=0) * layer.weight_gain
            else:
                demodulation = (styles.square() @ energy.t() + 1e-8).rsqrt()  # [n, O]
                total += (styles.abs() * (demodulation @ magnitude)).sum(dim=0)
        return total / len(ws)

    return applied


def layer_costs(network: Network) -> list[LayerCost]:
    """Multiply-accumulates of every layer with weights, for one image.

    Convolutions, torgb, affine layers, the mapping network and dense layers count; resampling filters, demodulation,
    noise, bias and activation do not.
    """
    costs = []
    for name, module in network.named_modules():
        layer: Any = module
        if isinstance(module, FullyConnectedLayer):
            costs.append(LayerCost(name, layer.weight.numel(), layer.weight.numel()))
        elif isinstance(module, SynthesisLayer | ToRGBLayer | Conv2dLayer):
            pixels, weights = _output_pixels(network, name, layer), layer.weight.numel()
            costs.append(LayerCost(name, weights * (pixels // getattr(layer, "up", 1) ** 2), weights * pixels))
    return costs


def _output_pixels(network: Any, name: str, layer: torch.nn.Module) -> int:
    """The number of pixels of a convolution's output; the block that holds it knows its own longer side."""
    block: Any = network.get_submodule(name.rpartition(".")[0])
    side = block.resolution // getattr(layer, "down", 1)
    height, width = (side * length // network.img_resolution for length in network.img_size)
    return height * width
