"""Finds functions and classes by their dotted name and calls them."""
import importlib
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from dnnlib.installed import actual_name, plain_name

_ALIASES = {"np": "numpy", "tf": "tensorflow"}


def get_module_from_obj_name(obj_name: str) -> tuple[ModuleType, str]:
    """Splits "package.module.Class.method" into the imported module and what remains, "Class.method".

    The longest part that is a module and holds the rest wins. "np." and "tf." stand for numpy and tensorflow.

    Raises:
        ImportError: no module is called so, or none of them has the rest. An error inside a module that does exist
            is passed on as it is.
    """
    first, *rest = obj_name.split(".")
    parts = [_ALIASES.get(first, first) if rest else first, *rest]
    for cut in range(len(parts) - 1, 0, -1):
        module = _import_or_none(".".join(parts[:cut]))
        if module is not None and _has_path(module, parts[cut:]):
            return module, ".".join(parts[cut:])
    raise ImportError(f"there is no object called {obj_name!r}: expected a dotted name such as package.module.Class")


def _import_or_none(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(actual_name(name))
    except ModuleNotFoundError as error:
        # Only "this very name is no module" means: try a shorter one. A module that fails to import is a real error.
        if error.name is not None and f"{actual_name(name)}.".startswith(error.name + "."):
            return None
        raise


def _has_path(obj: object, path: list[str]) -> bool:
    for name in path:
        if not hasattr(obj, name):
            return False
        obj = getattr(obj, name)
    return True


def get_obj_from_module(module: ModuleType, obj_name: str) -> Any:
    """Follows a dotted name inside a module; the empty name is the module itself."""
    obj: Any = module
    for name in filter(None, obj_name.split(".")):
        obj = getattr(obj, name)
    return obj


def get_obj_by_name(name: str) -> Any:
    """The object with this dotted name; imports its module if need be."""
    return get_obj_from_module(*get_module_from_obj_name(name))


def call_func_by_name(*args: object, func_name: str, **kwargs: object) -> Any:
    """Calls the function with this dotted name.

    Raises:
        ImportError: there is no such object.
        TypeError: it is not callable.
    """
    func = get_obj_by_name(func_name)
    if not callable(func):
        raise TypeError(f"{func_name} is not callable but a {type(func).__name__}")
    return func(*args, **kwargs)


def construct_class_by_name(*args: object, class_name: str, **kwargs: Any) -> Any:
    """Constructs the class with this dotted name."""
    return call_func_by_name(*args, func_name=class_name, **kwargs)


def get_module_dir_by_obj_name(obj_name: str) -> str:
    """The folder of the source file that holds the object with this dotted name.

    Raises:
        ImportError: there is no such object, or its module has no source file.
    """
    module, _ = get_module_from_obj_name(obj_name)
    path = getattr(module, "__file__", None)
    if not path:
        raise ImportError(f"{obj_name}: the module {module.__name__} has no source file")
    return os.path.dirname(os.path.abspath(path))


def is_top_level_function(obj: object) -> bool:
    """Whether the object is a function that its module holds under the function's own name."""
    module = sys.modules.get(getattr(obj, "__module__", None) or "")
    return callable(obj) and vars(module).get(getattr(obj, "__name__", "")) is obj if module else False


def get_top_level_function_name(obj: Any) -> str:
    """The dotted name under which `get_obj_by_name` finds a top-level function; of a script, its file's base name.

    Raises:
        ValueError: the object is no top-level function.
    """
    if is_top_level_function(obj):
        return f"{_importable_name(obj.__module__)}.{obj.__name__}"
    raise ValueError(f"{obj!r} is not a top-level function")


def _importable_name(module: str) -> str:
    """What another process imports a module as: for a script its file's base name, if there is a file."""
    path = getattr(sys.modules[module], "__file__", None) if module == "__main__" else None
    return Path(path).stem if path else plain_name(module)
