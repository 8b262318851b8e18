"""Network pickles as other code bases and older versions write them."""
import collections
import io
import pickle
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from dnnlib import EasyDict
from torch_utils import persistence

FOREIGN_SOURCE = "raise SystemError('this text must never be executed')\n"
_FIELDS_OF_TORCH_1_7 = (
    "training", "_parameters", "_buffers", "_non_persistent_buffers_set", "_backward_hooks", "_forward_hooks",
    "_forward_pre_hooks", "_state_dict_hooks", "_load_state_dict_pre_hooks", "_modules",
)  # fmt: skip

Edit = Callable[[dict[str, Any]], None]


class _Pickler(pickle.Pickler):
    def __init__(self, f: io.BytesIO, protocol: int, edit: Edit) -> None:
        super().__init__(f, protocol)
        self.edit = edit

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, torch.nn.Module) or not persistence.is_persistent(obj):
            return NotImplemented
        function, (meta,) = obj.__reduce_ex__(2)
        self.edit(meta)
        return function, (meta,)


def write(data: Any, protocol: int = 4, edit: Edit = lambda meta: None) -> bytes:
    """A pickle in which `edit` has changed what is stored of every persistent object (its meta dictionary)."""
    f = io.BytesIO()
    _Pickler(f, protocol, edit).dump(data)
    return f.getvalue()


def without_source(meta: dict[str, Any]) -> None:
    """Leaves the program text out."""
    meta["module_src"] = ""


def as_torch_1_7(meta: dict[str, Any]) -> None:
    """The state as Python 3.7 and torch 1.7 have it: fewer fields, ordered dictionaries, gains of np.float64."""
    meta["module_src"] = FOREIGN_SOURCE
    state = meta["state"]
    attributes = {key: value for key, value in state.items() if key not in vars(torch.nn.Module())}
    fields = {key: state.get(key, {}) for key in _FIELDS_OF_TORCH_1_7}
    for key, value in fields.items():
        if isinstance(value, dict):
            fields[key] = collections.OrderedDict(value)
    for key in ("weight_gain", "act_gain"):
        if key in attributes:
            attributes[key] = np.float64(attributes[key])
    kwargs = attributes["_init_kwargs"]
    attributes["_init_kwargs"] = {k: EasyDict(v) if isinstance(v, dict) else v for k, v in kwargs.items()}
    meta["state"] = {**fields, **attributes}


def official(data: Any, protocol: int) -> bytes:
    """A pickle with the globals that files of Python 3.7, torch 1.7 and NumPy 1 have."""
    content = write(data, protocol, as_torch_1_7)
    assert protocol < 4, "names are stored without their length up to protocol 3 only"
    return content.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def globals_of(content: bytes) -> set[str]:
    """The names that a pickle asks for, those in the storages inside it aside."""
    collected = set()
    texts: list[str] = []
    memo: dict[int, str] = {}
    for operation, argument, _ in pickletools.genops(content):
        if operation.name == "GLOBAL":
            collected.add(argument.replace(" ", "."))
        elif operation.name == "STACK_GLOBAL":
            collected.add(".".join(texts[-2:]))
        elif "UNICODE" in operation.name:
            texts.append(argument)
        elif operation.name == "MEMOIZE":
            memo[len(memo)] = texts[-1] if texts else ""
        elif operation.name in ("BINGET", "LONG_BINGET") and argument in memo:
            texts.append(memo[argument])
    return collected
