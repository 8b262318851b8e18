"""Generate images with a trained network."""
import functools
import itertools
import os
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from dnnlib.arrays import load_arrays
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
from dnnlib.errors import FileError, UserError
from dnnlib.files import check_writable_dir
from dnnlib.progress import Progress

if TYPE_CHECKING:
    from torch_utils.network_types import Generator


@click.command(cls=Command)
@click.option("--network", help="Network pickle: path or URL.", required=True, metavar="[PATH|URL]")
@click.option("--seeds", help="One image per seed, e.g. 3,8,20-29.", type=SeedList(), metavar="LIST")
@click.option("--trunc", "psi", help="Truncation: factor of the distance of w from its average.", show_default=True,
              type=FiniteFloat(), default=1, metavar="FLOAT")
@class_option
@click.option("--noise-mode", help="Noise of the synthesis network.", show_default=True,
              type=click.Choice(["const", "random", "none"]), default="const")
@click.option("--projected-w", help="Images of the array w [n, num_ws, w_dim] in an npz or npy file; no --seeds.",
              metavar="FILE")
@click.option("--outdir", help="Folder for the images.", required=True, metavar="DIR")
@click.option("--format", "file_format", help="Format of the image files.", show_default=True,
              type=click.Choice(["png", "jpg", "webp"]), default="png")
@click.option("--grid", help="Write all images into one file, too, grid.*: a row per class, or as square as it gets.",
              is_flag=True)
@click.option("--batch", help="Images at a time.",
              show_default=True, type=click.IntRange(min=1), default=1, metavar="INT")
@device_option
@trust_pickle_option
def main(
    network: str,
    seeds: list[int] | None,
    psi: float,
    class_idx: ClassChoice | None,
    noise_mode: str,
    projected_w: str | None,
    outdir: str,
    file_format: str,
    grid: bool,
    batch: int,
    device: str,
    trust_pickle: bool,
) -> None:
    """Generate images with a trained network, one file per seed (and class).

    A seed gives the same latent, bit for bit, as in NVIDIA's scripts.

    \b
    Examples:
      # Twelve faces close to the average one.
      python generate.py --network=ffhq.pkl --seeds=1-12 --trunc=0.6 --outdir=faces
    \b
      # Images of one class, 16 at a time.
      python generate.py --network=cifar10.pkl --class=7 --seeds=100-499 --batch=16 --outdir=horses
    \b
      # A table of ten classes, five images each.
      python generate.py --network=cifar10.pkl --class=0-9 --seeds=1-5 --grid --format=jpg --outdir=table
    \b
      # An image that projector.py found.
      python generate.py --network=ffhq.pkl --projected-w=found/projected_w.npz --outdir=again
    """
    if projected_w is None and not seeds:
        raise click.UsageError("there is nothing to generate: pass --seeds or --projected-w")
    check_writable_dir(outdir, "outdir")
    import torch

    from torch_utils.devices import resolve_device, tune_allocator
    from training.checkpoints.pickles import open_networks
    from training.inference import bands

    tune_allocator()
    target = resolve_device(device)
    networks = open_networks(network, trust_pickle=trust_pickle)
    G = networks["G_ema"].to(target)
    with torch.no_grad():
        if projected_w is not None:
            if seeds:
                click.echo("Warning: --seeds has no effect, the images are those of --projected-w", err=True)
            ws = torch.from_numpy(load_ws(projected_w, G)).to(target)
            images = {f"proj{i:02d}.{file_format}": (ws[i : i + 1],) for i in range(len(ws))}
            pixels = _write(lambda args: bands.synthesize(G.synthesis, args[0], noise_mode), images, outdir, 1)
            rows = 1
        else:
            assert seeds is not None
            zs = torch.from_numpy(seed_latents(seeds, G.z_dim)).to(target)
            arrays = class_labels(G.c_dim, class_idx, networks.get("label_kind"))
            labels = {name: torch.from_numpy(label).to(target) for name, label in arrays.items()}
            latents = {f"{name}seed{seed:04d}.{file_format}": (zs[i : i + 1], label)
                       for (name, label), (i, seed) in itertools.product(labels.items(), enumerate(seeds))}
            draw = functools.partial(bands.generate, G, noise_mode=noise_mode, truncation_psi=psi)
            pixels = _write(lambda args: draw(*args), latents, outdir, batch)
            rows = len(labels)
    if grid:
        from training.data.images import table, write_image

        write_image(os.path.join(outdir, f"grid.{file_format}"), table(pixels, rows if rows > 1 else None))


def load_ws(path: str, G: "Generator", field: str = "projected_w") -> np.ndarray:
    """The array w of an npz or npy file, checked against the network: float32 [n, num_ws, w_dim].

    Raises:
        UserError: the file is missing, holds no w, or one that does not fit; names the argument `field`.
    """
    try:
        arrays = load_arrays(path)
    except FileError as error:
        raise UserError(str(error), field) from None
    ws = arrays.get("w", arrays.get(""))
    if ws is None or ws.dtype.kind not in "fiu":
        raise UserError(f"{path} holds no array 'w' of numbers; projector.py writes one", field)
    ws = ws.astype(np.float32)
    if ws.ndim == 2:  # of one image, as other projectors write it
        ws = ws[np.newaxis]
    if not hasattr(G, "num_ws"):
        raise UserError(f"only style-based generators have w, this is a {type(G).__name__}", field)
    if ws.ndim != 3 or ws.shape[1:] != (G.num_ws, G.w_dim):
        raise UserError(f"expected w of shape [n, {G.num_ws}, {G.w_dim}], {path} has {list(ws.shape)}", field)
    if not np.isfinite(ws).all():
        raise UserError(f"{path} holds numbers that are not finite", field)
    return ws


def _write(generate: Any, inputs: dict[str, tuple], outdir: str, batch: int) -> list[np.ndarray]:
    """Generates `batch` images at a time, writes each to its own file, and returns them, uint8 [H, W, C]."""
    import torch

    from training.data.images import truncated, write_image

    written = []
    names = list(inputs)
    os.makedirs(outdir, exist_ok=True)
    with Progress(len(names), "images", unit="img") as bar:
        for start in range(0, len(names), batch):
            chunk = names[start : start + batch]
            images = generate([torch.cat(parts) for parts in zip(*(inputs[name] for name in chunk))])
            for name, image in zip(chunk, truncated(images)):
                write_image(os.path.join(outdir, name), image)
                written.append(image)
                bar.update()
    return written


if __name__ == "__main__":
    main()
