"""Mix the styles of generated images: a table of images with the layout of one seed and the details of another."""
import itertools
import os
from typing import TYPE_CHECKING

import click
import numpy as np

from dnnlib.cli import (
    ClassChoice,
    Command,
    FiniteFloat,
    SeedList,
    class_labels,
    class_option,
    device_option,
    seed_latents,
    trust_pickle_option,
)
from dnnlib.errors import UserError
from dnnlib.files import check_writable_dir
from dnnlib.progress import Progress

if TYPE_CHECKING:
    import torch

    from torch_utils.network_types import Generator

DEFAULT_STYLES = range(7)


@click.command(cls=Command)
@click.option("--network", help="Network pickle: path or URL.", required=True, metavar="[PATH|URL]")
@click.option("--rows", help="Seeds of the rows, e.g. 11,40-42.", type=SeedList(), required=True, metavar="LIST")
@click.option("--cols", help="Seeds of the columns.", type=SeedList(), required=True, metavar="LIST")
@click.option("--styles", "layers", help="Layers, from coarse to fine, that take the column's style.",
              show_default="0-6, as far as the network has them", type=SeedList(), metavar="LIST")
@click.option("--trunc", "psi", help="Truncation: factor of the distance of w from its average.", type=FiniteFloat(),
              default=1, show_default=True, metavar="FLOAT")
@class_option
@click.option("--noise-mode", help="Noise of the synthesis network.", type=click.Choice(["const", "random", "none"]),
              default="const", show_default=True)
@click.option("--outdir", help="Folder for the images.", required=True, metavar="DIR")
@device_option
@trust_pickle_option
def main(
    network: str,
    rows: list[int],
    cols: list[int],
    layers: list[int] | None,
    psi: float,
    class_idx: ClassChoice | None,
    noise_mode: str,
    outdir: str,
    device: str,
    trust_pickle: bool,
) -> None:
    """Mix the styles of generated images: every row's image with the listed layers of every column's.

    Writes ROW-COL.png for every pair of seeds, SEED-SEED.png for every seed by itself, and all of them as grid.png; of
    a range of classes, the same for each of them, with names that begin with its number.

    \b
    Example:
      python style_mixing.py --network=ffhq.pkl --rows=11,40-42 --cols=5,17,23 --styles=0-3 --outdir=mixed
    """
    check_writable_dir(outdir, "outdir")
    import torch

    from torch_utils.devices import resolve_device, tune_allocator
    from training.checkpoints.pickles import open_networks
    from training.data.images import truncated, write_png
    from training.inference import bands

    tune_allocator()
    target = resolve_device(device)
    networks = open_networks(network, trust_pickle=trust_pickle)
    G = networks["G_ema"].to(target)
    chosen = _layers(G, layers)
    labels = class_labels(G.c_dim, class_idx, networks.get("label_kind"))
    os.makedirs(outdir, exist_ok=True)
    seeds = list(dict.fromkeys(rows + cols))
    zs = torch.from_numpy(seed_latents(seeds, G.z_dim)).to(target)
    for name, array in labels.items():
        label = torch.from_numpy(array).to(target)
        with torch.no_grad():
            all_ws = G.mapping(zs, label.expand(len(zs), -1), truncation_psi=psi)
            mixes = _mixes(dict(zip(seeds, all_ws, strict=True)), rows, cols, chosen)
            images = {}
            with Progress(len(mixes), f"images {name}".rstrip("- "), unit="img") as bar:
                for (row, col), ws in mixes.items():
                    image = truncated(bands.synthesize(G.synthesis, ws[None], noise_mode))[0]
                    write_png(os.path.join(outdir, f"{name}{row}-{col}.png"), image)
                    images[row, col] = image
                    bar.update()
        write_png(os.path.join(outdir, f"{name}grid.png"), _grid(images, rows, cols))


def _layers(G: "Generator", layers: list[int] | None) -> list[int]:
    """The layers to replace, checked against the network."""
    if not hasattr(G, "mapping") or not hasattr(G, "synthesis"):
        raise UserError(f"--network: only style-based generators have styles to mix, this is a {type(G).__name__}")
    if layers is None:
        return [layer for layer in DEFAULT_STYLES if layer < G.num_ws]
    if max(layers) >= G.num_ws:
        raise UserError(f"--styles: this network has layers 0 to {G.num_ws - 1}, found {max(layers)}")
    return layers


def _mixes(
    ws_of: dict[int, "torch.Tensor"], rows: list[int], cols: list[int], layers: list[int]
) -> dict[tuple[int, int], "torch.Tensor"]:
    """(row, column) → ws [num_ws, w_dim] of every image; a seed mixed with itself is unchanged."""
    import torch

    ws = next(iter(ws_of.values()))
    from_col = ws.new_zeros(len(ws), 1, dtype=torch.bool)
    from_col[layers] = True
    alone = [(seed, seed) for seed in ws_of]
    pairs = dict.fromkeys([*alone, *itertools.product(rows, cols)])
    return {(row, col): torch.where(from_col, ws_of[col], ws_of[row]) for row, col in pairs}


def _grid(images: dict[tuple[int, int], np.ndarray], rows: list[int], cols: list[int]) -> np.ndarray:
    """All images [H, W, C] in one, headed by those of the columns and of the rows alone; the corner is black."""
    corner = np.zeros_like(images[rows[0], rows[0]])
    head = [corner, *(images[col, col] for col in cols)]
    body = ([images[row, row], *(images[row, col] for col in cols)] for row in rows)
    return np.concatenate([np.concatenate(line, axis=1) for line in (head, *body)])


if __name__ == "__main__":
    main()
