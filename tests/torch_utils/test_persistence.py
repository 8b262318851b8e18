"""Objects that carry their source text."""
import copy
import importlib.util
import inspect
import io
import pickle
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import dnnlib
from tests.tiny import latents, tiny_generator
from torch_utils import persistence
from training import networks

TEXT = '''"""A module with persistent classes."""
import abc

from torch_utils import persistence

LOADED = []


@persistence.persistent_class
class Plain:
    """Has no base class."""

    def __init__(self, x, *more, key=None):
        self.x = x
        self.key = key


class Undecorated(Plain):
    pass


@persistence.persistent_class
class Derived(Plain):
    def __init__(self, y):
        super().__init__(2 * y, key="derived")
        self.y = y


@persistence.persistent_class
class Abstract(abc.ABC):
    @abc.abstractmethod
    def f(self):
        pass


@persistence.persistent_class
class Choosy:
    def __getstate__(self):
        return {"chosen": 1}

    def __setstate__(self, state):
        self.set_by_state = state["chosen"]
'''


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Modules and hooks of one test are not known to the next."""
    modules, decorated = dict(persistence._modules_by_source), dict(persistence._decorated)
    loaded = set(sys.modules)
    yield
    for kept, now in [(modules, persistence._modules_by_source), (decorated, persistence._decorated)]:
        now.clear()  # type: ignore[attr-defined]
        now.update(kept)  # type: ignore[attr-defined]
    persistence._import_hooks.clear()
    for name in set(sys.modules) - loaded:
        if name.startswith(("persistent_test_", "embedded_")):
            del sys.modules[name]


Import = Callable[..., types.ModuleType]


@pytest.fixture
def import_text(tmp_path: Path) -> Import:
    """Imports a text as a module of a new name."""

    def load(text: str = TEXT, encoding: str = "utf-8") -> types.ModuleType:
        name = f"persistent_test_{len(list(tmp_path.iterdir()))}"
        path = tmp_path / f"{name}.py"
        path.write_text(text, encoding=encoding)
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def forget(module: types.ModuleType) -> None:
    """Makes this process one that has never seen a module."""
    persistence._modules_by_source.pop(inspect.getsource(module).removeprefix("\ufeff"))


def meta_of(obj: Any) -> dict[str, Any]:
    function, (meta,) = obj.__reduce_ex__(4)
    assert function is persistence._reconstruct_persistent_obj
    return meta


# ----------------------------------------------------------------------------------------------------------------------
# The decorator


def test_names_and_arguments(import_text: Import) -> None:
    module: Any = import_text()
    obj = module.Plain([1, 2], 3, key={"a": 1})
    assert (obj.x, obj.key) == ([1, 2], {"a": 1})
    assert obj.init_args == ([1, 2], 3)
    assert obj.init_kwargs == {"key": {"a": 1}}
    assert isinstance(obj.init_kwargs, dnnlib.EasyDict)
    assert module.Plain.__name__ == module.Plain._orig_class_name == "Plain"
    assert module.Plain.__doc__ == "Has no base class."
    assert module.Plain._orig_module_src == TEXT
    assert list(inspect.signature(module.Plain).parameters) == ["x", "more", "key"]


def test_arguments_are_copies(import_text: Import) -> None:
    module: Any = import_text()
    argument = [1]
    obj = module.Plain(argument, key=argument)
    argument.append(2)
    obj.init_args[0].append(3)
    obj.init_kwargs.key.append(4)
    assert obj.init_args == ([1],)
    assert obj.init_kwargs == {"key": [1]}


def test_is_persistent(import_text: Import) -> None:
    module: Any = import_text()
    for thing in (module.Plain, module.Plain(1), module.Derived):
        assert persistence.is_persistent(thing)
    for thing in (module.Undecorated, module.Undecorated(1), object, 3, torch.nn.Module()):
        assert not persistence.is_persistent(thing)


def test_decorating_twice(import_text: Import) -> None:
    module: Any = import_text()
    assert persistence.persistent_class(module.Plain) is module.Plain
    base = module.Plain.__mro__[2]
    assert base.__name__ == "Plain"
    assert persistence.persistent_class(base) is module.Plain


def test_class_derived_from_a_persistent_one(import_text: Import) -> None:
    module: Any = import_text()
    obj = pickle.loads(pickle.dumps(module.Derived(5)))
    assert type(obj) is module.Derived
    assert isinstance(obj, module.Plain)
    assert (obj.x, obj.y, obj.key) == (10, 5, "derived")
    assert obj.init_args == (5,)
    assert obj.init_kwargs == {}


def test_undecorated_class_derived_from_a_persistent_one_stays_what_it_is(import_text: Import) -> None:
    module: Any = import_text()
    obj = module.Undecorated(3)
    for copied in (copy.deepcopy(obj), pickle.loads(pickle.dumps(obj))):
        assert type(copied) is module.Undecorated
        assert copied.x == 3


def test_other_metaclasses(import_text: Import) -> None:
    module: Any = import_text()
    with pytest.raises(TypeError, match="abstract"):
        module.Abstract()


def test_text_begins_after_a_byte_order_mark(import_text: Import) -> None:
    module: Any = import_text(encoding="utf-8-sig")
    assert module.Plain._orig_module_src == TEXT


# ----------------------------------------------------------------------------------------------------------------------
# The stream


def test_what_is_stored(import_text: Import) -> None:
    module: Any = import_text()
    meta = meta_of(module.Plain(1, key=2))
    assert list(meta) == ["type", "version", "module_src", "class_name", "state"]
    assert (meta["type"], meta["version"], meta["class_name"]) == ("class", 6, "Plain")
    assert meta["module_src"] is module.Plain._orig_module_src
    assert meta["state"] == {"x": 1, "key": 2, "_init_args": (1,), "_init_kwargs": {"key": 2}}
    assert list(meta["state"]) == ["x", "key", "_init_args", "_init_kwargs"]
    assert type(meta["state"]) is dict


def test_text_is_stored_once(import_text: Import) -> None:
    module: Any = import_text()
    objects = [module.Plain(i) for i in range(10)] + [module.Derived(1)]
    assert pickle.dumps(objects).count(b"A module with persistent classes") == 1


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_known_text_gives_the_living_class(import_text: Import, protocol: int) -> None:
    module: Any = import_text()
    obj = pickle.loads(pickle.dumps(module.Plain(1, key=[2]), protocol))
    assert type(obj) is module.Plain
    assert (obj.x, obj.key, obj.init_kwargs) == (1, [2], {"key": [2]})


def test_state_methods_of_the_class_are_used(import_text: Import) -> None:
    module: Any = import_text()
    obj = module.Choosy()
    assert meta_of(obj)["state"] == {"chosen": 1}
    assert pickle.loads(pickle.dumps(obj)).set_by_state == 1


def test_unknown_text_is_refused(import_text: Import) -> None:
    module: Any = import_text()
    content = pickle.dumps(module.Plain(1))
    forget(module)
    before = set(sys.modules)
    with pytest.raises(pickle.UnpicklingError, match="embeds program text for class Plain, which is not executed by"):
        pickle.loads(content)
    assert set(sys.modules) == before


def test_unknown_text_is_executed_with_trust(import_text: Import) -> None:
    module: Any = import_text()
    content = pickle.dumps([module.Plain(1), module.Derived(2)])
    forget(module)
    with persistence.trusted():
        first, second = pickle.loads(content)
    assert type(first) is not module.Plain
    assert type(first).__module__.startswith("embedded_")
    assert sys.modules[type(first).__module__].Plain is type(first)
    assert isinstance(second, type(first))
    assert (second.x, second.init_args) == (4, (2,))
    assert meta_of(first)["module_src"] == TEXT
    assert type(pickle.loads(content)[0]) is type(first)  # known by now


def test_trust_ends(import_text: Import) -> None:
    module: Any = import_text()
    content = pickle.dumps(module.Plain(1))
    forget(module)
    with pytest.raises(KeyError), persistence.trusted():
        raise KeyError
    with pytest.raises(pickle.UnpicklingError, match="not executed by default"):
        pickle.loads(content)


def test_text_that_fails_leaves_nothing_behind(import_text: Import) -> None:
    module: Any = import_text()
    meta = {**meta_of(module.Plain(1)), "module_src": TEXT + "\nraise RuntimeError('at the end')\n"}
    before = set(sys.modules), dict(persistence._modules_by_source)
    for _ in range(2):
        with persistence.trusted(), pytest.raises(RuntimeError, match="at the end"):
            persistence._reconstruct_persistent_obj(meta)
        assert (set(sys.modules), persistence._modules_by_source) == before
    with pytest.raises(pickle.UnpicklingError, match="not executed by default"):
        persistence._reconstruct_persistent_obj(meta)


def test_class_that_is_not_decorated_in_its_text(import_text: Import) -> None:
    """Reading decorates it."""
    source = "class Bare:\n    def f(self):\n        return self.x + 1\n"
    meta = {"type": "class", "version": 6, "module_src": source, "class_name": "Bare", "state": {"x": 1}}
    with persistence.trusted():
        obj = persistence._reconstruct_persistent_obj(meta)
    assert persistence.is_persistent(obj)
    assert obj.f() == 2
    assert pickle.loads(pickle.dumps(obj)).f() == 2


@pytest.mark.parametrize(
    ("changed", "match"),
    [({"version": 5}, "found type 'class' of version 5"), ({"type": "function"}, "found type 'function' of version 6")],
)
def test_other_kinds_of_object(import_text: Import, changed: dict[str, Any], match: str) -> None:
    module: Any = import_text()
    with pytest.raises(pickle.UnpicklingError, match=f"expected type 'class' of version 6, {match}"):
        persistence._reconstruct_persistent_obj({**meta_of(module.Plain(1)), **changed})


# ----------------------------------------------------------------------------------------------------------------------
# Import hooks


def test_hooks_run_in_order_and_may_replace(import_text: Import) -> None:
    module: Any = import_text()
    noted = []

    @persistence.import_hook
    def first(meta: Any) -> Any:
        noted.append(("first", meta.class_name, meta.state.x))
        meta.version = 6
        return dnnlib.EasyDict(meta, state=dnnlib.EasyDict(meta.state, x=7))

    @persistence.import_hook
    def second(meta: Any) -> Any:
        noted.append(("second", meta.class_name, meta.state.x))
        return meta

    obj = persistence._reconstruct_persistent_obj({**meta_of(module.Plain(1)), "version": 5})
    assert obj.x == 7
    assert noted == [("first", "Plain", 1), ("second", "Plain", 7)]


def test_hooks_that_are_wrong(import_text: Import) -> None:
    module: Any = import_text()
    with pytest.raises(TypeError, match="import_hook: expected a callable, found int"):
        persistence.import_hook(3)  # type: ignore[arg-type]
    persistence.import_hook(lambda meta: None)
    with pytest.raises(TypeError, match="expected the meta dictionary, found None"):
        pickle.loads(pickle.dumps(module.Plain(1)))


# ----------------------------------------------------------------------------------------------------------------------
# Networks


@torch.no_grad()
def test_copies_of_a_network() -> None:
    G = tiny_generator(num_fp16_res=1, fp16_channels_last=True)
    z, c = latents(num=2)
    expected = G(z, c, noise_mode="const")
    buffer = io.BytesIO()
    torch.save(G, buffer)
    buffer.seek(0)
    copies = [copy.deepcopy(G), pickle.loads(pickle.dumps(G)), torch.load(buffer, weights_only=False)]
    for copied in copies:
        assert type(copied) is networks.Generator
        assert torch.equal(copied(z, c, noise_mode="const"), expected)
        assert copied.init_kwargs == G.init_kwargs
        assert [p.stride() for p in copied.parameters()] == [p.stride() for p in G.parameters()]
        assert not {p.data_ptr() for p in copied.parameters()} & {p.data_ptr() for p in G.parameters()}
        copied.synthesis.b4.const.add_(1)
    assert torch.equal(G(z, c, noise_mode="const"), expected)


def test_deep_copies_keep_gradients_possible() -> None:
    G = copy.deepcopy(tiny_generator()).train().requires_grad_(True)
    again = copy.deepcopy(G)
    assert again.training
    assert all(p.requires_grad for p in again.parameters())


def test_a_process_that_has_not_imported_the_class(tmp_path: Path) -> None:
    """It refuses, unless it trusts the file; no module of ours is imported on a file's behalf."""
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(tiny_generator(resolution=4)))
    script = (
        "import pickle, sys, torch_utils.persistence as p\n"
        "f = lambda: pickle.load(open(sys.argv[1], 'rb'))\n"
        "try: f()\n"
        "except pickle.UnpicklingError as error: print(error)\n"
        "assert 'training.networks' not in sys.modules\n"
        "with p.trusted(): print(type(f()).__name__)\n"
        "import training.networks\n"
        "print(f().num_ws)\n"
    )
    command = [sys.executable, "-W", "error", "-c", script, str(tmp_path / "x.pkl")]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "embeds program text for class" in lines[0]
    assert lines[1:] == ["Generator", "2"]
