"""What `train.py --dry-run` makes of options; as a program, writes the frozen results: python -m tests.cli.dry_runs."""
import importlib
import json
import tempfile
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner

import train
from tests import tiny

FOLDER = Path(__file__).parent / "golden"
CASES = {
    "auto": ["--gpus=2"],
    "stylegan2": ["--cfg=stylegan2", "--mirror=1", "--gpus=8"],
    "paper256": ["--cfg=paper256", "--gpus=4", "--subset=3", "--seed=5", "--resume=ffhq256", "--freezed=10"],
    "paper512": ["--cfg=paper512", "--aug=fixed", "--p=0.2", "--augpipe=bg", "--nhwc=1", "--nobench=1"],
    "paper1024": ["--cfg=paper1024", "--fp32=1", "--allow-tf32=1", "--gamma=5", "--kimg=1000", "--batch=16"],
    "cifar": ["--cfg=cifar", "--cond=1", "--aug=noaug", "--snap=10", "--metrics=none", "--workers=1"],
    "stylegan3-t": ["--cfg=stylegan3-t", "--batch=16", "--gamma=8.2", "--fp32=1", "--cbase=16384"],
    "stylegan3-r": ["--cfg=stylegan3-r", "--gpus=8", "--mirror=1", "--freezed=2"],
    "dgl": ["--cfg=dgl", "--recipe=paper", "--width=2/3", "--teacher=TEACHER"],
    "dgl-from-scratch": ["--cfg=dgl", "--recipe=paper", "--width=0.5", "--teacher=TEACHER", "--teacher=TEACHER",
                         "--init=scratch", "--dgl-weight=0.3", "--teacher-update", "--teacher-aug", "--aug=fixed",
                         "--p=0.2", "--d-width=1/2", "--kimg=100"],
    "dgl-distil": ["--cfg=dgl", "--width=1/2", "--teacher=TEACHER", "--data=teacher"],
    "dgl-distil-then-game": ["--cfg=dgl", "--width=1/2", "--teacher=TEACHER", "--game-kimg=10", "--kd=rgb=2",
                             "--cond=0", "--kd=feature", "--kd-blocks=1,0.5", "--distil-lr=0.001"],
}  # fmt: skip
COMMANDS = ("calc_metrics", "generate", "legacy", "prune_init", "train")


def dry_run(folder: Path, *args: str) -> dict[str, Any]:
    """The resolved options, without what depends on this machine. TEACHER in an argument is a tiny network's file."""
    data = folder / "tiny.zip"
    teacher = folder / "teacher.pkl"
    if not data.exists():
        tiny.write_data(folder / "tiny", num=6, num_classes=3)
        tiny.write_teacher(teacher)
    words = [arg.replace("TEACHER", str(teacher)) for arg in args]
    command = [f"--data={data}", f"--outdir={folder}/runs", "--dry-run", "--no-estimate", *words]
    result = CliRunner().invoke(train.main, command)
    assert result.exit_code == 0, result.output
    text = result.stdout.removeprefix("Resolved options:\n").removesuffix("\n\nNothing was started (--dry-run).\n")
    return _without_paths(json.loads(text), str(folder))


def _without_paths(value: Any, folder: str) -> Any:
    if isinstance(value, dict):
        return {k: "..." if k == "sha256" else _without_paths(v, folder) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_paths(item, folder) for item in value]
    return value.replace(folder, "FOLDER") if isinstance(value, str) else value


def flags(command: str) -> list[str]:
    """All options of a command line."""
    main: click.Command = importlib.import_module(command).main
    return sorted(flag for option in main.params for flag in (*option.opts, *option.secondary_opts))


def main() -> None:
    """Rewrites all frozen results."""
    with tempfile.TemporaryDirectory() as folder:
        for name, args in CASES.items():
            (FOLDER / f"{name}.json").write_text(json.dumps(dry_run(Path(folder), *args), indent=2) + "\n")
    (FOLDER / "flags.json").write_text(json.dumps({name: flags(name) for name in COMMANDS}, indent=2) + "\n")


if __name__ == "__main__":
    main()
