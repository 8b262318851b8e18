"""The documents say what the program does: help texts, command lines, links."""
import re
import shlex
from pathlib import Path

import click
import pytest

from dgl.__main__ import COMMANDS as COMMANDS_OF_DGL
from tests.contract import help_texts

COMMANDS = help_texts.commands()
DOCUMENTS = sorted([*help_texts.ROOT.glob("*.md"), *help_texts.ROOT.glob("docs/**/*.md"),
                    *help_texts.ROOT.glob("demo/**/*.md")])
FILES_THAT_NEED_TO_EXIST = {"networks"}  # parameters whose type opens files


def command_lines() -> list[tuple[str, str]]:
    """(document, command line) of every line in a code block that starts with `python`, continuations joined."""
    collected = []
    for path in [*DOCUMENTS, *help_texts.FOLDER.glob("*.txt")]:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        blocks = re.findall(r"^```.*?$(.*?)^```", text, re.DOTALL | re.MULTILINE) if path.suffix == ".md" else [text]
        for block in blocks:
            for match in re.finditer(r"^\s*(?:\$ )?python (.*?)\s*(?:#.*)?$", block, re.MULTILINE):
                collected.append((path.relative_to(help_texts.ROOT).as_posix(), match[1]))
    return collected


def resolve(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that a line calls, and its arguments."""
    name = " ".join(words[:2]) if words[0] == "-m" else words[0]
    command, args = COMMANDS[name], words[2 if words[0] == "-m" else 1:]
    if isinstance(command, click.Group):
        sub_name = args[0] if args and args[0] in command.commands else "convert"
        return command.commands[sub_name], args[args[:1] == [sub_name]:]
    return command, args


@pytest.mark.parametrize("path", help_texts.help_texts(), ids=lambda path: path.stem)
def test_help_texts_are_current(path: Path) -> None:
    assert path.is_file(), "run `make docs`"
    assert path.read_text(encoding="utf-8") == help_texts.help_texts()[path], "run `make docs`"


def test_there_are_no_other_help_texts() -> None:
    assert set(help_texts.FOLDER.iterdir()) == set(help_texts.help_texts())


def test_the_table_of_the_installed_command_is_complete() -> None:
    text = (help_texts.ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`dgl .*?`) \|", text, re.MULTILINE)
    assert sorted(re.findall(r"`dgl (\w+)`", " ".join(rows))) == sorted(COMMANDS_OF_DGL)


def test_documents_show_commands() -> None:
    assert {document for document, _ in command_lines()} >= {"README.md", "docs/cli/train.txt"}


@pytest.mark.parametrize(("document", "line"), command_lines())
def test_command_lines_parse(document: str, line: str) -> None:
    words = shlex.split(line)
    if words[:2] == ["-m", "tests.golden_report"] or "..." in words:
        pytest.skip("not one of the command lines")
    command, args = resolve(words)
    context = click.Context(command, info_name=document)
    values, rest, _ = command.make_parser(context).parse_args(args)
    assert rest == []
    for param in command.params:
        if param.required:
            assert values.get(param.name) is not None, f"{param.name} is missing"
        if values.get(param.name) is not None and param.name not in FILES_THAT_NEED_TO_EXIST:
            param.type_cast_value(context, values[param.name])  # raises BadParameter


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(help_texts.ROOT).as_posix())
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8")):
        assert re.match(r"https?://", target) or (document.parent / target).exists(), target


def test_every_page_can_be_reached_from_the_readme() -> None:
    pending, reached = [help_texts.ROOT / "README.md"], set()
    while pending:
        page = pending.pop()
        reached.add(page)
        for target in re.findall(r"\]\(([^)#]+\.md)[^)]*\)", page.read_text(encoding="utf-8")):
            linked = (page.parent / target).resolve()
            if linked not in reached and page.name != "CHANGELOG.md":
                pending.append(linked)
    assert set(DOCUMENTS) - reached == set()


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if path.name != "CHANGELOG.md"],
                         ids=lambda path: path.relative_to(help_texts.ROOT).as_posix())
def test_files_that_are_named_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    named = re.findall(r"`((?:[a-z_0-9]+/)+[a-z_0-9]+\.(?:py|cpp|cu|cuh|md))`", text)
    places = (help_texts.ROOT, document.parent, help_texts.ROOT / "torch_utils")
    assert [name for name in named if not any((place / name).exists() for place in places)] == []
