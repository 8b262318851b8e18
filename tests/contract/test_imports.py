"""Who may import whom, and what the command lines import at start."""
import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Package → the project's packages it may import besides itself.
ALLOWED = {
    "dnnlib": set(),
    "torch_utils": {"dnnlib"},
    "metrics": {"dnnlib", "torch_utils"},
    "training": {"dnnlib", "torch_utils", "metrics"},
    "dgl": {"dnnlib", "torch_utils", "metrics", "training"},
}
SCRIPTS = sorted(path.stem for path in ROOT.glob("*.py"))
OURS = {*ALLOWED, *SCRIPTS, "tests", "benchmarks"}
DNNLIB_LIBRARIES = {"numpy", "requests", "click"}


def imports(path: Path) -> set[str]:
    """The top-level names of all modules that a file imports, inside functions too; relative imports are its own."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module or "")
    return {name.split(".")[0] for name in names}


def sources(package: str) -> list[Path]:
    """All Python files of a package."""
    result = sorted((ROOT / package).rglob("*.py"))
    assert result, f"{package} has no files"
    return result


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_only_what_they_may(package):
    allowed = ALLOWED[package] | {package}
    wrong = {
        str(path.relative_to(ROOT)): names for path in sources(package) if (names := imports(path) & OURS - allowed)
    }
    assert wrong == {}


def test_dnnlib_needs_little():
    wrong = {
        str(path.relative_to(ROOT)): names
        for path in sources("dnnlib")
        if (names := imports(path) - sys.stdlib_module_names - DNNLIB_LIBRARIES - {"dnnlib"})
    }
    assert wrong == {}


@pytest.mark.parametrize("package", [name for name in ALLOWED if name != "dgl"])
def test_the_rest_does_not_know_the_plugin(package):
    wrong = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sources(package)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"\bdgl\b", line, re.IGNORECASE)
    ]
    assert wrong == []


def test_command_lines_load_without_torch():
    scripts = [name for name in SCRIPTS if "click" in imports(ROOT / f"{name}.py")]
    lines = ["import sys", *(f"import {name}; print('{name}', 'torch' in sys.modules)" for name in scripts)]
    run = subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=ROOT, capture_output=True, text=True)
    assert (run.stdout.splitlines(), run.stderr) == ([f"{name} False" for name in scripts], "")
