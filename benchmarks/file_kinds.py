"""Which command takes which kind of network file: tries all of them on small files, and writes the table in docs.

    python -m benchmarks.file_kinds --dest=docs/results/file_kinds.md
"""
import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import PIL.Image
import torch
from click.testing import CliRunner

import calc_metrics
import export
import gen_video
import generate
import legacy
import projector
import prune_init
import style_mixing
import train
from dnnlib.cli import Command
from training import networks
from training.checkpoints import pickles, transfer

GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "golden"
_WORKS = "works"


class _Foreign(torch.nn.Module):
    """A discriminator of a class that network files do not need."""


def _upright() -> dict[str, torch.nn.Module]:
    """Networks with a constant of 4x2, as StyleGAN-Human's."""
    options: dict[str, Any] = {"channel_base": 512, "channel_max": 32, "base_size": [4, 2]}
    G = networks.Generator(z_dim=32, c_dim=0, w_dim=32, img_resolution=32, img_channels=3, synthesis_kwargs=options)
    D = networks.Discriminator(c_dim=0, img_resolution=32, img_channels=3, **options)
    return {"G": G, "D": D, "G_ema": G}


def make_files(folder: Path) -> dict[str, Path]:
    """Kind of file → a small file of it, made in a folder or taken from the reference files of the tests."""
    nets = pickles.open_networks(str(GOLDEN / "ffhq64.pkl"))
    whole = {role: nets[role] for role in ("G", "D", "G_ema")}
    contents: dict[str, Any] = {
        "G_ema alone": {"G_ema": whole["G_ema"]},
        "D is None": {**whole, "D": None},
        "D of a foreign class": {**whole, "D": _Foreign()},
        "a bare generator": whole["G_ema"],
        "images that are not square": _upright(),
    }
    files = {
        "SG2-ADA pickle": GOLDEN / "ffhq64.pkl",
        "stylegan3 tree, StyleGAN2": GOLDEN / "sg3tree_sg2.pkl",
        "stylegan3 tree, StyleGAN3-T": GOLDEN / "sg3t64.pkl",
        "stylegan3 tree, StyleGAN3-R, labels": GOLDEN / "sg3r32.pkl",
        "TensorFlow, config-f": GOLDEN / "tf_config_f_64.pkl",
        "rosinality": GOLDEN / "rosinality_64.pt",
        "rosinality, pruned": GOLDEN / "cagc_64_nonuniform.pth",
    }
    for number, (kind, content) in enumerate(contents.items()):
        files[kind] = folder / f"{number}.pkl"
        pickles.save_networks(content, files[kind])
    torch_files: dict[str, Any] = {
        "torch.save, objects": whole,
        "torch.save, state dictionaries": {role: net.state_dict() for role, net in whole.items()},
        "torch.save, one state dictionary": whole["G_ema"].state_dict(),
        "lucidrains (refused)": {"GAN": {}, "version": "1"},
    }
    for number, (kind, content) in enumerate(torch_files.items()):
        files[kind] = folder / f"{number}.pt"
        torch.save(content, files[kind])
    files["BigGAN folder"] = folder / "biggan"
    files["BigGAN folder"].mkdir()
    for role in ("D", "G_ema"):
        os.symlink(GOLDEN / f"biggan_cifar32_{role}.pth", files["BigGAN folder"] / f"{role}.pth")
    os.symlink(GOLDEN / "biggan_cifar32_G_ema.pth", files["BigGAN folder"] / "G.pth")
    files["safetensors"] = folder / "x.safetensors"
    _invoke(export, f"--network={files['SG2-ADA pickle']}", "--format=safetensors", "--parts=all",
            f"--dest={files['safetensors']}")
    return files


def _invoke(command: Any, *args: str) -> str:
    """'works', or what the command says of the file instead, without the option that it was given to."""
    result = CliRunner().invoke(command.main, list(args))
    if result.exit_code == 0:
        return _WORKS
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return f"FAILS: {result.exception!r}"
    return re.sub(r"^--[a-z-]+: (?=/\S+: )", "", result.stderr.strip().splitlines()[-1].removeprefix("Error: "))


def _labels(path: Path) -> tuple[list[str], Any]:
    """Options that a network with labels needs, and its averaged generator, if it can be read."""
    with contextlib.suppress(Exception):
        G = pickles.open_networks(str(path))["G_ema"]
        return (["--class=0"] if G.c_dim else []), G
    return [], None


def commands(folder: Path) -> dict[str, Callable[[Path, list[str], Any], str]]:
    """Command → a function of (file, options for labels, generator) that tries it."""
    target = folder / "target.png"
    counter = iter(range(1 << 30))

    def new(ending: str = "") -> str:
        return str(folder / f"out{next(counter)}{ending}")

    def project(path: Path, labels: list[str], G: Any) -> str:
        side, channels = (64, 3) if G is None else (G.img_resolution, G.img_channels)
        shape = [side, side, 3] if channels == 3 else [side, side]
        PIL.Image.fromarray(np.full(shape, 99, np.uint8)).save(target)
        return _invoke(projector, f"--network={path}", f"--target={target}", "--num-steps=1", "--detector=D",
                       "--save-video=0", "--device=cpu", f"--outdir={new()}", *labels)

    def start(path: Path, labels: list[str], G: Any) -> str:
        nets = pickles.open_networks(str(path if G is not None else GOLDEN / "ffhq64.pkl"))
        made = {role: nets["G_ema"] for role in ("G", "G_ema")}
        try:
            transfer.from_pickle(made, str(path))
            return _WORKS
        except Exception as error:
            return str(error) if hasattr(error, "message") else f"FAILS: {error!r}"

    return {
        "generate": lambda path, labels, G: _invoke(
            generate, f"--network={path}", "--seeds=0", "--device=cpu", f"--outdir={new()}", *labels),
        "style_mixing": lambda path, labels, G: _invoke(
            style_mixing, f"--network={path}", "--rows=0", "--cols=1", "--device=cpu", f"--outdir={new()}", *labels),
        "gen_video": lambda path, labels, G: _invoke(
            gen_video, f"--network={path}", "--seeds=0-1", "--w-frames=2", f"--output={new('.gif')}", "--device=cpu",
            *labels),
        "projector": project,
        "calc_metrics": lambda path, labels, G: _invoke(
            calc_metrics, f"--network={path}", f"--teacher={path}", "--metrics=agreement", "--num-gen=4",
            "--device=cpu"),
        "prune_init": lambda path, labels, G: _invoke(
            prune_init, f"--teacher={path}", "--width=0.5", "--no-refit", "--no-latency", "--device=cpu",
            f"--dest={new('.pkl')}"),
        "train --resume": start,
        "train --cfg=dgl": lambda path, labels, G: _invoke(
            train, f"--cfg={_preset_for(G)}", f"--teacher={path}", "--width=0.5", "--dry-run",
            "--no-estimate", "--device=cpu"),
        "export safetensors": lambda path, labels, G: _invoke(
            export, f"--network={path}", "--format=safetensors", f"--dest={new('.safetensors')}"),
        "legacy": lambda path, labels, G: _invoke(legacy, f"--source={path}", f"--dest={new('.pkl')}"),
        "legacy --resolution": lambda path, labels, G: _invoke(
            legacy, f"--source={path}", f"--dest={new('.pkl')}", "--resolution=16"),
        "legacy --format=rosinality": lambda path, labels, G: _invoke(
            legacy, f"--source={path}", f"--dest={new('.pt')}", "--format=rosinality"),
    }


def _preset_for(G: Any) -> str:
    module = type(G).__module__.rpartition(".")[2]
    return {"networks_biggan": "dgl-biggan", "networks_stylegan3": "dgl-stylegan3"}.get(module, "dgl")


def rows(kinds: set[str] | None = None) -> Iterator[tuple[str, dict[str, str]]]:
    """Kind of file → command → 'works', or what it says; of all kinds, or of these."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        attempts = commands(folder)
        for kind, path in make_files(folder).items():
            if kinds is None or kind in kinds:
                labels, G = _labels(path)
                yield kind, {command: attempt(path, labels, G).replace(str(path), "FILE").replace(str(folder), "…")
                             for command, attempt in attempts.items()}


def page(table: dict[str, dict[str, str]]) -> str:
    """The table as Markdown, with the reasons under it."""
    names = list(next(iter(table.values())))
    reasons: dict[str, int] = {}
    lines = ["# Kinds of files and commands", "",
             "Made by `python -m benchmarks.file_kinds` on small files of every kind. A number refers to what the",
             "command says instead, below. No command fails in any other way.", "",
             f"| file | {' | '.join(f'`{name}`' for name in names)} |", "|" + "---|" * (len(names) + 1)]
    for kind, cells in table.items():
        shown = [_WORKS if cell == _WORKS else str(reasons.setdefault(cell, len(reasons) + 1))
                 for cell in cells.values()]
        lines.append(f"| {kind} | {' | '.join(shown)} |")
    return "\n".join([*lines, "", "```text", *(f"{number}  {reason}" for reason, number in reasons.items()), "```", ""])


@click.command(cls=Command)
@click.option("--dest", help="Markdown file to write.", required=True, metavar="FILE")
def main(dest: str) -> None:
    """Try every command on every kind of network file, and write the table of what works."""
    table = {}
    for kind, cells in rows():
        table[kind] = cells
        click.echo(f"{kind}: {sum(cell == _WORKS for cell in cells.values())} of {len(cells)}")
        for command, cell in cells.items():
            if cell.startswith("FAILS"):
                click.echo(f"  {command}: {cell}")
    Path(dest).write_text(page(table), encoding="utf-8")


if __name__ == "__main__":
    main()
