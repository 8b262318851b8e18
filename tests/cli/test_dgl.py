"""The command of the package: its help texts name its own commands, where those of the tree name scripts."""
import importlib.metadata
import re

import pytest
from click.testing import CliRunner

from dgl.__main__ import COMMANDS, _version, main


def help_of(*args: str) -> str:
    result = CliRunner().invoke(main, [*args, "--help"], prog_name="dgl", terminal_width=120)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_help_texts_call_commands_that_are_there(name: str) -> None:
    text = help_of(name)
    assert text.startswith(f"Usage: dgl {name} ")
    modules = "|".join(re.escape(module) for module, _ in COMMANDS.values())
    assert re.findall(rf"python (?:-m )?(?:{modules})\b|\b(?:{modules})\.py", text) == []
    for command in re.findall(r"\bdgl (\w+) --", text):
        assert command in COMMANDS


def test_the_version_in_a_source_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no package is installed, there is no number to read."""
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert _version() == "of a source tree"
    monkeypatch.setattr(importlib.metadata, "version", {"dgl-stylegan2": "1.2"}.__getitem__)
    assert _version() == "1.2"
    result = CliRunner().invoke(main, ["--version"], prog_name="dgl")
    assert (result.exit_code, result.output.startswith("dgl, version ")) == (0, True)


def test_examples_are_those_of_the_scripts() -> None:
    assert "  dgl export --network=student.pkl --format=onnx --pixels=uint8 --dest=student.onnx" in help_of("export")
    assert "rows of dgl metrics or a run" in " ".join(help_of("export").split())
    assert "`dgl dataset validate --data=PATH` checks" in help_of("dataset", "convert")
