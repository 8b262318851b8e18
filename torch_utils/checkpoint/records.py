"""What the objects in a network pickle become: data without behaviour."""
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from dnnlib.util import UserError


class CheckpointError(UserError, ValueError):
    """A network file that cannot be read, is refused, or does not hold what it should."""


@dataclass
class ModuleRecord:
    """A persistent torch module as a file describes it. The embedded `source` is text and stays text."""

    class_name: str
    source: str
    state: dict[str, Any] = field(repr=False)

    def __contains__(self, attribute: str) -> bool:
        return attribute in self.state

    def __getitem__(self, attribute: str) -> Any:
        """A plain instance attribute."""
        try:
            return self.state[attribute]
        except KeyError:
            raise CheckpointError(f"{self.class_name}: the file has no attribute {attribute!r}") from None

    @property
    def init_kwargs(self) -> dict[str, Any]:
        """The keyword arguments the object was built with, as far as recorded."""
        return dict(self.state.get("_init_kwargs") or {})

    @property
    def children(self) -> dict[str, "ModuleRecord"]:
        """Name → direct submodule; absent ones (None) are left out."""
        modules = self.state.get("_modules") or {}
        return {name: child for name, child in modules.items() if isinstance(child, ModuleRecord)}

    def child(self, name: str) -> "ModuleRecord":
        """A direct submodule by name."""
        try:
            return self.children[name]
        except KeyError:
            raise CheckpointError(f"{self.class_name}: the file has no submodule {name!r}") from None

    def own_tensors(self) -> dict[str, torch.Tensor]:
        """Parameters and buffers of this module alone."""
        both = {**(self.state.get("_parameters") or {}), **(self.state.get("_buffers") or {})}
        return {name: tensor for name, tensor in both.items() if tensor is not None}

    def modules(self, prefix: str = "") -> Iterator[tuple[str, "ModuleRecord"]]:
        """This record and all below it, with dotted names."""
        yield prefix, self
        for name, child in self.children.items():
            yield from child.modules(f"{prefix}.{name}" if prefix else name)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Dotted name → tensor, parameters and buffers alike."""
        return {
            f"{prefix}.{name}" if prefix else name: tensor
            for prefix, module in self.modules()
            for name, tensor in module.own_tensors().items()
        }


class TFNetworkRecord:
    """A network of the TensorFlow code base: its pickled state dictionary."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if not isinstance(self, TFNetworkRecord) or not isinstance(state, dict):
            raise CheckpointError("TensorFlow network: expected a state dictionary")
        self.state = state

    def variables(self) -> dict[str, Any]:
        """'component/variable' → NumPy array, recursively."""
        found = {name: value for name, value in self.state.get("variables", [])}
        for component, network in self.state.get("components", {}).items():
            found.update({f"{component}/{name}": value for name, value in network.variables().items()})
        return found
