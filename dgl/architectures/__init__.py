"""The families of networks that can be sliced: one module each, under the family's name in `training.architectures`."""
import importlib
from types import ModuleType

import torch

from dnnlib.errors import UserError
from training import architectures

from ..macs import LayerCost
from ..plan import Plan

# Family → module with generator_plan(G), discriminator_plan(D) and layer_costs(network).
_MODULES = {name: f"dgl.architectures.{name}" for name in ("stylegan2", "biggan", "stylegan3")}


def register(family: str, module: str) -> None:
    """Makes networks of a family sliceable.

    Args:
        family: name of a row of `training.architectures`.
        module: dotted name of a module with generator_plan(G), discriminator_plan(D) and layer_costs(network).

    Raises:
        ValueError: the family has one already.
    """
    if family in _MODULES:
        raise ValueError(f"family {family!r} is registered already, as {_MODULES[family]}")
    _MODULES[family] = module


def _module_of(network: torch.nn.Module, purpose: str) -> ModuleType:
    family = architectures.find(network)
    if family is None or family.name not in _MODULES:
        known = [dotted.rpartition(".")[2] for row in architectures.rows() if row.name in _MODULES
                 for dotted in (row.generator, row.discriminator)]
        names = ", ".join(dict.fromkeys(known))
        raise UserError(f"networks of class {type(network).__name__} cannot be {purpose}; known: {names}")
    return importlib.import_module(_MODULES[family.name])


def plan_of(network: torch.nn.Module) -> Plan:
    """The plan by which a generator or discriminator is sliced.

    Raises:
        UserError: networks of this class cannot be sliced.
    """
    module = _module_of(network, "sliced")
    is_generator = architectures.class_path(network) == architectures.of_network(network).generator
    return module.generator_plan(network) if is_generator else module.discriminator_plan(network)


def costs_of(network: torch.nn.Module) -> list[LayerCost]:
    """The arithmetic of every layer of a network.

    Raises:
        UserError: networks of this class cannot be counted.
    """
    return _module_of(network, "counted").layer_costs(network)
