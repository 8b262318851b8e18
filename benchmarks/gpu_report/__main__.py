"""`python -m benchmarks.gpu_report`: fills all sections, one after the other, and writes the page after each."""
import tempfile
from pathlib import Path

import click

from dnnlib.cli import Command


def sections() -> list:  # of Section; torch is imported only when the command runs
    """All parts of the report, in the order of the page."""
    from . import bandwidth, collectives, environment, equality, gradients, half_precision, throughput, ticks
    from .section import Section

    return [
        Section("machine", "Machine and versions", environment.machine),
        Section("builds", "Ways to get compiled kernels", environment.builds),
        Section("equality", "Operations against float64 on the CPU", equality.equality),
        Section("gradients", "Gradients of every training phase against the CPU", gradients.gradients),
        Section("half_precision", "Networks against reference numbers, float32 and half precision",
                half_precision.half_precision),
        Section("bandwidth", "Kernels against plain torch and a plain copy", bandwidth.bandwidth),
        Section("throughput", "Generating images", throughput.throughput),
        Section("collectives", "NCCL with one rank", collectives.collectives),
        Section("ticks", "One training tick", ticks.ticks),
    ]  # fmt: skip


@click.command(cls=Command)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
              help="Where to compute; the CPU stands in for a GPU to rehearse the report.")
@click.option("--tiny", is_flag=True, help="Sizes that take seconds on a CPU; the figures mean nothing.")
@click.option("--only", multiple=True, metavar="KEY", help="Only this section; repeatable.", show_default="all")
@click.option("--out", default="build/gpu-report", show_default=True, metavar="DIR",
              help="Where report.json and report.md are written.")  # fmt: skip
def main(device: str, tiny: bool, only: tuple[str, ...], out: str) -> None:
    """Check and measure this project on a GPU, and write one JSON file and one Markdown page to attach to an issue.

    Takes up to eight minutes. Nothing is downloaded.
    """
    import torch

    from . import page
    from .section import Setup

    if device == "cuda" and not torch.cuda.is_available():
        raise click.UsageError("--device: expected a CUDA device, found none; --device=cpu rehearses the report.")
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    chosen = torch.device(kind, 0) if kind == "cuda" else torch.device(kind)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    parts = sections()
    unknown = set(only) - {part.key for part in parts}
    if unknown:
        raise click.UsageError(f"--only: expected some of {', '.join(part.key for part in parts)}, "
                               f"found {', '.join(sorted(unknown))}")
    parts = [part for part in parts if not only or part.key in only]
    name = torch.cuda.get_device_name(chosen) if kind == "cuda" else "the CPU, standing in for a GPU"
    title = f"GPU report: {name}"
    with tempfile.TemporaryDirectory() as folder:
        for number, part in enumerate(parts, 1):
            part.fill(Setup(chosen, tiny, Path(folder)))
            click.echo(f"{part.key}: {page.verdict(part)} ({part.seconds:.0f} s)")
            paths = page.write(parts[:number], title, Path(out))
    click.echo(f"Wrote {' and '.join(str(path) for path in paths)}")
    if not all(part.ok for part in parts):
        raise click.ClickException("something is wrong; see the rows marked FAILED")


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.gpu_report")
