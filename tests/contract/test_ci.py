"""Continuous integration and pre-commit call the Makefile's targets and nothing else."""
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PRE_COMMIT = ROOT / ".pre-commit-config.yaml"


def commands(path: Path) -> list[str]:
    """What the steps of a workflow or the hooks of a pre-commit configuration run."""
    return re.findall(r"^\s*(?:- )?(?:run|entry):[ \t]*(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)


def targets() -> set[str]:
    """The targets that the Makefile declares as commands."""
    return set(re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[1].split())


def test_there_is_a_workflow() -> None:
    assert WORKFLOWS


@pytest.mark.parametrize("path", [*WORKFLOWS, PRE_COMMIT], ids=lambda path: path.name)
def test_only_targets_of_the_makefile_are_called(path: Path) -> None:
    called = commands(path)
    assert called
    for command in called:
        program, _, target = command.partition(" ")
        assert program == "make", command
        assert target in targets(), command


@pytest.mark.parametrize("target", ["check", "test"])
def test_checks_and_tests_are_called(target: str) -> None:
    assert any(f"make {target}" in commands(path) for path in [*WORKFLOWS, PRE_COMMIT])
