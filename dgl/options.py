"""The command-line options of --cfg=dgl, and what they turn into. No torch until a run is configured."""
from typing import Any

import click

CFG = "dgl"


def add(command: Any) -> Any:
    return command


def check(opts: Any, given: set[str]) -> None:
    pass


def training_config(opts: Any, given: set[str], data: Any) -> Any:
    raise click.UsageError("not yet")
