"""For tests of hostile files."""
import types
from collections.abc import Iterator
from typing import Any

import pytest

import dnnlib.util
from torch_utils import checkpoint, persistence
from torch_utils.checkpoint import allowed_globals, errors, machine, reading, records, storage, torch_files

_MODULES = [
    persistence, checkpoint, allowed_globals, errors, machine, reading, records, storage, torch_files, dnnlib.util,
]  # fmt: skip


def _contents(holder: Any) -> dict[str, Any]:
    return {key: id(value) for key, value in vars(holder).items() if not key.startswith("__")}


def _our_state() -> dict[Any, Any]:
    """The attributes of our modules, and of the classes, functions and objects in them."""
    state: dict[Any, Any] = {}
    for module in _MODULES:
        state[module.__name__] = _contents(module)
        for key, value in vars(module).items():
            if hasattr(value, "__dict__") and not isinstance(value, types.ModuleType):
                state[module.__name__, key] = _contents(value)
            elif isinstance(value, dict) and not key.startswith("__"):
                state[module.__name__, key] = {k: id(v) for k, v in value.items()}
    state["GLOBALS"] = {key: _contents(value) for key, value in allowed_globals.GLOBALS.items()}
    return state


@pytest.fixture
def unchanged() -> Iterator[None]:
    """Asserts that a test leaves no trace in any object of ours."""
    before = _our_state()
    yield
    assert _our_state() == before
