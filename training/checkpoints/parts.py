"""The networks of a file by role, each built when it is first asked for: a command fails only for what it needs."""
import collections
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from torch_utils import misc
from torch_utils.checkpoint import CheckpointError

NETWORKS = ("G", "D", "G_ema")


class MissingPart(CheckpointError, KeyError):
    """A network that is needed and not in the file."""


def _check_finite(role: str, network: torch.nn.Module) -> None:
    """Refuses a network from a training that diverged, before its images are black or everything becomes NaN."""
    for name, tensor in misc.named_params_and_buffers(network):
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(f"{role}: {name} holds numbers that are not finite; the training diverged, "
                                  "use an earlier snapshot")


class WholeNetworks(dict):
    """Networks that are built already, by role; an error names one that is asked for and not finite, or missing.

    Args:
        where: the file or folder, for error messages.
        advice: what to do about a missing one, called with its role.
    """

    def __init__(self, where: str, advice: Callable[[str], str]) -> None:
        super().__init__(training_set_kwargs=None, augment_pipe=None)
        self._where, self._advice = where, advice
        self._checked: set[str] = set()

    def __getitem__(self, role: str) -> Any:
        part = super().__getitem__(role)
        if role in NETWORKS and role not in self._checked:
            try:
                _check_finite(role, part)
            except CheckpointError as error:
                raise CheckpointError(f"{self._where}: {error}") from None
            self._checked.add(role)
        return part

    def __missing__(self, role: str) -> Any:
        raise CheckpointError(f"{self._where}: holds no {role}, which is needed here; {self._advice(role)}")

    def get(self, role: str, default: object = None) -> Any:
        """The part of a role; `default` if there is none.

        Raises:
            CheckpointError: it holds numbers that are not finite.
        """
        return self[role] if role in self else default


class Networks(dict):
    """'G', 'D' and 'G_ema' → networks, 'training_set_kwargs' → dictionary or None, 'augment_pipe' → module or None,
    and 'notes' → dictionary, if the file has them.

    A role is a key if the file has something for it, readable or not. Reading it builds the network; that of a role
    without one raises `MissingPart`.

    Args:
        where: the file, for error messages.
        raw: role → what the file holds for it; None is nothing.
        build: called with a role and what the file holds for it; returns the network.
        others: names of what else the file holds.
    """

    def __init__(
        self, where: str, raw: Mapping[str, Any], build: Callable[[str, Any], Any], others: tuple[str, ...] = ()
    ) -> None:
        present = {role: value for role, value in raw.items() if role not in NETWORKS or value is not None}
        super().__init__(present)
        for name in ("training_set_kwargs", "augment_pipe"):
            self.setdefault(name, None)
        self.where, self.others = where, others
        self._build = build
        self._waiting = {role for role in (*NETWORKS, "augment_pipe") if super(Networks, self).get(role) is not None}

    def __getitem__(self, role: str) -> Any:
        if role in self._waiting:
            try:
                network = self._build(role, super().__getitem__(role))
                _check_finite(role, network)
                self[role] = network
            except CheckpointError as error:
                known = self.where in str(error)
                raise CheckpointError(f"{'' if known else f'{self.where}: '}{error}") from error.__cause__
            self._waiting.discard(role)
        return super().__getitem__(role)

    def __missing__(self, role: str) -> Any:
        present = ", ".join(name for name in (*NETWORKS, *self.others) if name in self or name in self.others)
        raise MissingPart(f"{self.where}: the pickle holds no {role}, which is needed here; "
                          f"found: {present or 'nothing'}")

    def __iter__(self) -> Iterator[str]:  # with a method of its own, copies of the dictionary are made item by item
        return super().__iter__()

    def get(self, role: str, default: object = None) -> Any:
        """The part of a role; `default` if the file has none.

        Raises:
            CheckpointError: there is one that cannot be built.
        """
        return self[role] if role in self else default

    def items(self) -> Any:
        """All (role, part)."""
        return [(role, self[role]) for role in self]

    def values(self) -> Any:
        """All parts."""
        return [self[role] for role in self]

    def pop(self, role: str, *default: object) -> Any:
        """Removes a role, and returns its part.

        Raises:
            CheckpointError: there is no part, and no default, or it cannot be built.
        """
        part = self.get(role, *default) if default else self[role]
        super().pop(role, None)
        return part

    def __reduce_ex__(self, protocol: object) -> Any:
        return collections.OrderedDict, (list(self.items()),)  # copies and pickles know no file

    def raw(self, role: str) -> Any:
        """What the file holds for a role, or the network if it is built already."""
        return super().__getitem__(role)


def optional(networks: Mapping[str, Any], role: str) -> Any:
    """The network of a role in an opened file; None if there is none, or none that can be read."""
    try:
        return networks.get(role)
    except CheckpointError:
        return None
