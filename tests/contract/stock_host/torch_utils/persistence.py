"""Persistent objects whose text is executed on loading, as the format describes them."""

import copy
import inspect
import sys
import types
import uuid

from dnnlib import EasyDict

_texts = {}  # text -> module


def persistent_class(cls):
    """Wraps a class once."""
    if is_persistent(cls):
        return cls
    module = sys.modules[cls.__module__]
    text = module.__dict__.get("_text_it_came_from") or inspect.getsource(module)
    text = next((known for known in _texts if known == text), text)
    _texts.setdefault(text, module)

    class Decorator(cls):
        _orig_module_src = text
        _orig_class_name = cls.__name__

        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self._init_args, self._init_kwargs = copy.deepcopy(args), copy.deepcopy(kwargs)
            assert self._orig_class_name in vars(module)

        init_args = property(lambda self: copy.deepcopy(self._init_args))
        init_kwargs = property(lambda self: EasyDict(copy.deepcopy(self._init_kwargs)))

        def __reduce__(self):
            state = super().__reduce__()[2]
            meta = {
                "type": "class", "version": 6, "module_src": text, "class_name": self._orig_class_name, "state": state,
            }  # fmt: skip
            return _reconstruct_persistent_obj, (meta,), None

    Decorator.__name__ = cls.__name__
    return Decorator


def is_persistent(thing):
    """Whether a class, or the class of an object, is wrapped."""
    return "_orig_class_name" in vars(thing if isinstance(thing, type) else type(thing))


def import_hook(hook):
    """Not needed here."""
    raise NotImplementedError


def _reconstruct_persistent_obj(meta):
    meta = EasyDict(meta)
    assert list(meta) == ["type", "version", "module_src", "class_name", "state"]
    assert meta.version == 6
    assert meta.type == "class"
    module = _texts.get(meta.module_src)
    if module is None:
        name = "_imported_module_" + uuid.uuid4().hex
        module = sys.modules[name] = types.ModuleType(name)
        module._text_it_came_from = meta.module_src
        _texts[meta.module_src] = module
        exec(meta.module_src, vars(module))
    cls = persistent_class(vars(module)[meta.class_name])
    obj = cls.__new__(cls)
    if hasattr(obj, "__setstate__"):
        obj.__setstate__(EasyDict(meta.state))
    else:
        vars(obj).update(meta.state)
    return obj
