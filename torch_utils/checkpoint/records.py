"""What the objects in a network pickle become: data without behaviour."""
import reprlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from .errors import CheckpointError
from .machine import Sink, Unfinished


class Foreign(Sink):
    """Stands for an object of a class or function that is not allowed; a stream cannot do anything with it."""

    def __init__(self, name: str) -> None:
        self.name = name  # dotted


def foreign_name(value: object) -> str | None:
    """The dotted name of the first foreign class or function within what a file holds; None without one."""
    waiting, visited = [value], set()
    while waiting:
        part = waiting.pop()
        if isinstance(part, Foreign):
            return part.name
        if id(part) in visited:
            continue
        if isinstance(part, ModuleRecord | TFNetworkRecord):
            part = part.state
        if isinstance(part, dict):
            visited.add(id(part))
            waiting += [*part.values(), *part.keys()]
        elif isinstance(part, list | tuple | set):
            visited.add(id(part))
            waiting += part
    return None


@dataclass(eq=False)
class ModuleRecord:
    """A persistent torch module as a file describes it. The embedded `source` is text and stays text."""

    class_name: str
    source: str = field(repr=False)
    state: dict[str, Any] = field(repr=False)

    def value(self, attribute: str, *kinds: type) -> Any:
        """A plain instance attribute, which must be of one of these very types.

        Raises:
            CheckpointError: it is missing or of another type.
        """
        if attribute not in self.state:
            raise CheckpointError(f"{self.class_name}: the file has no attribute {attribute!r}")
        value = self.state[attribute]
        if type(value) not in kinds:
            expected = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)
            raise CheckpointError(f"{self.class_name}: {attribute} should be {expected}, "
                                  f"the file has {reprlib.repr(value)}")
        return value

    def _mapping(self, attribute: str) -> dict[str, Any]:
        value = self.state.get(attribute)
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise CheckpointError(f"{self.class_name}: {attribute} should be a dictionary of names, "
                                  f"the file has {reprlib.repr(value)}")
        return value

    @property
    def init_kwargs(self) -> dict[str, Any]:
        """The keyword arguments the object was built with, as far as recorded."""
        return dict(self._mapping("_init_kwargs"))

    @property
    def children(self) -> dict[str, "ModuleRecord"]:
        """Name → direct submodule; absent ones (None) are left out."""
        return {name: child for name, child in self._mapping("_modules").items() if isinstance(child, ModuleRecord)}

    def child(self, name: str) -> "ModuleRecord":
        """A direct submodule by name.

        Raises:
            CheckpointError: there is none.
        """
        try:
            return self.children[name]
        except KeyError:
            raise CheckpointError(f"{self.class_name}: the file has no submodule {name!r}") from None

    @property
    def parameters(self) -> dict[str, torch.Tensor]:
        """Name → trainable tensor of this module alone, of the shape [...] that the file has."""
        return self._tensors("_parameters")

    @property
    def buffers(self) -> dict[str, torch.Tensor]:
        """Name → other tensor of this module alone, of the shape [...] that the file has."""
        return self._tensors("_buffers")

    def _tensors(self, attribute: str) -> dict[str, torch.Tensor]:
        return {name: value for name, value in self._mapping(attribute).items() if isinstance(value, torch.Tensor)}

    def tensor(self, name: str) -> torch.Tensor:
        """One parameter or buffer of this module, of the shape [...] that the file has.

        Raises:
            CheckpointError: there is none.
        """
        tensor = self.parameters.get(name, self.buffers.get(name))
        if tensor is None:
            raise CheckpointError(f"{self.class_name}: the file has no tensor {name!r}")
        return tensor

    def modules(self) -> Iterator[tuple[str, "ModuleRecord"]]:
        """This record and all below it, with dotted names.

        Raises:
            CheckpointError: a record occurs twice; the walk could be endless.
        """
        waiting: list[tuple[str, ModuleRecord]] = [("", self)]
        visited = set()
        while waiting:
            prefix, record = waiting.pop()
            if id(record) in visited:
                raise CheckpointError(f"{self.class_name}: {prefix} is also another part of the network")
            visited.add(id(record))
            yield prefix, record
            children = [(f"{prefix}.{name}" if prefix else name, child) for name, child in record.children.items()]
            waiting += reversed(children)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Dotted name → tensor of the shape [...] that the file has, parameters and buffers alike.

        Raises:
            CheckpointError: a tensor occurs twice; a small file could then stand for any number of weights.
        """
        by_name: dict[str, torch.Tensor] = {}
        for prefix, module in self.modules():
            for name, tensor in {**module.parameters, **module.buffers}.items():
                by_name[f"{prefix}.{name}" if prefix else name] = tensor
        if len({id(tensor) for tensor in by_name.values()}) != len(by_name):
            raise CheckpointError(f"{self.class_name}: the same tensor is used in several places of the network")
        return by_name


class TFNetworkRecord(Unfinished):
    """A network of the TensorFlow code base: its pickled state dictionary."""

    def __init__(self, *_: object) -> None:
        self.state: dict[str, Any] = {}

    def build(self, state: object) -> "TFNetworkRecord":
        """Takes the state dictionary.

        Raises:
            CheckpointError: it is no dictionary.
        """
        if not isinstance(state, dict):
            raise CheckpointError("TensorFlow network: expected a state dictionary")
        self.state = state
        return self

    def __setstate__(self, state: object) -> None:
        """For Python's own unpickler, where the file is trusted."""
        self.build(state)

    def variables(self) -> dict[str, Any]:
        """'component/variable' → NumPy array or number, recursively.

        Raises:
            CheckpointError: the record is malformed.
        """
        by_name: dict[str, Any] = {}
        waiting = [("", self)]
        visited = set()
        while waiting:
            prefix, network = waiting.pop()
            if not isinstance(network, TFNetworkRecord) or id(network) in visited:
                raise CheckpointError(f"TensorFlow network: component {prefix!r} is malformed")
            visited.add(id(network))
            for name, value in network.state.get("variables") or []:
                if not isinstance(name, str):
                    raise CheckpointError(f"TensorFlow network: a variable is named {reprlib.repr(name)}")
                by_name[prefix + name] = value
            components = network.state.get("components") or {}
            waiting += [(f"{prefix}{component}/", part) for component, part in components.items()]
        return by_name
