"""Persistent objects whose text is executed on loading, as the format describes them."""
import copy
import functools
import hashlib
import inspect
import sys
import types

from dnnlib import EasyDict

_modules = {}  # text -> the module that was made of it
_FIELDS = ["type", "version", "module_src", "class_name", "state"]


def persistent_class(cls):
    """A class derived from this one, of its name, whose objects take their text along; a second time nothing more."""
    if is_persistent(cls):
        return cls
    module = sys.modules[cls.__module__]
    text = _text_of(module)
    _modules.setdefault(text, module)
    body = {
        "__module__": cls.__module__,
        "__init__": _noting_arguments(cls),
        "__reduce__": _as_text_and_state,
        "init_args": property(lambda self: copy.deepcopy(self._init_args)),
        "init_kwargs": property(lambda self: EasyDict(copy.deepcopy(self._init_kwargs))),
        "_orig_module_src": text,
        "_orig_class_name": cls.__name__,
    }
    return types.new_class(cls.__name__, (cls,), exec_body=lambda namespace: namespace.update(body))


def _text_of(module):
    return sys.intern(getattr(module, "_text_it_came_from", None) or inspect.getsource(module))


def _noting_arguments(cls):
    """A constructor that refuses what could not be found again by its name."""

    @functools.wraps(cls.__init__)
    def constructor(self, *args, **kwargs):
        if not hasattr(sys.modules[cls.__module__], cls.__name__):
            raise TypeError(f"{cls.__name__} is not at the top level of {cls.__module__}")
        cls.__init__(self, *args, **kwargs)
        vars(self).update(_init_args=copy.deepcopy(args), _init_kwargs=copy.deepcopy(kwargs))

    return constructor


def _as_text_and_state(self):
    state = self.__getstate__() if hasattr(self, "__getstate__") else vars(self)
    values = "class", 6, self._orig_module_src, self._orig_class_name, state
    return _reconstruct_persistent_obj, (dict(zip(_FIELDS, values, strict=True)),)


def is_persistent(thing):
    """Whether a class, or the class of an object, is wrapped."""
    return "_orig_class_name" in vars(thing if isinstance(thing, type) else type(thing))


def import_hook(hook):
    """Not needed here."""
    raise NotImplementedError


def _reconstruct_persistent_obj(meta):
    if list(meta) != _FIELDS or (meta["type"], meta["version"]) != ("class", 6):
        raise ValueError(f"unexpected fields: {list(meta)}, {meta.get('type')}, {meta.get('version')}")
    _, _, text, name, state = meta.values()
    if text not in _modules:
        _modules[text] = _executed(text)
    cls = persistent_class(getattr(_modules[text], name))
    obj = cls.__new__(cls)
    restore = getattr(obj, "__setstate__", vars(obj).update)
    restore(EasyDict(state))
    return obj


def _executed(text):
    """A new module of this text."""
    module = types.ModuleType("text_" + hashlib.md5(text.encode()).hexdigest())
    module._text_it_came_from = text
    sys.modules[module.__name__] = module
    exec(text, vars(module))
    return module
