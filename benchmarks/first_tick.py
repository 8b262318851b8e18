"""How long train.py takes from its start to its first status line, on a data set of 32 px and the networks of the demo.

    python benchmarks/first_tick.py --peer=DIR

Processor time of the process, and seconds that passed; with a peer, another checkout, in turns.
"""
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import psutil

ROOT = Path(__file__).resolve().parent.parent
NETWORKS = ["--cbase=1024", "--cmax=64", "--batch=32", "--metrics=none", "--kimg=1", "--tick=1", "--device=cpu",
            "--workers=0"]  # fmt: skip


def measured(tree: Path, data: Path) -> tuple[float, float]:
    """Seconds of the processor and of the wall until the first tick of a run by the train.py of a checkout."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "train.py", f"--data={data}", f"--outdir={folder}", *NETWORKS]
        begin = time.perf_counter()
        process = subprocess.Popen(command, cwd=tree, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert process.stdout is not None
        while not process.stdout.readline().startswith("tick 0"):
            if process.poll() is not None:
                raise click.ClickException(f"train.py of {tree} ended without a tick")
        times = psutil.Process(process.pid).cpu_times()
        seconds = times.user + times.system, time.perf_counter() - begin
        process.kill()
        process.communicate()
    return seconds


@click.command()
@click.option("--peer", help="Another checkout", metavar="DIR", type=click.Path(exists=True, file_okay=False))
@click.option("--pairs", default=3, show_default=True, help="Rounds")
def main(peer: str | None, pairs: int) -> None:
    """Prints medians for each checkout."""
    trees = [ROOT, *([Path(peer).resolve()] if peer else [])]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "clothing.zip"
        source = ROOT / "demo" / "data" / "t10k-images-idx3-ubyte.gz"
        subprocess.run([sys.executable, "dataset_tool.py", f"--source={source}", f"--dest={data}", "--max-images=200"],
                       cwd=ROOT, check=True, capture_output=True)  # fmt: skip
        rounds = [[measured(tree, data) for tree in trees] for _ in range(pairs)]
    for tree, turns in zip(trees, zip(*rounds)):
        cpu, wall = (statistics.median(values) for values in zip(*turns))
        click.echo(f"{tree}: {cpu:.2f} s of processor time, {wall:.1f} s passed")


if __name__ == "__main__":
    main()
