"""Names that files may use for classes and functions, and what they stand for. No other name is ever imported."""
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from dnnlib.errors import UserError
from dnnlib.objects import get_obj_by_name


class Registry:
    """Name → class or function, imported on first use.

    An untrusted file can choose among the registered names, and cannot name anything else.

    Args:
        kind: what the entries are, for error messages: "loss", "data set", ...
        entries: name → dotted name of the object.
    """

    def __init__(self, kind: str, entries: Mapping[str, str] | None = None) -> None:
        self.kind = kind
        self._entries: dict[str, str | Callable[..., Any]] = dict(entries or {})

    def register(self, name: str, target: str | Callable[..., Any]) -> None:
        """Adds an entry: an object, or its dotted name.

        Raises:
            ValueError: the name stands for something else already.
        """
        if self._entries.setdefault(name, target) != target:
            raise ValueError(f"{self.kind} {name!r} is registered already, as {self._entries[name]!r}")

    def names(self) -> list[str]:
        """All registered names, in the order of their registration."""
        return list(self._entries)

    def get(self, name: object) -> Callable[..., Any]:
        """The class or function of this name.

        Raises:
            UserError: there is none.
        """
        target = self._entries.get(name) if isinstance(name, str) else None
        if target is None:
            raise UserError(f"unknown {self.kind} {name!r:.80}; known: {', '.join(self._entries)}")
        return get_obj_by_name(target) if isinstance(target, str) else target

    def call(self, name: object, arguments: Mapping[str, Any], **further: object) -> Any:
        """Calls the class or function of this name.

        Raises:
            UserError: there is none, or it does not take these arguments.
        """
        function = self.get(name)
        signature = inspect.signature(function)
        try:
            signature.bind(**arguments, **further)
        except TypeError as error:
            raise UserError(f"{self.kind} {name}: {error}") from None
        try:
            return function(**arguments, **further)
        except TypeError as error:  # of something that it hands arguments down to
            hands_down = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values())
            _, _, unexpected = str(error).partition("() got an unexpected keyword argument ")
            if not hands_down or unexpected.strip("'") not in arguments:
                raise
            raise UserError(f"{self.kind} {name}: got an unexpected keyword argument {unexpected}") from error
