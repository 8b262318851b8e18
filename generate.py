"""Generate images with a trained network."""
import os
from typing import Any

import click
import numpy as np

from dnnlib.arrays import load_arrays
from dnnlib.cli import (
    Command,
    FiniteFloat,
    SeedList,
    class_label,
    class_option,
    device_option,
    seed_latents,
    trust_pickle_option,
)
from dnnlib.errors import FileError, UserError
from dnnlib.files import check_writable_dir
from dnnlib.progress import Progress


@click.command(cls=Command)
@click.option("--network", help="Network pickle: path or URL.", required=True, metavar="[PATH|URL]")
@click.option("--seeds", help="One image per seed, e.g. 3,8,20-29.", type=SeedList(), metavar="LIST")
@click.option("--trunc", "psi", help="Truncation: factor of the distance of w from its average.", type=FiniteFloat(),
              default=1, show_default=True, metavar="FLOAT")
@class_option
@click.option("--noise-mode", help="Noise of the synthesis network.", type=click.Choice(["const", "random", "none"]),
              default="const", show_default=True)
@click.option("--projected-w", help="Make images of the array w [n, num_ws, w_dim] in an npz or npy file, instead of "
              "--seeds.", metavar="FILE")
@click.option("--outdir", help="Folder for the images.", required=True, metavar="DIR")
@click.option("--batch", help="Images per pass.", type=click.IntRange(min=1), default=1, show_default=True,
              metavar="INT")
@device_option
@trust_pickle_option
def main(
    network: str,
    seeds: list[int] | None,
    psi: float,
    class_idx: int | tuple[float, ...] | None,
    noise_mode: str,
    projected_w: str | None,
    outdir: str,
    batch: int,
    device: str,
    trust_pickle: bool,
) -> None:
    """Generate images with a trained network, one PNG per seed.

    A seed gives the same latent, bit for bit, as in NVIDIA's scripts.

    \b
    Examples:
      # Twelve faces close to the average one.
      python generate.py --network=ffhq.pkl --seeds=1-12 --trunc=0.6 --outdir=faces
    \b
      # Images of one class, 16 at a time.
      python generate.py --network=cifar10.pkl --class=7 --seeds=100-499 --batch=16 --outdir=horses
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

    tune_allocator()
    target = resolve_device(device)
    G = open_networks(network, trust_pickle=trust_pickle)["G_ema"].to(target)
    synthesis = {"noise_mode": noise_mode}
    with torch.no_grad():
        if projected_w is not None:
            if seeds:
                click.echo("Warning: --seeds has no effect, the images are those of --projected-w", err=True)
            ws = torch.from_numpy(_load_ws(projected_w, G)).to(target)
            images = {f"proj{i:02d}.png": (ws[i : i + 1],) for i in range(len(ws))}
            _write(lambda args: G.synthesis(*args, **synthesis), images, outdir, 1)
            return
        label = torch.from_numpy(class_label(G.c_dim, class_idx)).to(target)
        assert seeds is not None
        zs = torch.from_numpy(seed_latents(seeds, G.z_dim)).to(target)
        latents = {f"seed{seed:04d}.png": (zs[i : i + 1], label) for i, seed in enumerate(seeds)}
        _write(lambda args: G(*args, truncation_psi=psi, **synthesis), latents, outdir, batch)


def _load_ws(path: str, G: Any) -> np.ndarray:
    """The array w of an npz or npy file, checked against the network."""
    try:
        arrays = load_arrays(path)
    except FileError as error:
        raise UserError(str(error), "projected_w") from None
    ws = arrays.get("w", arrays.get(""))
    if ws is None or ws.dtype.kind not in "fiu":
        raise UserError(f"{path} holds no array 'w' of numbers; projector.py writes one", "projected_w")
    ws = ws.astype(np.float32)
    if ws.ndim == 2:  # of one image, as other projectors write it
        ws = ws[np.newaxis]
    if not hasattr(G, "num_ws"):
        raise UserError(f"only style-based generators have w, this is a {type(G).__name__}", "projected_w")
    if ws.ndim != 3 or ws.shape[1:] != (G.num_ws, G.w_dim):
        raise UserError(f"expected w of shape [n, {G.num_ws}, {G.w_dim}], {path} has {list(ws.shape)}", "projected_w")
    if not np.isfinite(ws).all():
        raise UserError(f"{path} holds numbers that are not finite", "projected_w")
    return ws


def _write(generate: Any, inputs: dict[str, tuple], outdir: str, batch: int) -> None:
    """Generates `batch` images at a time and writes each to its own PNG."""
    import torch

    from training.data.images import truncated, write_png

    names = list(inputs)
    os.makedirs(outdir, exist_ok=True)
    with Progress(len(names), "images", unit="img") as bar:
        for start in range(0, len(names), batch):
            chunk = names[start : start + batch]
            images = generate([torch.cat(parts) for parts in zip(*(inputs[name] for name in chunk))])
            for name, image in zip(chunk, truncated(images)):
                write_png(os.path.join(outdir, name), image)
                bar.update()


if __name__ == "__main__":
    main()
