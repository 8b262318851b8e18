"""Size and speed of exported generators: plain torch, native CPU path, onnxruntime.

`python benchmarks/deploy.py NETWORK...` prints a Markdown table; every figure is the median processor time of single
images on one thread, which other programs on the machine disturb less than the time on the clock.
"""
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import click

SECONDS = 2.0  # per figure


def milliseconds(work: Callable[[], object]) -> float:
    """Median processor time of a call, after one that does not count."""
    work()
    times: list[float] = []
    while sum(times) < SECONDS * 1000 and len(times) < 200:
        start = time.process_time()
        work()
        times.append((time.process_time() - start) * 1000)
    return statistics.median(times)


def rows(name: str, G: Any) -> list[str]:
    """The rows of a network."""
    import torch

    from torch_utils.ops import cpu_kernels
    from training.export import onnx_file
    from training.export.programs import generator_program

    program = generator_program(G)
    args = program.examples(1)
    lines = []
    with torch.no_grad():
        for path, enabled in (("torch, plain ops", False), ("torch, native CPU ops", True)):
            cpu_kernels.enabled = enabled
            lines.append(f"| {name} | {path} | | {milliseconds(lambda: program(*args)):.2f} |")
    for weights in ("float32", "float16", "int8"):
        content = onnx_file.build(program, weights)
        session = onnx_file.open_session(content, threads=1)
        ms = milliseconds(lambda session=session: onnx_file.run(session, program, args))  # type: ignore[misc]
        lines.append(f"| {name} | onnxruntime, {weights} | {len(content) / 2**20:.2f} MiB | {ms:.2f} |")
    return lines


@click.command()
@click.argument("networks", nargs=-1, required=True)
def main(networks: tuple[str, ...]) -> None:
    """Print size and speed of the generators in network files."""
    import torch

    from training.checkpoints.pickles import open_networks

    torch.set_num_threads(1)
    click.echo("| network | path | file | processor ms per image |\n|---|---|---|---|")
    for url in networks:
        for line in rows(Path(url).stem, open_networks(url)["G_ema"]):
            click.echo(line)


if __name__ == "__main__":
    main()
