"""The kinds of networks that can be sliced: one file each, found by the network's class name."""
from collections.abc import Callable

import torch

from dnnlib.util import UserError

from ..plan import LayerCost, Plan
from . import biggan, stylegan2

_PLANS: dict[str, Callable[[torch.nn.Module], Plan]] = {
    "Generator": stylegan2.generator_plan,
    "Discriminator": stylegan2.discriminator_plan,
    "BigGANGenerator": biggan.generator_plan,
    "BigGANDiscriminator": biggan.discriminator_plan,
}

_COSTS: dict[str, Callable[[torch.nn.Module], list[LayerCost]]] = {
    "Generator": stylegan2.layer_costs,
    "Discriminator": stylegan2.layer_costs,
    "BigGANGenerator": biggan.layer_costs,
    "BigGANDiscriminator": biggan.layer_costs,
}


def plan_of(network: torch.nn.Module) -> Plan:
    """The plan by which a network is sliced.

    Raises:
        UserError: networks of this class cannot be sliced.
    """
    name = type(network).__name__
    if name not in _PLANS:
        raise UserError(f"networks of class {name} cannot be sliced; known: {', '.join(_PLANS)}")
    return _PLANS[name](network)


def costs_of(network: torch.nn.Module) -> list[LayerCost]:
    """The arithmetic of every layer of a network.

    Raises:
        UserError: networks of this class cannot be counted.
    """
    name = type(network).__name__
    if name not in _COSTS:
        raise UserError(f"networks of class {name} cannot be counted; known: {', '.join(_COSTS)}")
    return _COSTS[name](network)
