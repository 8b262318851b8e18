"""Channel sets and slicing rules of BigGAN networks (arXiv:1809.11096).

Sets: the trunk before the first block and after every block, every block's hidden channels, and the two
inner widths of every attention. A discriminator's block without projection passes its trunk on, so that its output
belongs to the set of its input. Public networks have hidden widths equal to those of a trunk, and attention widths of
an eighth and half of a trunk's; others cannot be written down, so `Plan.fit` ties the widths, not the channels.

Spectral normalisation divides by a singular value of what is left, not of the teacher's weight, and batch statistics
change with it: both are re-estimated after slicing (docs/adr/0008-biggan-slices.md).
"""
import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from dnnlib.errors import UserError
from torch_utils.network_types import Discriminator, Network
from training.biggan.estimates import refine_singular_vectors, standing_statistics
from training.biggan.layout import width_options
from training.networks_biggan import (
    DISCRIMINATOR_STREAMS,
    GENERATOR_STREAMS,
    ConditionalBatchNorm,
    Conv2d,
    Linear,
    SelfAttention,
)

from ..macs import LayerCost
from ..plan import Axis, Consumer, Plan, Rule

BOTTOM_PIXELS = 16  # entries of the first dense layer per channel
MIN_ATTENDED = 8  # channels that self-attention needs
STATISTICS_BATCH = 32  # samples that batch statistics are taken of, as one GPU had in the paper's training
STATISTICS_PASSES = 16
POWER_ITERATIONS = 100
_TABLES = {"G": GENERATOR_STREAMS, "D": DISCRIMINATOR_STREAMS}


class _Draft:
    """A plan in the making."""

    def __init__(self, network: Network) -> None:
        if network.options["model"] != "BigGAN":
            raise UserError(f"a {network.options['model']} cannot be made narrower: its shortcuts tie the channels "
                            "of all blocks")
        self.network = network
        self.tensors = network.state_dict()
        self.sets: dict[str, int] = {}
        self.rules: dict[str, Rule] = {}
        self.consumers: dict[str, list[Consumer]] = {}
        self.shares: dict[str, tuple[str, int]] = {}  # set → (trunk set that determines its width, divisor)
        self.attended: set[str] = set()  # trunks with attention

    def add_set(self, name: str, size: int) -> str:
        self.sets[name] = size
        self.consumers[name] = []
        return name

    def cut(self, tensor: str, axes: dict[int, Axis]) -> None:
        """A rule for a tensor, or a further axis of it."""
        if tensor in self.tensors:
            known = self.rules[tensor].axes if tensor in self.rules else {}
            self.rules[tensor] = Rule({**known, **axes})

    def writes(self, layer: str, output: str, repeat: int = 1) -> None:
        """The outputs of a layer are a set: rows of the weight, bias, and singular vectors."""
        axis = Axis(output, repeat)
        self.cut(f"{layer}.weight", {0: axis})
        self.cut(f"{layer}.bias", {0: axis})
        for i in range(getattr(self.network.get_submodule(layer), "num_svs", 0)):
            self.cut(f"{layer}.u{i}", {1: axis})

    def reads(self, layer: str, source: str, output: str | None) -> None:
        """The inputs of a layer are a set."""
        self.cut(f"{layer}.weight", {1: Axis(source)})
        self.consumers[source].append(Consumer(layer, output))

    def norm(self, layer: str, trunk: str) -> None:
        """A conditional norm, or the output layer's."""
        for name in ("stored_mean", "stored_var", "gain", "bias"):
            self.cut(f"{layer}.{name}", {0: Axis(trunk)})
        if isinstance(self.network.get_submodule(layer), ConditionalBatchNorm):
            for name in (f"{layer}.gain", f"{layer}.bias"):
                if isinstance(self.network.get_submodule(name), Linear):
                    self.writes(name, trunk)
                else:  # an embedding holds a row per class
                    self.cut(f"{name}.weight", {1: Axis(trunk)})

    def attention(self, layer: str, trunk: str) -> None:
        """Queries and keys share a set that nothing but they themselves reads."""
        qk, v = (self.add_set(f"{layer}.{name}", self.tensors[f"{layer}.{part}.weight"].shape[0])
                 for name, part in (("qk", "theta"), ("v", "g")))
        for part, output in (("theta", qk), ("phi", qk), ("g", v)):
            self.writes(f"{layer}.{part}", output)
            self.reads(f"{layer}.{part}", trunk, output)
        self.consumers[qk] += [Consumer(f"{layer}.{part}", None, axis=0) for part in ("theta", "phi")]
        self.reads(f"{layer}.o", v, trunk)
        self.writes(f"{layer}.o", trunk)
        self.shares.update({qk: (trunk, 8), v: (trunk, 2)})
        self.attended.add(trunk)

    def fit(self, requested: Mapping[str, int]) -> dict[str, int]:
        """Hidden and attention widths follow their trunks."""
        widths = dict(requested)
        for trunk in self.attended:
            widths[trunk] = max(widths[trunk], MIN_ATTENDED)
        for name, (trunk, divisor) in self.shares.items():
            widths[name] = widths[trunk] // divisor
        return widths

    def plan(self, kind: str, trunks: Sequence[str], reestimate: Callable[[Any], None]) -> Plan:
        """The finished plan; `trunks` in the order of the constructor's list of widths."""
        network, names = self.network, list(self.sets)

        def build(widths: Sequence[int]) -> Any:
            by_name = dict(zip(names, widths, strict=True))
            if self.fit(by_name) != by_name:
                raise ValueError(f"expected widths that a BigGAN can have, such as {self.fit(by_name)}, "
                                 f"found {by_name}")
            options = {key: value for key, value in network.options.items() if key != f"{kind}_channels"}
            options |= width_options(kind, [by_name[trunk] for trunk in trunks], network.img_resolution, _TABLES[kind])
            return type(network)(**options)

        return Plan(self.sets, self.rules, self.consumers, build, lambda z, c, batch: _applied(network, z, c, batch),
                    self.fit, reestimate)


def generator_plan(G: Any) -> Plan:
    """The plan of a BigGAN generator of any size.

    Raises:
        UserError: a BigGAN-deep.
    """
    draft = _Draft(G)
    trunk = draft.add_set("stream0", len(draft.tensors["linear.bias"]) // BOTTOM_PIXELS)
    draft.writes("linear", trunk, repeat=BOTTOM_PIXELS)
    trunks = [trunk]
    for i, stage in enumerate(G.blocks):
        block, before = f"blocks.{i}.0", trunk
        hidden = draft.add_set(f"{block}.hidden", len(draft.tensors[f"{block}.conv1.bias"]))
        trunk = draft.add_set(f"stream{i + 1}", len(draft.tensors[f"{block}.conv2.bias"]))
        draft.norm(f"{block}.bn1", before)
        draft.norm(f"{block}.bn2", hidden)
        for conv, source, output in (("conv1", before, hidden), ("conv2", hidden, trunk), ("conv_sc", before, trunk)):
            draft.reads(f"{block}.{conv}", source, output)
            draft.writes(f"{block}.{conv}", output)
        draft.shares[hidden] = (trunk, 1)
        if len(stage) > 1:
            draft.attention(f"blocks.{i}.1", trunk)
        trunks.append(trunk)
    draft.norm("output_layer.0", trunk)
    draft.reads("output_layer.2", trunk, None)

    def reestimate(network: Any) -> None:
        training = network.training
        refine_singular_vectors(network, POWER_ITERATIONS)
        generator = torch.Generator().manual_seed(0)
        standing_statistics(network, STATISTICS_BATCH, STATISTICS_PASSES, generator)
        network.train(training)

    return draft.plan("G", trunks, reestimate)


def discriminator_plan(D: Discriminator) -> Plan:
    """The plan of a BigGAN discriminator of any size.

    Raises:
        UserError: a BigGAN-deep.
    """
    draft = _Draft(D)
    before, trunks = "", []  # the first block reads image channels, which are no set
    for i, stage in enumerate(D.blocks):
        block = f"blocks.{i}.0"
        width = len(draft.tensors[f"{block}.conv1.bias"])
        has_projection = f"{block}.conv_sc.weight" in draft.tensors
        hidden = draft.add_set(f"{block}.hidden", width) if D.options["D_wide"] or before else ""
        trunk = before
        if has_projection:
            trunk = draft.add_set(f"stream{i}", len(draft.tensors[f"{block}.conv2.bias"]))
        layers = [("conv1", before, hidden), ("conv2", hidden, trunk)]
        for conv, source, output in [*layers, *([("conv_sc", before, trunk)] if has_projection else [])]:
            if source:
                draft.reads(f"{block}.{conv}", source, output)
            if output:
                draft.writes(f"{block}.{conv}", output)
        if hidden:
            draft.shares[hidden] = (trunk if D.options["D_wide"] else before, 1)
        if len(stage) > 1:
            draft.attention(f"blocks.{i}.1", trunk)
        trunks.append(trunk)
        before = trunk
    for layer in ("linear", "embed"):
        draft.reads(layer, before, None)
    return draft.plan("D", trunks, lambda network: refine_singular_vectors(network, POWER_ITERATIONS))


def _applied(
    network: Any, z: torch.Tensor | None, c: Any, batch: int
) -> Callable[[str, torch.Tensor], torch.Tensor]:
    """Magnitudes as layers apply them (`dgl.plan.Applied`): spectrally normalised, times the mean gain of the norm in
    front of a layer over its deviation, and within attention times its weight gamma.
    """
    net = copy.deepcopy(network).eval()
    gains = {} if z is None else _norm_gains(net, z, c, batch)

    def applied(name: str, magnitude: torch.Tensor) -> torch.Tensor:
        layer = net.get_submodule(name)
        weight = layer.normalized_weight()
        total = magnitude.sum(dim=0) * (weight.double().norm() / layer.weight.double().norm().clamp_min(1e-30))
        parent = net.get_submodule(name.rpartition(".")[0])
        if isinstance(parent, SelfAttention):
            total = total * parent.gamma.double().abs()
        return total * gains.get(name, 1.0)

    return applied


def _norm_gains(G: Any, z: torch.Tensor, c: torch.Tensor, batch: int) -> dict[str, torch.Tensor]:
    """Convolution behind a norm → mean |gain| / standard deviation of its inputs over latents, [C] float64."""
    norm = G.output_layer.get_submodule("0")
    gains = {"output_layer.2": norm.gain.double().abs() / (norm.stored_var.double() + norm.eps).sqrt()}
    for zs, cs in zip(z.split(batch), c.split(batch)):
        _, conditions = G.conditions(zs, cs)
        for i, y in enumerate(conditions):
            for number in (1, 2):
                norm = G.get_submodule(f"blocks.{i}.0.bn{number}")
                deviation = (norm.stored_var.double() + norm.eps).sqrt()
                share = (1 + norm.gain(y)).double().abs().sum(dim=0) / deviation / len(z)
                name = f"blocks.{i}.0.conv{number}"
                gains[name] = gains[name] + share if name in gains else share
    return gains


def layer_costs(network: Any) -> list[LayerCost]:
    """Multiply-accumulates of every layer with weights, and of the products within attention, for one image.

    Up-sampling comes before the convolutions, shortcuts included, so both conventions are the same here. Spectral
    normalisation, embeddings, norms, activations and pooling do not count.
    """
    net = copy.deepcopy(network).eval().requires_grad_(False).to("meta")
    names = {module: name for name, module in net.named_modules()}
    costs: dict[str, int] = {}

    def note(module: Any, inputs: object, output: torch.Tensor) -> None:
        if isinstance(module, Conv2d):
            macs = module.weight.numel() * output.shape[2] * output.shape[3]
        elif isinstance(module, Linear):
            macs = module.weight.numel()
        else:
            pixels = output.shape[2] * output.shape[3]
            macs = pixels * (pixels // 4) * (module.phi.out_channels + module.g.out_channels)
        costs[names[module]] = macs

    for module in names:
        if isinstance(module, Conv2d | Linear | SelfAttention):
            module.register_forward_hook(note)
    label = torch.zeros([1], dtype=torch.int64, device="meta")
    size = [1, net.z_dim] if hasattr(net, "z_dim") else [1, net.img_channels, net.img_resolution, net.img_resolution]
    with torch.no_grad():
        net(torch.zeros(size, device="meta"), label)
    return [LayerCost(name, macs, macs) for name, macs in costs.items()]
