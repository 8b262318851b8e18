"""The doctor of the compiled kernels: `python -m torch_utils.ops`."""
import click

from dnnlib.cli import Command


@click.command(cls=Command)
@click.option("--build", is_flag=True, help="Build the kernels ahead of time, into the cache.")
@click.option(
    "--arch",
    "wanted",
    multiple=True,
    metavar="ARCH",
    help="An architecture to build for, such as 8.6 or 9.0+PTX; may be repeated.",
    show_default="$TORCH_CUDA_ARCH_LIST, else the GPUs of this machine",
)
def main(build: bool, wanted: tuple[str, ...]) -> None:
    """Show what this machine offers for compiled CUDA kernels, which implementation each operation uses, and why no
    faster one."""
    if wanted and not build:
        raise click.UsageError("--arch says what to build for: give --build too.")
    from torch_utils.ops.backend import build_ahead, doctor

    if build:
        for path in build_ahead.build_ahead(list(wanted)):
            click.echo(f"built {path}")
        return
    for line in doctor.report():
        click.echo(line)


if __name__ == "__main__":
    main(prog_name="python -m torch_utils.ops")
