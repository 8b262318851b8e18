"""Hostile network pickles: refused with one line that names the file and the offender, nothing executed or changed."""
import pickle
from pathlib import Path

import pytest

from tests.torch_utils.checkpoint import streams as s
from tests.torch_utils.checkpoint.hostile import NamedFile, refuse
from torch_utils import checkpoint

pytestmark = pytest.mark.usefixtures("unchanged")


# ----------------------------------------------------------------------------------------------------------------------
# Names


@pytest.mark.parametrize(
    ("module", "attribute"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("nt", "system"),
        ("subprocess", "Popen"),
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("builtins", "getattr"),
        ("builtins", "__import__"),
        ("__builtin__", "eval"),
        ("builtins", "setattr"),
        ("importlib", "import_module"),
        ("torch", "load"),
        ("torch.storage", "_load_from_bytes.__globals__"),
        ("torch.hub", "load"),
        ("torch._utils", "_rebuild_tensor"),
        ("torch.nn.modules.linear", "Identity"),
        ("numpy", "load"),
        ("numpy", "dtype.type"),
        ("numpy.core.multiarray", "_reconstruct.__globals__"),
        ("dnnlib.util", "call_func_by_name"),
        ("dnnlib.util", "EasyDict.__init__"),
        ("dnnlib.util", "EasyDict.__init__.__globals__"),
        ("torch_utils.persistence", "trusted"),
        ("torch_utils.persistence", "_reconstruct_persistent_obj.__globals__"),
        ("torch_utils.checkpoint.allowed_globals", "GLOBALS"),
        ("copyreg", "__newobj__"),
        ("collections", "OrderedDict.__reduce__"),
        ("some_package", "Network"),
        ("", ""),
    ],
)
@pytest.mark.parametrize("operation", [b"R", b"\x81"], ids=["REDUCE", "NEWOBJ"])
def test_global_that_is_not_needed(module: str, attribute: str, operation: bytes, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    arguments = s.plain(f"touch {marker}")
    full_name = f"{module}.{attribute}".replace(".", r"\.")
    match = f"refused: the file names {full_name}, which no network pickle needs.*`trust_pickle` only if you trust"
    refuse(s.stream(s.call(module, attribute, arguments, operation=operation)), match)
    by_stack = s.plain(module) + s.plain(attribute) + b"\x93" + s.tuple_of(arguments) + operation
    refuse(s.stream(by_stack, protocol=4), match)
    assert not marker.exists()


def test_classic_exploit_of_protocol_0(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    refuse(f"cos\nsystem\n(S'touch {marker}'\ntR.".encode(), r"names os\.system")
    refuse(f"(S'touch {marker}'\nios\nsystem\n.".encode(), "uses the pickle operation STRING")
    assert not marker.exists()


def test_python_agrees_that_the_exploit_would_have_worked(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    data = s.stream(s.call("posix", "system", s.plain(f"touch {marker}")))
    pickle.loads(data)
    assert marker.exists()


@pytest.mark.parametrize(
    ("parts", "match"),
    [
        (s.plain(1) + s.plain("system") + b"\x93", "something else than text"),
        (s.plain("os") + b"]" + b"\x93", "something else than text"),
        (s.plain("os\nimport sys") + s.plain("x") + b"\x93", r"names os\\nimport sys\.x,"),
        (s.plain("\x1b[31mos") + s.plain("x") + b"\x93", r"names \\x1b\[31mos\.x,"),
        (s.plain("\u202eso") + s.plain("x") + b"\x93", r"names \\u202eso\.x,"),
        (s.plain("a" * 100_000) + s.plain("x") + b"\x93", r"names aaa.* \.\.\. .*`trust_pickle` only if you trust"),
        (b"cos system\n.\n", r"names os system\.\.,"),
        (b"cos\\u0000\nx\n", r"names os\\u0000\.x,"),
        (b"cos\nsystem", "EOFError: a line is not complete"),
        (b"cos\n\xff\xfe\n", "UnicodeDecodeError"),
        (b"\x93", "EOFError: the stack is empty"),
    ],
)
def test_names_of_odd_shape(parts: bytes, match: str) -> None:
    assert len(refuse(s.stream(parts, protocol=4), match)) < 1100


@pytest.mark.parametrize(
    ("parts", "match"),
    [
        (b"\x82\x01", "operation EXT1,"),
        (b"\x83\x01\x00", "operation EXT2,"),
        (b"\x84\x01\x00\x00\x00", "operation EXT4,"),
        (b"P0\n", "operation PERSID '0',"),
        (s.plain("x") + b"Q", "refers to an external object 'x'"),
        (b"(ios\nsystem\n", r"operation INST 'os system',"),
        (b"(" + s.name("dnnlib.util", "EasyDict") + b"o", "operation OBJ,"),
        (s.name("dnnlib.util", "EasyDict") + b")}\x92", "operation NEWOBJ_EX,"),
        (b"N2", "operation DUP,"),
        (b"\x97", "operation NEXT_BUFFER,"),
        (b"N\x98", "operation READONLY_BUFFER,"),
    ],
)
def test_operations_that_no_network_needs(parts: bytes, match: str) -> None:
    refuse(s.stream(parts, protocol=5), f"refused: the file (uses the pickle )?{match}")


# ----------------------------------------------------------------------------------------------------------------------
# Program text


def test_embedded_text_is_not_executed(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    source = f"open({str(marker)!r}, 'w')\nclass Generator: pass\n"
    data = s.stream(s.persistent(module_src=source))
    record = checkpoint.read(NamedFile(data))
    assert record.source == source
    assert not marker.exists()
    assert source not in repr(record)


@pytest.mark.parametrize(
    ("meta", "match"),
    [
        ({"version": s.plain(5)}, "expected type 'class' of version 6, found type 'class' of version 5"),
        ({"version": s.plain(True)}, "version True"),
        ({"version": s.plain(6.0)}, r"version 6\.0"),
        ({"type": s.plain("function")}, "found type 'function'"),
        ({"type": b"]"}, r"found type \[\]"),
        ({"state": s.plain([])}, "state: expected a dict, found a list"),
        ({"state": b"N"}, "state: expected a dict, found a NoneType"),
        ({"class_name": s.plain(3)}, "class_name: expected a str, found a int"),
        ({"module_src": b"N"}, "module_src: expected a str, found a NoneType"),
    ],
)
def test_malformed_persistent_object(meta: dict[str, bytes], match: str) -> None:
    refuse(s.stream(s.persistent(**meta)), match)


def test_persistent_object_of_something_else_than_a_dictionary() -> None:
    refuse(s.stream(s.call(*s.RECONSTRUCT, b"]")), "persistent object: expected a dict, found a list")
    refuse(s.stream(s.call(*s.RECONSTRUCT, b"}")), "found type None of version None")
    refuse(s.stream(s.call(*s.RECONSTRUCT)), "TypeError")


# ----------------------------------------------------------------------------------------------------------------------
# Changing what exists

_STATE = s.plain({"__class__": 1, "call": "x", "state": "x", "__call__": "x"})
_SLOT_STATE = s.tuple_of(b"N", _STATE)  # Python's unpickler would setattr() these


@pytest.mark.parametrize("state", [_STATE, _SLOT_STATE, b"N", b"]"], ids=["dict", "slots", "None", "list"])
@pytest.mark.parametrize(
    ("target", "kind"),
    [
        (s.name(*s.RECONSTRUCT), "Function"),
        (s.name("dnnlib.util", "EasyDict"), "Function"),
        (s.name("numpy", "dtype"), "Function"),
        (s.name("builtins", "set"), "Function"),
        (s.name("dnnlib.tflib.network", "Network"), "Function"),
        (s.persistent(), "ModuleRecord"),
        (s.call("dnnlib.util", "EasyDict"), "dict"),
        (s.call("collections", "OrderedDict", operation=b"\x81"), "dict"),
        (b"]", "list"),
        (s.plain("text"), "str"),
        (s.storage([1.0]), "Storage"),
        (s.tensor(s.storage([1.0, 2.0])), "Tensor"),
    ],
)
def test_build_on_anything_of_ours(target: bytes, kind: str, state: bytes) -> None:
    refuse(s.stream(target, state, b"b", protocol=3), f"refused: the file tries to modify a {kind}")


@pytest.mark.parametrize(
    ("parts", "match"),
    [
        (s.name("dnnlib.util", "EasyDict") + s.plain("x") + b"Ns", "fills a Function as if it were a dict"),
        (s.persistent() + s.plain("x") + b"Ns", "fills a ModuleRecord as if it were a dict"),
        (b"]" + s.plain(0) + b"Ns", "fills a list as if it were a dict"),
        (b"}Na", "fills a dict as if it were a list"),
        (s.tensor(s.storage([1.0, 2.0])) + b"(" + s.tensor(s.storage([1.0, 2.0])) + b"\x90", "fills a Tensor as if"),
        (s.tensor(s.storage([1.0, 2.0])) + s.plain(0) + s.plain(1.5) + b"s", "fills a Tensor as if"),
        (b"\x8f(]\x90", "uses a list as a key or as an element"),
        (b"}]Ns", "uses a list as a key or as an element"),
        (b"}" + s.tuple_of(b"))") + b"Ns", "uses a tuple as a key"),
        (b"}(" + s.plain("x") + b"u", "ValueError"),
        (s.call("builtins", "set", s.tuple_of(b"]")), "uses a list as a key or as an element"),
        (s.call("collections", "OrderedDict", s.plain([("x", 1, 2)])), "ValueError"),
        (b"N)R", "refused: the file calls a NoneType, which is no function"),
        (s.plain("x") + b")R", "calls a str"),
        (s.persistent() + b")R", "calls a ModuleRecord"),
        (s.name("dnnlib.util", "EasyDict") + b"]R", "calls a Function"),
        (s.name(*s.RECONSTRUCT) + s.tuple_of(b"}", b"}") + b"R", "TypeError"),
    ],
)
def test_operations_on_the_wrong_object(parts: bytes, match: str) -> None:
    refuse(s.stream(parts, protocol=4), match)


@pytest.mark.parametrize(
    ("parts", "match"),
    [
        (s.call("numpy", "dtype", s.plain("O8")), "NumPy type 'O8' is not a plain number type"),
        (s.call("numpy", "dtype", s.plain("f4,O")), "NumPy type 'f4,O' is not"),
        (s.call("numpy", "dtype", s.plain("f4,f4")), "is not a plain number type"),
        (s.call("numpy", "dtype", s.plain("V1000000000")), "is not a plain number type"),
        (s.call("numpy", "dtype", b"]"), r"NumPy type \[\] is not"),
        (s.call("numpy", "dtype", s.plain("f8")) + s.tuple_of(s.plain(3), s.plain("S")) + b"b", "'f8': malformed"),
        (s.call("numpy", "dtype", s.plain("f8")) + b"Nb", "TypeError"),
        (s.call("numpy.core.multiarray", "scalar", b"N", b"N"), "NumPy scalar: expected a dtype, found a NoneType"),
        (s.call("numpy.core.multiarray", "_reconstruct") + b"}b", "ValueError"),
        (
            s.call("numpy._core.multiarray", "_reconstruct") + s.tuple_of(b"NN", s.plain("O"), b"NN") + b"b",
            "NumPy array: expected a dtype, found a str",
        ),
        (s.call("_codecs", "encode", s.plain("x"), s.plain("rot13")), "unexpected text encoding 'rot13'"),
        (s.call("_codecs", "encode", b"N", s.plain("latin1")), "text: expected a str"),
        (s.call("_codecs", "encode", s.plain("\u20ac"), s.plain("latin1")), "UnicodeEncodeError"),
        (s.call("torch._utils", "_rebuild_parameter", b"NNN"), "parameter: expected a Tensor, found a NoneType"),
        (s.call("dnnlib.tflib.network", "Network") + b"]b", "TensorFlow network: expected a state dictionary"),
    ],
)
def test_wrong_arguments(parts: bytes, match: str) -> None:
    refuse(s.stream(parts, protocol=4), match)


def test_array_whose_shape_and_bytes_differ() -> None:
    dtype = s.call("numpy", "dtype", s.plain("f4")) + s.plain((3, "<", None, None, None, -1, -1, 0)) + b"b"
    state = s.tuple_of(s.plain(1), s.plain((10**12,)), dtype, s.plain(False), s.raw(b"\0\0\0\0"))
    parts = s.call("numpy.core.multiarray", "_reconstruct") + state + b"b"
    refuse(s.stream(parts, protocol=3), "ValueError: cannot reshape array of size 1")
