"""Names of our modules. In an installed wheel the packages live inside another one, so as not to take common names.

Files, registries and network pickles always use the plain names of the source tree, such as training.networks. In the
tree both names are the same, and everything here does nothing.
"""
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PREFIX = __name__.removesuffix("dnnlib.installed")
PACKAGES = ("dnnlib", "torch_utils", "metrics", "training")


def actual_name(dotted: str) -> str:
    """The name under which a module or object of ours is imported here; other names stay as they are."""
    return PREFIX + dotted if dotted.split(".")[0] in PACKAGES else dotted


def plain_name(dotted: str) -> str:
    """The name of a module or object of ours in the source tree; other names stay as they are."""
    return dotted.removeprefix(PREFIX)


@contextmanager
def plain_names(*objects: Any) -> Iterator[None]:
    """Within this context our modules are importable under their plain names, and objects pickled by them.

    Args:
        objects: functions and classes of ours that pickles name.
    """
    if not PREFIX:
        yield
        return
    ours = {plain_name(name): module for name, module in sys.modules.items() if name.startswith(PREFIX)}
    hidden = {name: module for name, module in sys.modules.items() if name.split(".")[0] in PACKAGES}
    modules = {obj: obj.__module__ for obj in objects}
    try:
        for name in hidden:
            del sys.modules[name]
        sys.modules.update(ours)
        for obj in objects:
            obj.__module__ = plain_name(obj.__module__)
        yield
    finally:
        for obj, name in modules.items():
            obj.__module__ = name
        for name in [name for name in sys.modules if name.split(".")[0] in PACKAGES]:
            del sys.modules[name]
        sys.modules.update(hidden)
