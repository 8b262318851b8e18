"""Web pages that draw a generator's images in the browser: one file that needs no server, or a folder for one."""
import base64
import gzip
import html
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dnnlib.cli import VECTORS
from dnnlib.errors import UserError
from dnnlib.files import atomic_dir, open_atomic

from . import onnx_file
from .programs import LatentProgram, MappingProgram, SynthesisProgram, generator_program, has_styles
from .web_runtime import runtime_files

if TYPE_CHECKING:
    import torch

    from torch_utils.network_types import Generator

_PAGE = Path(__file__).parent / "page"


def network_files(
    G: "Generator",
    name: str,
    weights: str,
    choices: "torch.Tensor | None" = None,
    first_class: int = 0,
    label_kind: str | None = None,
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """A generator as the page needs it.

    Args:
        G: generator on the CPU, in eval mode.
        name: what the page calls it, and the beginning of its files' names.
        weights: of the ONNX files, one of `onnx_weights.FORMATS`.
        choices: labels [n, c_dim] that the page offers; None offers all classes.
        first_class: number of the first of them.
        label_kind: one of `dnnlib.cli.LABEL_KINDS`; None is classes.

    Returns:
        What the page must know of the network, and the checked ONNX files by name.

    Raises:
        UserError: the network cannot be exported.
    """
    files = {}

    def add(kind: str, program: Any) -> str:
        content = onnx_file.build(program, weights)
        onnx_file.check(content, program, weights)
        files[f"{name}-{kind}.onnx"] = content
        return f"{name}-{kind}.onnx"

    styles = has_styles(G)
    inputs = generator_program(G, choices=choices).inputs  # complains of networks that have no truncation
    mapping = add("mapping", MappingProgram(G, choices).eval()) if styles else None
    image = SynthesisProgram(G, pixels="uint8") if styles else LatentProgram(G, pixels="uint8", choices=choices)
    return {
        "name": name,
        "mapping_file": mapping,
        "image_file": add("image", image.eval()),
        "z_dim": G.z_dim,
        "c_dim": sum(item.shape[1] for item in inputs if item.name == "label"),
        "first_class": first_class,
        "takes_vectors": label_kind == VECTORS,
        "num_ws": G.num_ws if styles else 0,
        "w_dim": G.w_dim if styles else 0,
        "resolution": G.img_resolution,
    }, files


def write(
    generators: Mapping[str, Any],
    dest: str | os.PathLike,
    title: str,
    weights: str = "float16",
    runtime: str | os.PathLike | None = None,
    choices: "torch.Tensor | None" = None,
    first_class: int = 0,
    label_kind: str | None = None,
) -> None:
    """Writes the page for one generator, or for several that are shown side by side on the same latents.

    Args:
        generators: by the names that the page shows.
        dest: a name that ends in .html for one file, which works from a disk, too; any other for a folder.
        title: of the page.
        weights: of the networks, one of `onnx_weights.FORMATS`.
        runtime: folder with onnxruntime-web; None fetches the pinned version.
        choices: labels [n, c_dim] that the page offers; None offers all classes.
        first_class, label_kind: see `network_files`.

    Raises:
        UserError: the generators take other latents or labels, a network cannot be exported, the runtime cannot be had,
            or `dest` cannot be written.
    """
    _check_latents(generators)
    runtime_by_name = runtime_files(runtime)
    networks: list[dict[str, Any]] = []
    files: dict[str, bytes] = {}
    for name, G in generators.items():
        about, own = network_files(G, name, weights, choices, first_class, label_kind)
        networks.append(about)
        files |= own
    sizes = ", ".join(f"{name} {len(content) / 2**20:.2f} MiB" for name, content in files.items())
    write_page(networks, {**runtime_by_name, **files}, dest, title, f"Weights stored as {weights}: {sizes}.")


def _check_latents(generators: Mapping[str, Any]) -> None:
    """Checks that all generators take the latents and labels of the last, the student."""
    sizes = [(G.z_dim, G.c_dim) for G in generators.values()]
    for size in sizes[:-1]:
        if size != sizes[-1]:
            raise UserError(f"expected the network's z_dim, c_dim {sizes[-1]}, found {size}; a page shows both on the "
                            "same latents", field="teacher")


def write_page(
    networks: Sequence[Mapping[str, Any]], files: Mapping[str, bytes], dest: str | os.PathLike, title: str, about: str
) -> None:
    """Writes the page of networks that are ONNX files already.

    Args:
        networks: what the page must know of each, as `network_files` returns it.
        files: their ONNX files by name, and those of `runtime_files`.
        dest: see `write`.
        title: of the page.
        about: a line below the controls.

    Raises:
        UserError: `dest` cannot be written.
    """
    data = {"networks": list(networks), "about": about}
    is_page = os.fspath(dest).endswith(".html")
    embedded = "\n".join(_embedded(name, content) for name, content in files.items()) if is_page else ""
    page = _filled({
        "title": html.escape(title),
        "style": (_PAGE / "style.css").read_text(encoding="utf-8"),
        "data": json.dumps(data).replace("<", "\\u003c"),
        "files": embedded,
        "program": (_PAGE / "program.js").read_text(encoding="utf-8"),
    })
    if is_page:
        with open_atomic(dest, "w") as f:
            f.write(page)
        return
    with atomic_dir(dest) as folder:
        for name, content in {**files, "index.html": page.encode()}.items():
            with open_atomic(folder / name) as f:
                f.write(content)


def _embedded(name: str, content: bytes) -> str:
    packed = base64.b64encode(gzip.compress(content, mtime=0)).decode()
    return f'<script type="text/plain" data-file="{html.escape(name)}">{packed}</script>'


def _filled(parts: Mapping[str, str]) -> str:
    """The page with its parts; each is inserted once, so that no part can hold another one's place."""
    pieces = (_PAGE / "index.html").read_text(encoding="utf-8").split("{{")
    filled = pieces[:1]
    for piece in pieces[1:]:
        name, _, rest = piece.partition("}}")
        filled += [parts[name], rest]
    return "".join(filled)
