"""Docstrings and annotations of the packages and command lines, counted on the syntax trees."""
import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("dnnlib", "torch_utils", "metrics", "training", "dgl")
PATHS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [*ROOT.glob("*.py"), *(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))]
)
# Their text is embedded in network pickles and stays free of what other code bases lack.
EMBEDDED = {"training/networks.py", "training/networks_biggan.py", "training/networks_stylegan3.py"}
# Errors for which a caller can do nothing: programming mistakes.
INTERNAL = {"AssertionError", "NotImplementedError"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def definitions(body: list[ast.stmt], prefix: str = "", public: bool = True) -> Iterator[tuple[str, ast.AST, bool]]:
    """Name, node and whether it is public, of every class, function and method, those in functions left out."""
    for node in body:
        if isinstance(node, (Function, ast.ClassDef)):
            is_public = public and not node.name.startswith("_")
            yield prefix + node.name, node, is_public
            if isinstance(node, ast.ClassDef):
                yield from definitions(node.body, f"{prefix}{node.name}.", is_public)


def parameters(function: Function) -> list[ast.arg]:
    """The parameters without self and cls."""
    args = function.args
    every = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
    return [arg for arg in every if arg is not None and arg.arg not in ("self", "cls")]


def own_nodes(function: Function) -> Iterator[ast.AST]:
    """The nodes of a function's body without those of functions in it."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, (Function, ast.Lambda, ast.ClassDef)):
            waiting.extend(ast.iter_child_nodes(node))


def raises_error(function: Function) -> bool:
    """Whether the body raises an exception by itself; a bare `raise` passes one on."""
    for node in own_nodes(function):
        if isinstance(node, ast.Raise) and node.exc is not None:
            called = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if ast.unparse(called).rpartition(".")[2] not in INTERNAL:
                return True
    return False


def is_command(function: Function) -> bool:
    """Whether it is a command of click, whose docstring is the help text."""
    return any(".command(" in ast.unparse(decorator) for decorator in function.decorator_list)


def takes_arrays(function: Function) -> bool:
    """Whether a tensor or an array is among the annotations."""
    annotations = [arg.annotation for arg in parameters(function)] + [function.returns]
    texts = [ast.unparse(annotation) for annotation in annotations if annotation is not None]
    return any("Tensor" in text or "ndarray" in text for text in texts)


def is_annotated(function: Function) -> bool:
    """Whether every parameter and the result have a type; the result of a constructor may lack it."""
    has_all = all(arg.annotation is not None for arg in parameters(function))
    return has_all and (function.returns is not None or (function.name == "__init__" and bool(parameters(function))))


def problems(source: str) -> list[str]:
    """What is missing in a file's text."""
    collected = []
    for name, node, is_public in definitions(ast.parse(source).body):
        text = ast.get_docstring(node) or ""  # type: ignore[arg-type]
        if isinstance(node, Function) and not is_annotated(node):
            collected.append(f"{name}: a parameter or the result has no type")
        if is_public and not text:
            collected.append(f"{name}: no docstring")
        if is_public and text and isinstance(node, Function):
            if raises_error(node) and not is_command(node) and "Raises:" not in text:
                collected.append(f"{name}: raises an error and has no `Raises:`")
            if takes_arrays(node) and "[" not in text:
                collected.append(f"{name}: tensors or arrays, and no shape in brackets")
    return collected


@pytest.mark.parametrize("path", [path for path in PATHS if path not in EMBEDDED])
def test_docstrings_and_annotations_are_complete(path: str) -> None:
    assert problems((ROOT / path).read_text(encoding="utf-8")) == []


def test_what_is_found() -> None:
    assert problems('def f(x: Tensor) -> None:\n    """X."""\n    raise ValueError("x")') == [
        "f: raises an error and has no `Raises:`",
        "f: tensors or arrays, and no shape in brackets",
    ]
    assert problems("class A:\n    def g(self, x): ...") == [
        "A: no docstring",
        "A.g: a parameter or the result has no type",
        "A.g: no docstring",
    ]
    good = 'def f(x: Tensor) -> None:\n    """X [n].\n\n    Raises:\n        ValueError: no.\n    """\n    raise Error'
    assert problems(good) == problems("def _f() -> None:\n    raise ValueError") == []
