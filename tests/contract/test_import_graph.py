"""The import graph of the packages: no circles, and the wings of training/ keep to their side of the house."""
import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("dnnlib", "torch_utils", "metrics", "training", "dgl")
CORE_MODULES = 20  # at most so many modules stand in training/ itself
LOOP_LINES, LOOP_IFS, LOOP_ARGUMENTS = 250, 16, 6  # the most of training_loop.py: everybody reads it


def module_name(path: Path, root: Path) -> str:
    """The dotted name of a file."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def import_graph(root: Path, packages: tuple[str, ...]) -> dict[str, set[str]]:
    """Module → modules of these packages that it imports, inside functions too."""
    files = {module_name(path, root): path for package in packages for path in sorted((root / package).rglob("*.py"))}

    def targets(name: str, path: Path) -> set[str]:
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        collected: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                collected |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                ancestors = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                base = ".".join([*ancestors, *([node.module] if node.module else [])])
                dotted = [f"{base}.{alias.name}" for alias in node.names]
                collected |= {name if name in files else base for name in dotted}
        return {target for target in collected if target in files and target != name}

    return {name: targets(name, path) for name, path in files.items()}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of some circle; none if there is no circle."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for target in sorted(graph[name]):
            result = visit(target, [*path, name])
            if result:
                return result
        done.add(name)
        return []

    return next((result for name in graph if (result := visit(name, []))), [])


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    return import_graph(ROOT, PACKAGES)


def test_circles_are_found(tmp_path: Path) -> None:
    package = tmp_path / "p"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("from . import b\n")
    (package / "b.py").write_text("def f():\n    from p.c import x\n")
    (package / "c.py").write_text("x = 1\n")
    assert circle(import_graph(tmp_path, ("p",))) == []
    (package / "c.py").write_text("import p.a\n")
    assert circle(import_graph(tmp_path, ("p",))) == ["p.a", "p.b", "p.c", "p.a"]


def test_there_is_no_circle(graph: dict[str, set[str]]) -> None:
    assert circle(graph) == []


def test_the_core_of_training_is_small() -> None:
    assert len(list((ROOT / "training").glob("*.py"))) <= CORE_MODULES


def wing_arrows(graph: dict[str, set[str]], wing: str) -> set[str]:
    """Modules of training/ outside a wing that the wing imports."""
    inside = f"training.{wing}"
    return {
        target
        for name, targets in graph.items() if name == inside or name.startswith(inside + ".")
        for target in targets if target.startswith("training.") and not target.startswith(inside)
    }


def test_data_sets_know_nothing_of_training(graph: dict[str, set[str]]) -> None:
    assert wing_arrows(graph, "data") == set()


def test_network_files_know_networks_alone(graph: dict[str, set[str]]) -> None:
    outside = wing_arrows(graph, "checkpoints")
    networks = {name for name in graph if name.startswith("training.networks")}
    assert outside <= {"training.architectures", "training.augment", *networks}


def test_families_are_known_by_the_registry_alone(graph: dict[str, set[str]]) -> None:
    """Nothing outside the wing of a family imports it, neither the core nor the other wings."""
    arrows = {
        (name, target)
        for name, targets in graph.items() if name.startswith("training.")
        for target in targets for wing in ("training.biggan", "training.stylegan3")
        if target.startswith(wing) and not name.startswith(wing)
    }
    assert arrows == set()


def test_the_loop_stays_short() -> None:
    text = (ROOT / "training" / "training_loop.py").read_text(encoding="utf-8")
    tree = ast.parse(text)
    loop = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "training_loop")
    assert len(text.splitlines()) <= LOOP_LINES
    assert sum(isinstance(node, ast.If) for node in ast.walk(tree)) <= LOOP_IFS
    assert len(loop.args.args) <= LOOP_ARGUMENTS
