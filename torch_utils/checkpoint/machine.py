"""The stack machine that a pickle is a program for, cut down to what network files need.

Python's own unpickler calls methods of whatever lies on the stack, hashes any object and trusts announced
sizes. This machine knows some forty operations, applies each to the plain types it is meant for, and calls nothing but
the functions it was given.
"""
import functools
import pickletools
import reprlib
import sys
from collections.abc import Callable
from typing import IO, Any, NoReturn

from .content import Content
from .errors import CheckpointError

_PUSH_ARGUMENT = {
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "BINSTRING", "SHORT_BINSTRING",
}  # fmt: skip
_PUSH_NEW: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_NUM_LINES = {"GLOBAL": 2, "INST": 2, "PERSID": 1}  # of text, as argument
_EXPANSION, _ALLOWANCE = 8, 64 << 20  # a file may take this multiple of its size, and so many bytes on top
_OBJECT, _ITEM = 1024, 104  # bytes, at most, of an object with attributes or a tensor, and of a dictionary's entry
_PLACE, _GRAIN = 16, 16  # bytes of a place in a growing list; CPython allocates multiples of the other
_MEASURED = (str, bytes, int, float, list, tuple, dict, set)
_MEASURED_TYPES = frozenset((*_MEASURED, bool))
_MAX_KEY = 2**61 - 1  # integers below hash to themselves
_MAX_ODD_KEYS = 4096
_SCALARS = (str, int, float, bool, bytes, type(None))


class Function:
    """A function that a stream may call, by REDUCE or NEWOBJ, and do nothing else with."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.call = function


class Unfinished:
    """An object that a stream completes with one BUILD."""

    def build(self, state: object) -> Any:
        """Returns the object that takes this one's place, everywhere.

        Raises:
            CheckpointError: the state does not fit.
        """
        raise NotImplementedError


class Sink:
    """Stands for an object that is of no interest: takes whatever a stream does to it and keeps nothing."""


class Budget:
    """The memory that a file, or a part of one, may take, about: a multiple of its own size.

    Args:
        num_bytes: size of the file.
        allowance: bytes on top.
    """

    def __init__(self, num_bytes: int, allowance: int = _ALLOWANCE) -> None:
        self.num_bytes = num_bytes
        self.limit = self.left = _EXPANSION * num_bytes + allowance

    def charge(self, num_bytes: int) -> None:
        """Counts memory that is taken, or is about to be.

        Raises:
            CheckpointError: it is too much for a file of this size.
        """
        self.left -= num_bytes
        if self.left < 0:
            raise CheckpointError(f"refused: a file of {self.num_bytes:,} bytes asks for more than {self.limit:,} "
                                  "bytes of memory")


def _size(value: object) -> int:
    """The bytes of memory that a new value takes, without what it refers to, and its place on the stack."""
    is_measured = type(value) in _MEASURED_TYPES or isinstance(value, _MEASURED)  # the former is quicker
    own = sys.getsizeof(value) if is_measured else _OBJECT + int(getattr(value, "nbytes", 0))
    return _PLACE + (own + _GRAIN - 1) // _GRAIN * _GRAIN


def checked_key(key: object) -> Any:
    """The key of a dictionary or element of a set, if it is flat: Python hashes nested tuples without limit.

    Raises:
        CheckpointError: it is not, or it is a number beyond those that hash to themselves.
    """
    if type(key) is str:
        return key
    numbers = (part for part in (key if isinstance(key, tuple) else [key]) if isinstance(part, int))
    if any(abs(number) >= _MAX_KEY for number in numbers):
        raise CheckpointError("the file uses a huge number as a key or as an element of a set")
    if not all(isinstance(part, (*_SCALARS, Sink)) for part in (key if isinstance(key, tuple) else [key])):
        raise CheckpointError(f"the file uses a {type(key).__name__} as a key or as an element of a set")
    return key


def check_collisions(container: dict | set) -> None:
    """Limits the keys whose hashes a file's author can choose: strings' are random, small integers' harmless.

    Raises:
        CheckpointError: there are too many others.
    """
    if len(container) > _MAX_ODD_KEYS:
        odd = sum(not isinstance(key, (str, bytes, int, Sink)) for key in container)
        if odd > _MAX_ODD_KEYS:
            raise CheckpointError(f"the file has {odd} keys in one dictionary or set that are no text and no integers")


def run(
    stream: IO[bytes] | Content,
    find_global: Callable[[str, str], Any],
    find_external: Callable[[Any], Any] | None = None,
    budget: Budget | None = None,
) -> Any:
    """Reads one pickle and leaves the stream behind its end.

    Args:
        stream: binary file, or a `Content`, whose large byte strings are then views (memoryview).
        find_global: (module, name) → what stands for it: a Function, a Sink, or a plain value.
        find_external: the same for persistent ids; None refuses them.
        budget: what the values may take; None is unlimited.

    Returns:
        None, numbers, strings, bytes, tuples, lists, dictionaries, sets, and what the functions returned.

    Raises:
        CheckpointError: an operation that is not known, or not allowed on its object.
        Exception: any other kind, for a stream that is damaged.
    """
    machine = _Machine(find_global, find_external, budget or Budget(1 << 50))
    while code := bytes(stream.read(1)):
        if code == b".":  # STOP
            return machine.pop()
        known = _BY_CODE.get(code)
        if known is None:
            _refuse(code, stream)
        execute, read_argument = known
        execute(machine, None if read_argument is None else read_argument(stream))
    raise EOFError("the end is missing")


def _refuse(code: bytes, stream: IO[bytes] | Content) -> NoReturn:
    """Raises the error about an operation that this machine does not have."""
    name = next((operation.name for operation in pickletools.opcodes if operation.code.encode("latin-1") == code), None)
    if name is None:
        raise ValueError(f"byte {code!r} is no pickle operation")
    detail = f" {' '.join(_read_lines(stream, _NUM_LINES[name]))!r}" if name in _NUM_LINES else ""
    raise CheckpointError(f"refused: the file uses the pickle operation {name}{detail}, "
                          "which no network pickle needs")


def _read_lines(stream: IO[bytes] | Content, count: int) -> list[str]:
    lines = [stream.readline() for _ in range(count)]
    if not lines[-1].endswith(b"\n"):
        raise EOFError("a line is not complete")
    return [line[:-1].decode() for line in lines]


class _Machine:
    def __init__(
        self,
        find_global: Callable[[str, str], Any],
        find_external: Callable[[Any], Any] | None,
        budget: Budget,
    ) -> None:
        self.budget = budget
        self.find_global = find_global
        self.find_external = find_external
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.places: dict[int, list[int]] = {}  # id of an Unfinished → its keys in the memo

    def push(self, value: object) -> None:
        """A new value, whose memory is counted."""
        self.budget.charge(_size(value))
        self.stack.append(value)

    def top(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise EOFError("the stack is empty")
        return self.stack[-1]

    def pop(self) -> Any:
        value = self.top()
        self.stack.pop()
        return value

    def pop_items(self) -> list[Any]:
        """All above the last mark."""
        start = self.marks.pop()
        items = self.stack[start:]
        self.budget.charge(_size(items))
        del self.stack[start:]
        return items

    def put(self, key: int) -> None:
        value = self.memo[key] = self.top()
        if isinstance(value, Unfinished):
            self.places.setdefault(id(value), []).append(key)

    def tuple_of(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.stack.append(tuple(items[::-1]))

    def add(self, kind: Any, items: list[Any]) -> None:
        """Items for the list or set on top of the stack; for a dictionary, keys and values in turn."""
        target = self.top()
        if isinstance(target, Sink):
            return
        if not isinstance(target, kind):
            raise CheckpointError(f"the file fills a {type(target).__name__} as if it were a {kind.__name__}")
        if kind is list:
            target.extend(items)
            return
        keys = [checked_key(key) for key in (items if kind is set else items[::2])]
        self.budget.charge(_ITEM * len(keys))
        size = len(target)
        target.update(keys if kind is set else zip(keys, items[1::2], strict=True))
        if size.bit_length() != len(target).bit_length():  # each time that it doubles
            check_collisions(target)

    def resolve(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("a global is named by something else than text")
        value = self.find_global(module, name)
        if not isinstance(value, Function):
            self.budget.charge(_size(value))
        self.stack.append(value)

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        if isinstance(function, Sink):
            self.stack.append(function)
            return
        if not isinstance(function, Function) or not isinstance(arguments, tuple):
            raise CheckpointError(f"refused: the file calls a {type(function).__name__}, which is no function")
        value = function.call(*arguments)
        self.budget.charge(_size(value))
        self.stack.append(value)

    def build(self) -> None:
        state, target = self.pop(), self.pop()
        if isinstance(target, Unfinished):
            finished = target.build(state)
            self.budget.charge(_size(finished))
            for key in self.places.pop(id(target), ()):
                if self.memo[key] is target:
                    self.memo[key] = finished
            target = finished
        elif not isinstance(target, Sink):
            raise CheckpointError(f"refused: the file tries to modify a {type(target).__name__}")
        self.stack.append(target)

    def external(self) -> None:
        pid = self.pop()
        if self.find_external is None:
            raise CheckpointError(f"refused: the file refers to an external object {reprlib.repr(pid)}")
        self.stack.append(self.find_external(pid))


_OPERATIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    "PROTO": lambda m, _: None,
    "FRAME": lambda m, _: None,
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.pop_items())),
    "TUPLE1": lambda m, _: m.tuple_of(1),
    "TUPLE2": lambda m, _: m.tuple_of(2),
    "TUPLE3": lambda m, _: m.tuple_of(3),
    "APPEND": lambda m, _: m.add(list, [m.pop()]),
    "APPENDS": lambda m, _: m.add(list, m.pop_items()),
    "SETITEM": lambda m, _: m.add(dict, [m.pop(), m.pop()][::-1]),
    "SETITEMS": lambda m, _: m.add(dict, m.pop_items()),
    "ADDITEMS": lambda m, _: m.add(set, m.pop_items()),
    "BINPUT": lambda m, key: m.put(key),
    "LONG_BINPUT": lambda m, key: m.put(key),
    "MEMOIZE": lambda m, _: m.put(len(m.memo)),
    "BINGET": lambda m, key: m.stack.append(m.memo[key]),
    "LONG_BINGET": lambda m, key: m.stack.append(m.memo[key]),
    "GLOBAL": lambda m, names: m.resolve(*names),
    "STACK_GLOBAL": lambda m, _: m.resolve(*[m.pop(), m.pop()][::-1]),
    "REDUCE": lambda m, _: m.call(),
    "NEWOBJ": lambda m, _: m.call(),
    "BUILD": lambda m, _: m.build(),
    "BINPERSID": lambda m, _: m.external(),
}


def _counted(operation: Callable[[_Machine, Any], Any]) -> Callable[[_Machine, Any], None]:
    """The same, after memory for an entry of a container has been counted."""

    def execute(machine: _Machine, argument: object) -> None:
        machine.budget.charge(_ITEM)
        operation(machine, argument)

    return execute


def _pushing(make: Callable[[], Any]) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.push(make())


def _byte(stream: IO[bytes] | Content) -> int:
    data = stream.read(1)
    if not data:
        raise ValueError("not enough data in stream to read uint1")
    return data[0]


def _reader(operation: pickletools.OpcodeInfo) -> Callable[[Any], Any] | None:
    """How the argument of an operation is read; None if it has none."""
    if operation.name in _NUM_LINES:
        return functools.partial(_read_lines, count=_NUM_LINES[operation.name])
    if operation.arg is None or operation.arg is pickletools.uint1:
        return _byte if operation.arg else None
    return operation.arg.reader


_EXECUTED: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(_PUSH_ARGUMENT, _Machine.push),
    **{name: _pushing(make) for name, make in _PUSH_NEW.items()},
    **{name: _counted(operation) for name, operation in _OPERATIONS.items()},
}
_BY_CODE = {operation.code.encode("latin-1"): (_EXECUTED[operation.name], _reader(operation))
            for operation in pickletools.opcodes if operation.name in _EXECUTED}
