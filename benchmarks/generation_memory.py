"""Peak memory of generating one image, whole and in bands of rows, above the interpreter with torch, and the time.

    python benchmarks/generation_memory.py

One thread; seconds of processor time, the median of the images after the first. Networks have random weights.
"""
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
SIZES = {"1024 px, configuration F": (1024, 32768, 512), "1024 px, half width": (1024, 16384, 256),
         "512 px, configuration F": (512, 32768, 512)}  # fmt: skip
WAYS = ["whole", "bands"]
IMAGES = 5


def serve(size: str, way: str) -> None:
    """The body of a process: one network generating in one way, as one line of JSON."""
    import torch

    from benchmarks.growth import peak_mib

    before = peak_mib()
    from torch_utils.devices import tune_allocator
    from training import networks
    from training.inference import bands

    tune_allocator()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    resolution, channel_base, channel_max = SIZES[size]
    widths = {"channel_base": channel_base, "channel_max": channel_max, "conv_clamp": 256}
    G = networks.Generator(512, 0, 512, resolution, 3, mapping_kwargs={"num_layers": 2}, synthesis_kwargs=widths)
    G.eval().requires_grad_(False)
    ws, seconds = torch.randn(1, G.num_ws, 512), []
    for _ in range(IMAGES):
        begin = time.process_time()
        if way == "bands":
            bands.synthesize(G.synthesis, ws, "const")
        else:
            with torch.no_grad():
                G.synthesis(ws, noise_mode="const")
        seconds.append(time.process_time() - begin)
    sys.stdout.write(json.dumps({"mib": peak_mib() - before, "seconds": statistics.median(seconds[1:])}) + "\n")


def measured(size: str, way: str) -> dict[str, float]:
    """Runs a process for one network and way."""
    command = [sys.executable, str(Path(__file__).resolve()), "--serve", size, way]
    return json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


@click.command()
@click.option("--serve", "served", nargs=2, hidden=True)
def main(served: tuple[str, str] | None) -> None:
    """Prints a table as Markdown."""
    if served:
        serve(*served)
        return
    click.echo("| generator, one image | whole | in bands |\n|---|---|---|")
    for size in SIZES:
        cells = [f"{figure['mib']:.0f} MiB, {figure['seconds']:.3f} s"
                 for figure in (measured(size, way) for way in WAYS)]
        click.echo(f"| {size} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
