"""No text below the command lines quotes one of their flags: a caller in Python never typed them."""
import ast
import re
from pathlib import Path

import click

from tests.contract import help_texts

ROOT = Path(__file__).parents[2]
PACKAGES = ("dnnlib", "torch_utils", "metrics", "training", "dgl")
MAKES_OPTIONS = re.compile(r"click\.(?:command|group|option)\(|OptionError\(")
# Modules that call other programs, with the flags of those.
CALLERS = {"torch_utils/ops/backend/nvcc.py", "torch_utils/ops/backend/nvrtc.py", "training/reporting.py"}
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


def is_command_line(path: Path) -> bool:
    """Whether a module makes a command line or its options, or is a program of its own."""
    is_caller = path.relative_to(ROOT).as_posix() in CALLERS
    return is_caller or MAKES_OPTIONS.search(path.read_text(encoding="utf-8")) is not None


def quoted_flags(text: str) -> list[tuple[int, str]]:
    """Line and flag of every flag in a string of a program, its docstrings aside."""
    tree = ast.parse(text)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return [
        (node.lineno, match[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
        for match in FLAG.finditer(node.value)
    ]


def test_flags_are_found() -> None:
    assert quoted_flags('"""--a-docstring"""\nx = f"pass --gamma={1} or --no-x"\ny = "a--b ---"\n') == [
        (2, "--gamma"), (2, "--no-x")]


def test_libraries_quote_no_flags() -> None:
    collected = {
        f"{path.relative_to(ROOT)}:{line}": flag
        for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")) if not is_command_line(path)
        for line, flag in quoted_flags(path.read_text(encoding="utf-8"))
    }
    assert collected == {}


# Booleans that existing command lines of NVIDIA's scripts give a value to.
WITH_VALUE = {"mirror", "verbose", "cond", "fp32", "nhwc", "allow_tf32", "nobench", "force_fp16", "save_video"}


def test_booleans_follow_one_rule() -> None:
    """A value where NVIDIA's scripts have one, else a flag that is off, or a pair that is on or depends on the run."""
    num_valued = 0
    for name, command in help_texts.commands().items():
        parts = [command, *(command.commands.values() if isinstance(command, click.Group) else [])]
        for option in (option for part in parts for option in part.params if isinstance(option, click.Option)):
            context = f"{name} {option.opts[0]}"
            default = option.get_default(click.Context(command))
            if option.is_flag and option.secondary_opts:
                assert default is not False, f"{context} is off by default"
            elif option.is_flag:
                assert not default, f"{context} is on by default"
                assert not str(option.name).startswith("no_"), f"{context} is a pair's second half"
            elif "Bool" in type(option.type).__name__:
                assert option.name in WITH_VALUE, f"{context} takes a value"
                num_valued += 1
    assert num_valued >= len(WITH_VALUE)
