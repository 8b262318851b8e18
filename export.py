"""Export a generator for other programs: ONNX, a torch program, or safetensors."""
import os
from typing import TYPE_CHECKING, Any

import click

from dnnlib.cli import Command, trust_pickle_option
from dnnlib.util import UserError

if TYPE_CHECKING:
    from training.export.programs import Program

# Format → the options that have a meaning for it, besides those of all formats.
OPTIONS_OF = {
    "onnx": {"source", "noise", "pixels", "weights"},
    "torch": {"source", "noise", "pixels"},
    "safetensors": {"parts"},
}


@click.command(cls=Command, fields={"input": "source", "format": "kind"})
@click.option("--network", help="Network pickle, safetensors file or folder: path or URL.", required=True,
              metavar="[PATH|URL]")
@click.option("--format", "kind", help="What to write.", type=click.Choice(list(OPTIONS_OF)), required=True)
@click.option("--dest", help="The file or folder to write; must not exist.", required=True, metavar="PATH")
@click.option("--input", "source", help="onnx, torch: what the file takes, latents z or w [N, num_ws, w_dim].",
              type=click.Choice(["z", "w"]), default="z", show_default=True)
@click.option("--noise", help="onnx, torch: stored noise, none, or random: every layer's noise is an input.",
              type=click.Choice(["const", "none", "random"]), default="const", show_default=True)
@click.option("--pixels", help="onnx, torch: images [N, C, H, W] in [-1, 1], or [N, H, W, C] in 0..255.",
              type=click.Choice(["float", "uint8"]), default="float", show_default=True)
@click.option("--weights", help="onnx: how weights are stored; the file computes in float32.",
              type=click.Choice(["float32", "float16", "int8"]), default="float32", show_default=True)
@click.option("--parts", help="safetensors: the averaged generator, or all networks, which a teacher or a start of "
              "training needs.", type=click.Choice(["G_ema", "all"]), default="G_ema", show_default=True)
@trust_pickle_option
@click.pass_context
def main(
    ctx: click.Context,
    network: str,
    kind: str,
    dest: str,
    source: str,
    noise: str,
    pixels: str,
    weights: str,
    parts: str,
    trust_pickle: bool,
) -> None:
    """Export a generator for other programs.

    onnx: a graph with a dynamic batch and constants folded, checked with onnxruntime before it is written. Inputs: z, a
    one-hot label where there are classes, truncation; or w.

    torch: a torch.export program (.pt2), checked in the same way.

    safetensors: weights and configuration without pickle. Every command reads it back, as --network and --teacher.

    \b
    Examples:
      # Images by onnxruntime, as bytes.
      python export.py --network=student.pkl --format=onnx --pixels=uint8 --dest=student.onnx
    \b
      # A quarter of the size.
      python export.py --network=student.pkl --format=onnx --weights=int8 --dest=student-int8.onnx
    \b
      # All networks, for training on.
      python export.py --network=student.pkl --format=safetensors --parts=all --dest=student.safetensors
    """
    _check_options(ctx, kind)
    if os.path.lexists(dest):
        raise UserError(f"{dest} exists already; remove it, or name another", field="dest")
    folder = os.path.dirname(os.path.abspath(dest))
    if not os.path.isdir(folder):
        raise UserError(f"{dest}: there is no folder {folder}; make it first", field="dest")
    from training.checkpoints.pickles import open_networks

    networks = open_networks(network, trust_pickle=trust_pickle)
    if kind == "safetensors":
        _write_safetensors(networks, dest, parts)
    else:
        from training.export.programs import generator_program

        program = generator_program(networks["G_ema"], source, noise, pixels)
        _write_onnx(program, dest, weights) if kind == "onnx" else _write_torch(program, dest)
    click.echo(f"{dest}: {os.path.getsize(dest):,} bytes")


def _check_options(ctx: click.Context, kind: str) -> None:
    """Refuses options that were given and have no meaning for the format."""
    known = set().union(*OPTIONS_OF.values())
    for param in ctx.command.params:
        given = ctx.get_parameter_source(str(param.name)) is click.core.ParameterSource.COMMANDLINE
        if given and param.name in known - OPTIONS_OF[kind]:
            formats = " and ".join(name for name, options in OPTIONS_OF.items() if param.name in options)
            raise UserError(f"has no meaning for `format={kind}`, only for {formats}; leave it out", field=param.name)


def _write_onnx(program: "Program", dest: str, weights: str) -> None:
    from training.export import onnx_file

    difference = onnx_file.write(program, dest, weights)
    inputs = ", ".join(f"{item.name} {['batch' if i == 0 and item.batched else n for i, n in enumerate(item.shape)]}"
                       for item in program.inputs)
    click.echo(f"opset {onnx_file.OPSET}; inputs: {inputs}".replace("'", ""))
    click.echo(f"checked in onnxruntime with batches of {', '.join(map(str, onnx_file.BATCHES))}: "
               f"largest difference from torch {difference.largest:.2g}, standard deviation {difference.std:.3g}, "
               f"PSNR {difference.psnr:.1f} dB")


def _write_torch(program: "Program", dest: str) -> None:
    from training.export import torch_program

    difference = torch_program.write(program, dest)
    click.echo(f"checked: largest difference from the network {difference:.2g} standard deviations")


def _write_safetensors(networks: dict[str, Any], dest: str, parts: str) -> None:
    from training.checkpoints import safetensors_files

    if not dest.endswith(safetensors_files.SUFFIX):
        raise UserError(f"expected a name that ends in {safetensors_files.SUFFIX}, by which such files are recognised, "
                        f"found {dest}", field="dest")
    chosen = networks if parts == "all" else {"G_ema": networks["G_ema"]}
    safetensors_files.write(safetensors_files.distinct(chosen), dest)


if __name__ == "__main__":
    main()
