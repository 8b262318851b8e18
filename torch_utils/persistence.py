"""Objects that carry the source text of their class when they are pickled.

A persistent object is pickled as a call of `_reconstruct_persistent_obj` with one dictionary: the text of the module
that defines its class, the class name and the instance's state. Any StyleGAN2-ADA descendant can read that without
this code base. Here the text is executed only within `trusted()`; text that equals a module
of this process needs no execution, so copies, and pickles for a process that has imported the same module, always work.
"""
import contextlib
import copy
import functools
import hashlib
import inspect
import pickle
import sys
import types
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

import dnnlib
from dnnlib.installed import PREFIX

FORMAT_VERSION = 6

_modules_by_source: dict[str, types.ModuleType] = {}
_decorated: dict[type, type] = {}
_import_hooks: list[Callable[[Any], Any]] = []
_may_execute: ContextVar[bool] = ContextVar("may_execute", default=False)

C = TypeVar("C", bound=type)


def _copied(attribute: str, kind: Callable[[Any], Any], doc: str) -> property:
    """A property that gives a copy of what an attribute holds: callers cannot change the original."""
    return property(lambda self: kind(copy.deepcopy(getattr(self, attribute))), doc=doc)


class _Persistent:
    """What `persistent_class` puts in front of a class: it knows the constructor's arguments and pickles itself."""

    _orig_module_src: str
    _orig_class_name: str
    _init_args: tuple
    _init_kwargs: dict[str, Any]

    init_args = _copied("_init_args", tuple, "A copy of the positional arguments it was built with.")
    init_kwargs = _copied("_init_kwargs", dnnlib.EasyDict, "A copy of the keyword arguments it was built with.")

    def __reduce_ex__(self, protocol: Any) -> Any:
        if not is_persistent(self):  # of a class derived from a decorated one: pickled by name, as any object is
            return super().__reduce_ex__(protocol)
        reduced: Any = super().__reduce_ex__(2)
        meta = {
            "type": "class",
            "version": FORMAT_VERSION,
            "module_src": self._orig_module_src,
            "class_name": self._orig_class_name,
            "state": dict(reduced[2] or {}),
        }
        return _reconstruct_persistent_obj, (meta,)


def persistent_class(cls: C) -> C:
    """Class decorator: makes instances carry their module's source text when pickled.

    The class must be defined at the top level of a module whose source is available, and should import only what every
    reader of its pickles provides. Decorating twice changes nothing.
    """
    if is_persistent(cls):
        return cls
    if cls not in _decorated:
        module = sys.modules[cls.__module__]
        source = _source_of(module)
        _modules_by_source.setdefault(source, module)
        body = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__,
                "__init__": _remembering(cls), "_orig_module_src": source, "_orig_class_name": cls.__name__}
        bases = (cls,) if issubclass(cls, _Persistent) else (_Persistent, cls)
        _decorated[cls] = type(cls.__name__, bases, body)
    return _decorated[cls]  # type: ignore[return-value]


def _remembering(cls: Any) -> Callable[..., None]:
    """The class's constructor, which then keeps copies of its arguments."""

    @functools.wraps(cls.__init__)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        cls.__init__(self, *args, **kwargs)
        vars(self).update(_init_args=copy.deepcopy(args), _init_kwargs=copy.deepcopy(kwargs))

    return __init__


def is_persistent(obj: object) -> bool:
    """Whether a class is decorated, or an instance's class is."""
    cls = obj if isinstance(obj, type) else type(obj)
    return "_orig_class_name" in vars(cls)


def import_hook(hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Registers `hook(meta) -> meta`, applied in order of registration to every object that is being reconstructed.

    `meta` is an EasyDict with the keys type, version, module_src, class_name and state.

    Raises:
        TypeError: the hook is not callable.
    """
    if not callable(hook):
        raise TypeError(f"import_hook: expected a callable, found {type(hook).__name__}")
    _import_hooks.append(hook)
    return hook


@contextlib.contextmanager
def trusted() -> Iterator[None]:
    """Within this context, unpickling executes the source text embedded in persistent objects."""
    token = _may_execute.set(True)
    try:
        yield
    finally:
        _may_execute.reset(token)


def _source_of(module: types.ModuleType) -> str:
    """The module's text, as one object for all of its classes: a pickle then holds it once."""
    known = getattr(module, "_persistent_source", None)
    if known is None:
        known = inspect.getsource(module).removeprefix("\ufeff")
        known = known.replace(PREFIX, "") if PREFIX else known  # for readers elsewhere, as in the source tree
    return sys.intern(known)


def _reconstruct_persistent_obj(meta: Any) -> Any:
    """What the pickle stream calls; the name and the argument are the file format."""
    given = dnnlib.EasyDict(meta, state=dnnlib.EasyDict(meta["state"]))
    meta = functools.reduce(_apply_hook, _import_hooks, given)
    if (meta.type, meta.version) != ("class", FORMAT_VERSION):
        raise pickle.UnpicklingError(
            f"persistent object: expected type 'class' of version {FORMAT_VERSION}, "
            f"found type {meta.type!r} of version {meta.version!r}"
        )
    cls = persistent_class(getattr(_module_for(meta.module_src, meta.class_name), meta.class_name))
    return _revived(cls.__new__(cls), dict(meta.state))


def _apply_hook(meta: object, hook: Callable[[Any], Any]) -> Any:
    changed = hook(meta)
    if changed is None:
        raise TypeError(f"import hook {hook!r}: expected the meta dictionary, found None")
    return changed


def _revived(obj: object, state: dict[str, Any]) -> Any:
    """An empty object with its state, by the class's own method if it has one."""
    getattr(obj, "__setstate__", vars(obj).update)(state)
    return obj


def _module_for(source: str, class_name: str) -> types.ModuleType:
    """The module with this very text, executed first if it is new and the caller allows it."""
    if source in _modules_by_source:
        return _modules_by_source[source]
    if not _may_execute.get():
        raise pickle.UnpicklingError(
            f"this pickle embeds program text for class {class_name}, which is not executed by default. "
            "Read network pickles with legacy.load_network_pkl(), which needs no embedded text, or, if you trust "
            "the file, wrap the call in torch_utils.persistence.trusted() (on the command line, `trust_pickle`)"
        )
    module = types.ModuleType(f"embedded_{hashlib.sha256(source.encode()).hexdigest()}")
    module._persistent_source = source  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    try:
        exec(source, module.__dict__)
    except BaseException:
        del sys.modules[module.__name__]
        _modules_by_source.pop(source, None)  # its first classes have entered it
        raise
    _modules_by_source[source] = module
    return module
