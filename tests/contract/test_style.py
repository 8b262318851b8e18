"""Rules of form that no linter checks: the first lines of a file, the width of prose, and its words."""
import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOP = ("dnnlib", "torch_utils", "metrics", "training", "dgl", "benchmarks", "demo", "docs", "tests")
SOURCES = sorted([*ROOT.glob("*.py"), *(path for folder in TOP for path in (ROOT / folder).rglob("*.py"))])
# Pages that programs write, and lists of short entries.
UNWRAPPED = {"CHANGELOG.md", "docs/results/compress_fmnist.md", "docs/results/distil_fmnist.md",
             "docs/results/compress_biggan.md", "docs/results/robustness.md", "docs/benchmarks/cuda_kernels.md"}
PAGES = [
    path for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("demo/**/*.md")])
    if path.relative_to(ROOT).as_posix() not in UNWRAPPED
]
PACKAGES = (".", *TOP)
WIDTH = 100
PRIVATE_WORDS = re.compile(r"\b(?:go(?:es|ing)? on|went on|upkeep|settles?|addends?|anew|afresh|got)\b")
# Functions that say this in Python's own message are quoted by tests.
QUOTED = re.compile("got an unexpected keyword")
# Names that do not say what they hold; a mistake's text has the word "found".
VAGUE_NAMES = {"found", "seen", "told", "one", "theirs", "what", "upkeep", "say", "settle", "rim", "trimmed", "renew",
               "addend", "asked"}


def vague_names(source: str) -> list[str]:
    """The names that a program's text binds and that say nothing."""
    nodes = list(ast.walk(ast.parse(source)))
    names = [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    names += [node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)]
    names += [node.arg for node in nodes if isinstance(node, ast.arg)]
    names += [node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return [name for name in names if name.strip("_") in VAGUE_NAMES]


def blank_after_docstring(source: str) -> bool:
    """Whether a blank line separates a module's docstring from its first statement, which is no definition."""
    body = ast.parse(source).body
    if len(body) < 2 or not isinstance(body[0], ast.Expr) or isinstance(body[1], ast.ClassDef | ast.FunctionDef):
        return False
    return source.splitlines()[body[0].end_lineno or 0] == ""


def wide_lines(text: str) -> list[str]:
    """The lines of prose that are longer than they may be; tables, code and single words are not prose."""
    wide, is_code = [], False
    for line in text.splitlines():
        is_code ^= line.lstrip().startswith("```")
        breakable = re.sub("`[^`]*`", "code", line).strip()[2:]
        if len(line) > WIDTH and not is_code and not line.startswith(("|", "    ")) and " " in breakable:
            wide.append(line)
    return wide


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_prose_is_wrapped(path: Path) -> None:
    assert wide_lines(path.read_text(encoding="utf-8")) == []


def test_no_blank_line_after_a_docstring_of_a_module() -> None:
    assert [str(path) for path in SOURCES if blank_after_docstring(path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("path", [path for path in PAGES if path.name != "glossary.md"],
                         ids=lambda path: path.relative_to(ROOT).as_posix())
def test_pages_use_the_words_of_the_glossary(path: Path) -> None:
    assert PRIVATE_WORDS.findall(path.read_text(encoding="utf-8")) == []


def test_programs_use_the_words_of_the_glossary() -> None:
    """In comments, docstrings and messages."""
    text = {path: QUOTED.sub("", path.read_text(encoding="utf-8")) for path in SOURCES if path != Path(__file__)}
    assert {str(path): words for path, source in text.items() if (words := PRIVATE_WORDS.findall(source))} == {}


def test_defaults_are_shown_by_click() -> None:
    """`show_default`, not a text in brackets of one's own."""
    assert [str(path) for path in SOURCES if path != Path(__file__) and "[default:" in path.read_text(encoding="utf-8")
            and "tests" not in path.relative_to(ROOT).parts] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_names_say_what_they_hold(package: str) -> None:
    paths = (ROOT / package).rglob("*.py") if package != "." else ROOT.glob("*.py")
    assert {str(path): names for path in paths if (names := vague_names(path.read_text(encoding="utf-8")))} == {}


def test_the_checks_find_something() -> None:
    assert vague_names("def f(seen): found = seen[0]\n") == ["found", "seen"]
    assert blank_after_docstring('"""A."""\n\nimport os\n')
    assert not blank_after_docstring('"""A."""\nimport os\n')
    assert not blank_after_docstring('"""A."""\n\n\ndef f(): ...\n')
    assert wide_lines("word " * 30 + "\n```\n" + "code " * 30 + "\n```\n| " + "x " * 60) == ["word " * 30]
    assert PRIVATE_WORDS.findall("the run goes on; it resumes") == ["goes on"]
