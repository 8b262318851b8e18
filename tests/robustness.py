"""What became of damaged files, small files that ask for much, and killed commands, as tables.

`make fuzz` has the tests write a row for each count into the file $FUZZ_ROWS;
`python -m tests.robustness ROWS... [--dest=docs/results/robustness.md]` makes the page of them.
"""
import json
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from tests.photo_folders import accounts

HEAD = """\
# Robustness

What this project does with files that are damaged or hostile, when it is killed, and with folders of
pictures as people have them. Made by `make fuzz` (`FUZZ_CASES`, `FUZZ_SEED` and `KILLS` say how much
is tried), and printed by

    python -m tests.robustness ROWS --dest=docs/results/robustness.md

Fewer cases of the same kinds are part of `make test`. The rules are in
[checkpoints.md](../checkpoints.md#reading).
"""
FUZZED = """\
## Damaged files and foolish options

A file is damaged at one to five places: other bits or bytes, parts cut out, doubled or moved, a cut
end. Options and states of runs are also changed as values: other types, huge numbers, missing keys,
other names. Every case must be refused in one line, or be taken; a traceback, several lines or a
control character on the terminal is a failure.
"""
BOMBED = """\
## Small files that ask for much

The highest memory of a process that reads one, beyond that of the program itself. Allowed are eight
times the size of the file and 64 MiB (of JSON 32 times), and 8 MiB for the readers' own code.
"""
KILLED = """\
## Killed commands

A command is killed (`kill -9`) at a random moment, again and again. After each, every file that has
its name must be whole and as in an undisturbed run; at last it runs to its end, and must make what
an undisturbed run makes.
"""
PHOTOGRAPHED = """\
## Folders of pictures

What `dataset_tool.py --source=images --dest=out.zip` prints, with the further options that are named.
"""


def record(table: str, rows: Iterable[dict[str, Any]]) -> None:
    """Appends rows of a table to the file $FUZZ_ROWS, if that is set."""
    path = os.environ.get("FUZZ_ROWS")
    if path:
        with open(path, "a", encoding="utf-8") as file:
            file.writelines(json.dumps({"table": table, **row}) + "\n" for row in rows)


def _markdown(head: list[str], rows: Iterable[list[object]]) -> str:
    lines = [head, ["---"] * len(head), *([f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row]
                                          for row in rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _fuzz_table(rows: list[dict[str, Any]]) -> str:
    by_name: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_name[row["name"]].append(row)
    columns = ("tried", "refused", "loaded", "failed")
    totals = [[sum(row[column] for row in group) for column in columns] for group in by_name.values()]
    lines: list[list[object]] = [[name, ", ".join(sorted({str(row["seed"]) for row in group})), *total]
                                 for (name, group), total in zip(by_name.items(), totals)]
    lines.append(["**all**", "", *map(sum, zip(*totals))])
    return _markdown(["what", "seeds", "tried", "refused in one line", "loaded", "failed"], lines)


def _bomb_table(rows: list[dict[str, Any]]) -> str:
    highest: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["bomb"] not in highest or row["peak"] > highest[row["bomb"]]["peak"]:
            highest[row["bomb"]] = row
    return _markdown(["file", "bytes", "peak, MiB", "allowed, MiB", "seconds", "outcome"], [
        [row["bomb"], row["bytes"], row["peak"] >> 20, row["allowed"] >> 20, row["seconds"], row["outcome"]]
        for row in highest.values()])


def _kill_table(rows: list[dict[str, Any]]) -> str:
    by_command: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_command[row["command"]].append(row)
    return _markdown(["command", "killed", "had ended before", "wrong"], [
        [name, *(sum(row[column] for row in group) for column in ("killed", "finished", "wrong"))]
        for name, group in by_command.items()])


def page(rows: Iterable[dict[str, Any]]) -> str:
    """The page in docs/results, of rows of `record`."""
    tables: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        tables[row["table"]].append(row)
    folders = [f"**{title[0].upper()}{title[1:]}**{' (`' + ' '.join(args) + '`)' if args else ''}\n\n"
               f"```text\n{output}\n```\n" for title, args, output in accounts()]
    return "\n".join([HEAD, FUZZED, _fuzz_table(tables["fuzz"]), BOMBED, _bomb_table(tables["bombs"]), KILLED,
                      _kill_table(tables["kills"]), PHOTOGRAPHED, *folders])


def read_rows(paths: Iterable[str | Path]) -> list[dict[str, Any]]:
    """The rows of several files."""
    return [json.loads(line) for path in paths for line in Path(path).read_text(encoding="utf-8").splitlines()]


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(exists=True), metavar="ROWS...")
@click.option("--dest", type=click.Path(), help="File to write; the page is printed by default.")
def main(paths: tuple[str, ...], dest: str | None) -> None:
    """Make the page of rows that `make fuzz` wrote."""
    text = page(read_rows(paths))
    if dest is None:
        click.echo(text)
    else:
        Path(dest).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
