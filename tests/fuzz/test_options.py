"""Options of every command with values that make no sense: one line that says so, or the command does its work.

Networks and detectors among the values are damaged or missing, so that nothing computes for long.
"""
import importlib
import logging
import os
import random
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from tests.fuzz.mutations import Count
from tests.fuzz.test_readers import CASES, SEED, check
from tests.helpers import random_images, write_images

COMMANDS = {
    "train": ["--dry-run", "--no-estimate"], "generate": [], "style_mixing": [], "gen_video": [], "projector": [],
    "calc_metrics": [], "legacy": [], "prune_init": [], "export": [], "report": [], "dataset_tool": [], "dgl.cost": [],
    "dgl.probe": [],
}  # fmt: skip
VALUES = [
    "", " ", "0", "1", "-1", "3", "1e999", "nan", "inf", "-0.0", "0.5", "2/0", "1" * 30, "1-", "5-2", "0-3", ",", "a,b",
    "none", "x", "é", "\udcff", "\x1b[2J", "~", "~nobody/x", ".", "..", "/dev/null", "/nonexistent/x", "junk.pkl",
    "junk.pt", "images", "images/0.png", "images.zip", "out", "true", "false", "a=b", "--", "%s", "{}", "x" * 300,
    "folder", "folder:x", "junk.pkl#sha256=1", "fid50k_full", "auto", "cpu", "64x64", "\\0", "name\nwith line",
]  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with files that options can name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "cache"))
    write_images(tmp_path / "images", random_images(2))
    for name in ("junk.pkl", "junk.pt", "images.zip"):
        (tmp_path / name).write_bytes(b"junk")
    (tmp_path / "folder").mkdir()
    return tmp_path


def options_of(command: click.Command) -> list[click.Option]:
    return [param for param in command.params if isinstance(param, click.Option)]


def line(command: click.Command, rng: random.Random) -> list[str]:
    """Arguments that do not make sense, with required options among them so that not all lines fail for lack of one."""
    words = []
    if isinstance(command, click.Group):
        name = rng.choice([*command.commands, "x"])
        return [name, *line(command.commands[name], rng)] if name in command.commands else [name]
    options = options_of(command)
    chosen = [option for option in options if option.required and rng.random() < 0.9]
    chosen += rng.sample(options, min(len(options), rng.choice([1, 2, 2, 4])))
    for option in chosen:
        flag = rng.choice([*option.opts, *option.secondary_opts])
        if option.name in ("dry_run", "estimate", "help"):
            continue
        words.append(flag if option.is_flag or rng.random() < 0.02 else f"{flag}={rng.choice(VALUES)}")
    return [*words, *(rng.choice(VALUES) for _ in range(rng.choice([0, 0, 0, 1])))]


def outcome(command: click.Command, words: list[str], count: Count) -> None:
    count.tried += 1
    result = CliRunner().invoke(command, words)
    errors = [text for text in result.stderr.splitlines() if text.startswith("Error: ")]
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        count.failures.append(f"{words}: {type(result.exception).__name__}: {str(result.exception)[:200]}")
    elif result.exit_code == 0:
        count.loaded += 1
    elif result.exit_code in (1, 2) and len(errors) == 1 and result.stderr.rstrip("\n").endswith(errors[0]):
        is_printable = all(char.isprintable() for char in errors[0])
        count.refused += is_printable
        if not is_printable:
            count.failures.append(f"{words}: control characters in {errors[0][:200]!r}")
    else:
        count.failures.append(f"{words}: status {result.exit_code}, {result.stderr[-300:]!r}")


@pytest.mark.parametrize("name", COMMANDS)
def test_options(name: str, place: Path, caplog: Any) -> None:
    command: click.Command = importlib.import_module(name).main
    rng, count = random.Random(f"{SEED}{name}"), Count()
    level = logging.getLogger().level
    for _ in range(max(CASES // 4, 1)):
        outcome(command, [*COMMANDS[name], *line(command, rng)], count)
        os.chdir(place)
    logging.getLogger().setLevel(level)
    check(count, f"options of {name}")
