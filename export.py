"""Export a generator for other programs: ONNX, a torch program, safetensors, a folder for a hub, or a web page."""
import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from dnnlib.cli import (
    ClassChoice,
    ClassOrLabel,
    Command,
    class_labels,
    trust_detector_option,
    trust_pickle_option,
)
from dnnlib.errors import UserError

if TYPE_CHECKING:
    import torch

    from metrics.options import Reference
    from torch_utils.network_types import Generator
    from training.export.programs import Program

# Format → the options that have a meaning for it, besides those of all formats.
OPTIONS_OF = {
    "onnx": {"source", "noise", "pixels", "weights", "verify_data", "verify_teacher", "detector", "num_gen",
             "trust_detector", "class_idx"},
    "torch": {"source", "noise", "pixels", "class_idx"},
    "safetensors": {"weights", "parts"},
    "hub": {"weights", "parts", "teacher", "scores"},
    "web": {"weights", "teacher", "runtime", "class_idx"},
}


@click.command(cls=Command, fields={"input": "source", "format": "kind"})
@click.option("--network", help="Network pickle, safetensors file or folder: path or URL.", required=True,
              metavar="[PATH|URL]")
@click.option("--format", "kind", help="What to write.", type=click.Choice(list(OPTIONS_OF)), required=True)
@click.option("--dest", help="The file or folder to write; must not exist.", required=True, metavar="PATH")
@click.option("--input", "source", help="onnx, torch: what the file takes, latents z or w [N, num_ws, w_dim].",
              show_default=True, type=click.Choice(["z", "w"]), default="z")
@click.option("--noise", help="onnx, torch: stored noise, none, or random: every layer's noise is an input.",
              show_default=True, type=click.Choice(["const", "none", "random"]), default="const")
@click.option("--pixels", help="onnx, torch: images [N, C, H, W] in [-1, 1], or [N, H, W, C] in 0..255.",
              show_default=True, type=click.Choice(["float", "uint8"]), default="float")
@click.option("--weights", help="onnx, web, safetensors, hub: how weights are stored; the computation is in float32. "
              "If not given, web takes float16, the others float32. safetensors and hub have no int8.",
              type=click.Choice(["float32", "float16", "int8"]))
@click.option("--verify-data", help="onnx: real images (zip or folder). The Fréchet distances of network and file are "
              "stored in the file's metadata.", metavar="PATH")
@click.option("--verify-teacher", help="onnx: a teacher. How network and file agree with its images is stored in "
              "the file's metadata.", metavar="[PATH|URL]")
@click.option("--detector", help="onnx: TorchScript feature detector instead of the published one, for --verify-data.",
              metavar="[PATH|URL]")
@click.option("--num-gen", help="onnx: generated images for --verify-data.", show_default=True,
              type=click.IntRange(min=2), default=10000, metavar="INT")
@click.option("--class", "--label", "class_idx", help="onnx, torch, web: the only class, a range of classes to choose "
              "from (0-9), or the only label, as numbers with commas between them.", show_default="all are inputs",
              type=ClassOrLabel(), metavar="INT|RANGE|LIST")
@click.option("--parts", help="safetensors, hub: the averaged generator; with its discriminator, as a teacher needs "
              "it; or all networks, to train them further.",
              show_default=True, type=click.Choice(["G_ema", "G_ema,D", "all"]), default="G_ema")
@click.option("--teacher", help="web: a second network, shown beside the first on the same latents. hub: the file that "
              "this network was derived from, for the card.", metavar="[PATH|URL]")
@click.option("--scores", help="hub: rows of calc_metrics.py or a run (metric-*.jsonl), for the card.", metavar="FILE")
@click.option("--runtime", help="web: folder with the npm package onnxruntime-web; otherwise npm fetches it.",
              metavar="DIR")
@trust_pickle_option
@trust_detector_option
@click.pass_context
def main(
    ctx: click.Context,
    network: str,
    kind: str,
    dest: str,
    source: str,
    noise: str,
    pixels: str,
    weights: str | None,
    verify_data: str | None,
    verify_teacher: str | None,
    detector: str | None,
    num_gen: int,
    class_idx: ClassChoice | None,
    parts: str,
    teacher: str | None,
    scores: str | None,
    runtime: str | None,
    trust_pickle: bool,
    trust_detector: bool,
) -> None:
    """Export a generator for other programs.

    onnx: a graph with a dynamic batch size and folded constants, checked with onnxruntime before it is written. Inputs:
    z, a one-hot label if the network is conditional, truncation; or w.

    torch: a torch.export program (.pt2), checked in the same way.

    safetensors: weights and configuration without pickle. Every command reads it back, as --network and --teacher.

    hub: a folder with safetensors, configuration, a model card and samples, which `dgl.from_pretrained` loads.

    web: a page that computes images in the browser; one file if --dest ends in .html, else a folder for a server.

    \b
    Examples:
      # Images by onnxruntime, as bytes.
      python export.py --network=student.pkl --format=onnx --pixels=uint8 --dest=student.onnx
    \b
      # A quarter of the size.
      python export.py --network=student.pkl --format=onnx --weights=int8 --dest=student-int8.onnx
    \b
      # All networks, for further training.
      python export.py --network=student.pkl --format=safetensors --parts=all --dest=student.safetensors
    \b
      # A teacher in half the space.
      python export.py --network=big.pkl --format=safetensors --parts=G_ema,D --weights=float16 --dest=big.safetensors
    \b
      # A page with teacher and student side by side.
      python export.py --network=student.pkl --teacher=teacher.pkl --format=web --dest=student.html
    """
    _check_options(ctx, kind)
    is_whole = (source, noise, pixels, class_idx) == ("z", "const", "float", None)
    if (verify_data or verify_teacher) and not is_whole:
        raise UserError("can only be verified with `source=z`, `noise=const` and `pixels=float`, and with all classes",
                        field="verify_data" if verify_data else "verify_teacher")
    if detector and not verify_data:
        raise UserError("goes with `verify_data`; leave it out", field="detector")
    if "num_gen" in _given(ctx) and not verify_data:
        raise UserError("goes with `verify_data`; leave it out", field="num_gen")
    if weights == "int8" and kind in ("safetensors", "hub"):
        raise UserError(f"`format={kind}` stores float32 or float16, found int8", field="weights")
    if verify_data and not os.path.exists(verify_data):
        raise UserError(f"{verify_data}: no such folder or zip", field="verify_data")
    if trust_detector and not detector:
        raise UserError("goes with `detector`; leave it out", field="trust_detector")
    if os.path.lexists(dest):
        raise UserError(f"{dest} exists already; remove it, or name another", field="dest")
    folder = os.path.dirname(os.path.abspath(dest))
    if not os.path.isdir(folder):
        raise UserError(f"{dest}: there is no folder {folder}; make it first", field="dest")
    from training.checkpoints.pickles import open_networks

    networks = open_networks(network, trust_pickle=trust_pickle)
    label_kind = networks.get("label_kind")
    choices = None if class_idx is None else _choices(networks["G_ema"], class_idx, label_kind)
    if kind == "web":
        from training.export import web

        shown = {"student" if teacher else "generator": networks["G_ema"]}
        if teacher:
            shown = {"teacher": open_networks(teacher, trust_pickle=trust_pickle)["G_ema"], **shown}
        web.write(shown, dest, os.path.basename(network), weights or "float16", runtime, choices,
                  class_idx[0] if isinstance(class_idx, range) else 0, label_kind)
        click.echo(f"{dest}: {_size(dest):,} bytes")
        return
    if kind == "hub":
        origin = None if teacher is None else _opened(teacher, trust_pickle)[:2]
        _write_hub(_chosen(networks, parts), dest, weights == "float16", origin, scores, label_kind)
    elif kind == "safetensors":
        _write_safetensors(_chosen(networks, parts), dest, weights == "float16", label_kind)
    else:
        from training.export.programs import generator_program

        program = generator_program(networks["G_ema"], source, noise, pixels, choices)
        if kind == "torch":
            _write_torch(program, dest)
        else:
            from metrics.detector import Trust, trust

            reference = _reference(verify_teacher, trust_pickle) if verify_teacher else None
            detectors = [detector] if detector else []

            def measure(content: bytes) -> dict[str, str]:
                with trust(Trust.ALL if trust_detector else Trust.PINNED):
                    return _verified(content, networks["G_ema"], verify_data, reference, detectors, num_gen)

            _write_onnx(program, dest, weights or "float32", measure)
    click.echo(f"{dest}: {_size(dest):,} bytes")


def _choices(G: "Generator", choice: ClassChoice, label_kind: str | None) -> "torch.Tensor | None":
    """The labels [n, c_dim] that a program is restricted to; None of a network without labels."""
    import torch

    arrays = class_labels(G.c_dim, choice, label_kind)
    return torch.cat([torch.from_numpy(array) for array in arrays.values()]) if G.c_dim else None


def _size(path: str) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = os.scandir(path) if os.path.isdir(path) else [path]
    return sum(os.path.getsize(file) for file in files)


def _check_options(ctx: click.Context, kind: str) -> None:
    """Refuses options that were given and have no meaning for the format."""
    known = set().union(*OPTIONS_OF.values())
    for given in _given(ctx):
        if given in known - OPTIONS_OF[kind]:
            formats = ", ".join(name for name, options in OPTIONS_OF.items() if given in options)
            raise UserError(f"has no meaning for `format={kind}`, only for {formats}; leave it out", field=given)


def _given(ctx: click.Context) -> list[str]:
    """The names of the options that were given."""
    command_line = click.core.ParameterSource.COMMANDLINE
    return [name for name in ctx.params if ctx.get_parameter_source(name) is command_line]


def _opened(path: str, trust_pickle: bool) -> tuple[str, str, dict[str, Any]]:
    """Name and sha256 of a network file, and its networks, which are not built yet."""
    from training.checkpoints.pickles import open_networks

    digests: list[str] = []
    networks = open_networks(path, trust_pickle=trust_pickle, check_sha256=digests.append)
    return os.path.basename(os.path.normpath(path)), digests[0], networks


def _reference(path: str, trust_pickle: bool) -> "Reference":
    """The teacher that images are compared with."""
    from metrics.options import Reference
    from training.checkpoints.parts import optional

    name, sha256, networks = _opened(path, trust_pickle)
    return Reference(name, sha256, networks["G_ema"], optional(networks, "D"))


def _verified(
    content: bytes, G: "Generator", data: str | None, reference: "Reference | None", detectors: list[str], num_gen: int
) -> dict[str, str]:
    """What was measured of a file, for its metadata; printed, too."""
    if data is None and reference is None:
        return {}
    from training.export import verification

    file = verification.FileGenerator(content, G)
    figures = {}
    if data is not None:
        fd = verification.fd(G, file, data, detectors, num_gen)
        click.echo(f"{fd['metric']}: network {fd['network']:.4g}, file {fd['file']:.4g}")
        figures["fd"] = json.dumps(fd)
    if reference is not None:
        agreement = verification.agreement(G, file, reference)
        for name, value in agreement["network"].items():
            click.echo(f"agreement with the teacher, {name}: network {value:.4g}, file {agreement['file'][name]:.4g}")
        figures["agreement"] = json.dumps(agreement)
    return figures


def _write_onnx(
    program: "Program", dest: str, weights: str, measure: Callable[[bytes], dict[str, str]]
) -> None:
    from training.export import onnx_file

    difference = onnx_file.write(program, dest, weights, measure=measure)
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


def _chosen(networks: dict[str, Any], parts: str) -> dict[str, Any]:
    """The networks by role that are to be stored."""
    from training.checkpoints import safetensors_files

    chosen = networks if parts == "all" else {role: networks[role] for role in parts.split(",")}
    return safetensors_files.distinct(chosen)


def _write_hub(
    networks: dict[str, Any], dest: str, half: bool, origin: tuple[str, str] | None, scores: str | None,
    label_kind: str | None,
) -> None:
    from training.export import hub

    rows = [] if scores is None else hub.read_scores(scores)
    label = "torch.eye(G.c_dim)[:1]" if networks["G_ema"].c_dim else "None"
    usage = ("import dgl  # of the package dgl-stylegan2\n"
             f'import torch\n\nG = dgl.from_pretrained("{os.path.basename(os.path.normpath(dest))}")\n'
             f"image = G(torch.randn([1, G.z_dim]), {label}, truncation_psi=0.7)")
    hub.write(networks, dest, usage, origin, rows, label_kind, half)


def _write_safetensors(networks: dict[str, Any], dest: str, half: bool, label_kind: str | None) -> None:
    from training.checkpoints import safetensors_files

    if not dest.endswith(safetensors_files.SUFFIX):
        raise UserError(f"expected a name that ends in {safetensors_files.SUFFIX}, by which such files are recognised, "
                        f"found {dest}", field="dest")
    information = {} if label_kind is None else {safetensors_files.LABEL_KIND: label_kind}
    safetensors_files.write(networks, dest, information, half)


if __name__ == "__main__":
    main()
