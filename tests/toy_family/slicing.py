"""How toy networks are cut and counted: their one hidden layer is the only set of channels."""
from collections.abc import Sequence
from typing import Any

import torch

from dgl.macs import LayerCost
from dgl.plan import Axis, Consumer, Plan, Rule


def generator_plan(network: Any) -> Plan:
    """The plan of a generator or discriminator."""
    rules = {
        "hidden.weight": Rule({0: Axis("hidden")}),
        "hidden.bias": Rule({0: Axis("hidden")}),
        "out.weight": Rule({1: Axis("hidden")}),
    }

    def build(widths: Sequence[int]) -> torch.nn.Module:
        return type(network)(**{**network.init_kwargs, "width": widths[0]})

    def applied(z: Any, c: Any, batch: int) -> Any:
        return lambda layer, magnitude: magnitude.double().sum(dim=0)

    return Plan({"hidden": len(network.hidden.weight)}, rules, {"hidden": [Consumer("out", None)]}, build, applied)


discriminator_plan = generator_plan


def layer_costs(network: Any) -> list[LayerCost]:
    """Multiply-accumulates of both layers."""
    return [LayerCost(name, n, n) for name in ("hidden", "out") for n in [getattr(network, name).weight.numel()]]
