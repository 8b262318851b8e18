"""The help text of every command line, as docs/cli has it.

    python -m tests.contract.help_texts

rewrites the files. Command lines are the Python files at the top, and the modules of our packages that end in a
call of `main`.
"""
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import click

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "cli"
PACKAGES = ("demo", "dgl", "dnnlib", "metrics", "torch_utils", "training")
WIDTH = 100


def commands() -> dict[str, click.Command]:
    """What a user types after `python ` → the command: train.py, -m dgl.cost, ..."""
    collected = {}
    for path in sorted(ROOT.glob("*.py")):
        collected[path.name] = _command(path.stem)
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if re.search(r"^if __name__ == .__main__.:$", path.read_text(encoding="utf-8"), re.MULTILINE):
                module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                collected[f"-m {module.removesuffix('.__main__')}"] = _command(module)
    return collected


def _command(module: str) -> click.Command:
    command = importlib.import_module(module).main
    assert isinstance(command, click.Command), f"{module}.main is not a click command"
    return command


def _texts(name: str, command: click.Command) -> Iterator[str]:
    """The help of a command and of its sub-commands."""
    context = click.Context(command, info_name=f"python {name}", terminal_width=WIDTH, max_content_width=WIDTH)
    yield command.get_help(context)
    if isinstance(command, click.Group):
        for sub_name, sub_command in command.commands.items():
            yield from _texts(f"{name} {sub_name}", sub_command)


def help_texts() -> dict[Path, str]:
    """File in docs/cli → what it must contain."""
    return {
        FOLDER / f"{name.removeprefix('-m ').removesuffix('.py')}.txt": "\n\n".join(_texts(name, command)) + "\n"
        for name, command in commands().items()
    }


def write() -> None:
    """Writes every file, and removes those of commands that are gone."""
    texts = help_texts()
    for path in FOLDER.glob("*.txt"):
        if path not in texts:
            path.unlink()
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
