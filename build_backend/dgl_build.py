"""Builds the wheel: the package `dgl`, with everything else inside it, so that no common name is taken.

The source tree has packages called training, metrics, dnnlib and torch_utils, which users have of their own. In the
wheel they are dgl._core.training and so on, and the command lines are modules beside them. Import statements are
rewritten for that; dotted names in strings stay, `dnnlib.installed` translates them.
"""
import ast
import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from setuptools import build_meta

ROOT = Path(__file__).parents[1]
PACKAGES = ("dnnlib", "torch_utils", "metrics", "training")
PREFIX = "dgl._core"
_ABOUT = ("README.md", "LICENSE", "NOTICE")
_SKIPPED = shutil.ignore_patterns("__pycache__", "*.pyc")


def rewritten(source: str, moved: set[str]) -> str:
    """Program text whose imports of moved top-level modules lead into the package.

    Raises:
        ValueError: an import of a form that no file of this project uses.
    """
    lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] in moved:
            pattern, replacement = rf"from {node.module}\b", f"from {PREFIX}.{node.module}"
        elif isinstance(node, ast.Import) and any(alias.name.split(".")[0] in moved for alias in node.names):
            if len(node.names) > 1 or "." in node.names[0].name:
                raise ValueError(f"line {node.lineno}: expected `import NAME` of one module, or `from ... import`")
            pattern, replacement = rf"import {node.names[0].name}\b", f"from {PREFIX} import {node.names[0].name}"
        else:
            continue
        line = lines[node.lineno - 1]
        start = len(line.encode()[: node.col_offset].decode())
        lines[node.lineno - 1] = line[:start] + re.sub(pattern, replacement, line[start:], count=1)
    return "".join(lines)


def stage(folder: Path) -> None:
    """Lays out what goes into the wheel: dgl/, dgl/_core/ and a pyproject.toml that packs them."""
    core = folder / "dgl" / "_core"
    shutil.copytree(ROOT / "dgl", folder / "dgl", ignore=_SKIPPED)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, core / package, ignore=_SKIPPED)
    scripts = sorted(ROOT.glob("*.py"))
    for script in scripts:
        shutil.copy(script, core)
    (core / "__init__.py").write_text('"""The packages and command lines of the source tree."""\n')
    moved = {*PACKAGES, *(script.stem for script in scripts)}
    for path in (folder / "dgl").rglob("*.py"):
        path.write_text(rewritten(path.read_text(encoding="utf-8"), moved), encoding="utf-8")
    for name in _ABOUT:
        shutil.copy(ROOT / name, folder)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = re.sub(r"^backend-path = .*\n", "", project, flags=re.MULTILINE)
    project = project.replace('build-backend = "dgl_build"', 'build-backend = "setuptools.build_meta"')
    project = project.replace("packages = []", 'packages.find.include = ["dgl*"]\npackage-data = {"*" = ["**/*"]}')
    (folder / "pyproject.toml").write_text(project, encoding="utf-8")


@contextlib.contextmanager
def _staged() -> Iterator[None]:
    """Within this context the current folder holds what `stage` lays out."""
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        stage(Path(folder))
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(here)


# What a build front end calls (PEP 517). There is no editable installation: the tree itself is the editable form.


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """Nothing beyond pyproject.toml."""
    return []


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """Writes the wheel into a folder and returns its name."""
    target = os.path.abspath(wheel_directory)
    with _staged():
        return build_meta.build_wheel(target, config_settings)


