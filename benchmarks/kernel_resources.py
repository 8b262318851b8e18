"""Registers, shared memory and spills of every CUDA kernel, as nvcc's own assembler reports them. Needs no GPU."""
import re
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import click

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from torch_utils.ops.backend import cache, nvcc

ALL_TYPES = ("f16", "bf16", "f32", "f64")

_ENTRY = re.compile(
    r"Compiling entry function '(\w+)' for 'sm_\w+'.*?"
    r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads.*?"
    r"Used (\d+) registers(?:[^\n]*?(\d+) bytes smem)?",
    re.DOTALL,
)


class Resources(NamedTuple):
    """What one kernel takes; bytes, but for the registers of a thread."""

    registers: int
    shared: int
    stack: int
    spilled: int  # stores and loads


def compile_for(arch: str, types: Iterable[str] = ALL_TYPES) -> dict[str, Resources]:
    """Compiles the kernels to a cubin.

    Args:
        arch: such as "90".
        types: element types.

    Returns:
        Kernel → its resources.

    Raises:
        BackendError: there is no nvcc, or it fails.
    """
    with tempfile.TemporaryDirectory() as temp:
        for name, text in cache.sources().items():
            Path(temp, name).write_text(text, encoding="utf-8")
        dtypes = " ".join(f"SG_{tag.upper()}(K)" for tag in types)
        command = [str(nvcc.find_nvcc()), "-O3", "-std=c++17", f"-arch=sm_{arch}", "-cubin", "-Xptxas", "-v"]
        output = nvcc.run([*command, f"-DSG_DTYPES(K)={dtypes}", "launcher.cu", "-o", "kernels.cubin"], Path(temp))
    return parse(output)


def parse(report: str) -> dict[str, Resources]:
    """Reads what `nvcc -Xptxas -v` prints."""
    by_kernel = {}
    for name, stack, stores, loads, registers, shared in _ENTRY.findall(report):
        by_kernel[name] = Resources(int(registers), int(shared or 0), int(stack), int(stores) + int(loads))
    return by_kernel


def table(by_architecture: dict[str, dict[str, Resources]]) -> list[str]:
    """Architecture → kernel → resources, as rows of a Markdown table: one per kernel, all architectures together."""
    rows = ["| kernel | registers | shared memory, bytes | stack, bytes | spilled, bytes |", "|---|---|---|---|---|"]
    for kernel in sorted(next(iter(by_architecture.values()))):
        of_kernel = [resources[kernel] for resources in by_architecture.values()]
        spans = [_span([getattr(resources, name) for resources in of_kernel]) for name in Resources._fields]
        rows.append(f"| {kernel} | {' | '.join(spans)} |")
    return rows


def _span(values: list[int]) -> str:
    return str(values[0]) if min(values) == max(values) else f"{min(values)} to {max(values)}"


@click.command()
@click.option("--arch", "archs", multiple=True, metavar="ARCH", help="Such as 90.",
              show_default="all that nvcc knows")
def main(archs: tuple[str, ...]) -> None:
    """Prints a table: smallest and largest figure over the architectures."""
    compiler = nvcc.find_nvcc()
    wanted = sorted(archs or nvcc.supported_archs(compiler), key=int)
    click.echo(f"{nvcc.version(compiler)}, {', '.join(f'sm_{arch}' for arch in wanted)}\n")
    for row in table({arch: compile_for(arch) for arch in wanted}):
        click.echo(row)


if __name__ == "__main__":
    main()
