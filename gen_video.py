"""Make a video that walks through a network's latents."""
import re
from collections.abc import Iterator
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

if TYPE_CHECKING:
    import torch

    from torch_utils.network_types import Generator


class GridSize(click.ParamType):
    """Option type: "4x2" becomes (4, 2), columns and rows."""

    name = "grid"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """The size [columns, rows].

        Raises:
            BadParameter: the text is no size.
        """
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"([1-9][0-9]?)x([1-9][0-9]?)", str(value))
        if match is None:
            self.fail(f"expected columns and rows such as 4x2, each from 1 to 99, found {value!r}", param, ctx)
        return int(match[1]), int(match[2])


@click.command(cls=Command)
@click.option("--network", help="Network pickle: path or URL.", required=True, metavar="[PATH|URL]")
@click.option("--seeds", help="Keyframes, e.g. 0-31, distributed over the cells of the grid.", type=SeedList(),
              metavar="LIST")
@click.option("--w", "projected", help="Keyframes are the array w [n, num_ws, w_dim] in an npz or npy file; no "
              "--seeds.", metavar="FILE")
@click.option("--grid", help="Columns and rows of images.",
              show_default=True, type=GridSize(), default="1x1",
              metavar="WxH")
@click.option("--num-keyframes", help="Keyframes of every cell; if there are too few seeds, they are used again.",
              show_default="all seeds divided among the cells", type=click.IntRange(min=1), metavar="INT")
@click.option("--w-frames", help="Frames from one keyframe to the next.",
              show_default=True, type=click.IntRange(min=1),
              default=60, metavar="INT")
@click.option("--shuffle-seed", help="Shuffles the seeds first.", type=click.IntRange(0, 2**32 - 1), metavar="INT")
@click.option("--trunc", "psi", help="Truncation: factor of the distance of w from its average.", show_default=True,
              type=FiniteFloat(), default=1, metavar="FLOAT")
@class_option
@click.option("--fps", help="Frames per second.",
              show_default=True, type=click.IntRange(1, 240), default=30, metavar="INT")
@click.option("--output", help="The video: a name that ends in .mp4 (needs the extra [video]), .gif or .webp.",
              required=True, metavar="FILE")
@device_option
@trust_pickle_option
def main(
    network: str,
    seeds: list[int] | None,
    projected: str | None,
    grid: tuple[int, int],
    num_keyframes: int | None,
    w_frames: int,
    shuffle_seed: int | None,
    psi: float,
    class_idx: ClassChoice | None,
    fps: int,
    output: str,
    device: str,
    trust_pickle: bool,
) -> None:
    """Make a video that walks through a network's latents, on smooth closed paths through keyframes.

    For a range of classes, the keyframes run through the classes, and the path leads from one class to the next.

    \b
    Examples:
      # Eight seconds through four images.
      python gen_video.py --network=ffhq.pkl --seeds=0-3 --trunc=0.7 --output=faces.mp4
    \b
      # A grid of 4 by 2 images, each with three keyframes, without ffmpeg.
      python gen_video.py --network=cifar10.pkl --seeds=0-23 --grid=4x2 --class=1 --output=cars.webp
    """
    if (seeds is None) == (projected is None):
        raise click.UsageError("give the keyframes: either --seeds or --w")
    if projected is not None and (num_keyframes, shuffle_seed) != (None, None):
        raise click.UsageError("--num-keyframes and --shuffle-seed go with --seeds")
    from training.data.video import check_output

    check_output(output)
    import torch

    from torch_utils.devices import resolve_device, tune_allocator
    from training.checkpoints.pickles import open_networks
    from training.data.video import closed_path, write_video

    tune_allocator()
    networks = open_networks(network, trust_pickle=trust_pickle)
    G = networks["G_ema"].to(resolve_device(device))
    with torch.no_grad():
        if projected is not None:
            if grid != (1, 1):
                raise UserError("w goes with one image; leave out the grid", field="grid")
            cells = _projected(G, projected)[None]
            label = None
        else:
            assert seeds is not None
            arrays = list(class_labels(G.c_dim, class_idx, networks.get("label_kind")).values())
            if len(arrays) > 1 and not hasattr(G, "mapping"):
                raise UserError(f"a {type(G).__name__} has no latent w in which a path leads from class to class; give "
                                "one class", field="class_idx")
            label = torch.from_numpy(np.concatenate(arrays)).to(next(G.parameters()).device)
            cells = _keyframes(G, seeds, grid, num_keyframes, shuffle_seed, label, psi)
        paths = np.stack([closed_path(cell, w_frames) for cell in cells], axis=1)  # [frames, cells, ...]
        write_video(output, _frames(G, paths, grid, label, psi), len(paths), fps)


def _projected(G: "Generator", path: str) -> np.ndarray:
    """The array w [n, num_ws, w_dim] of a file."""
    from generate import load_ws

    return load_ws(path, G, "projected")


def _keyframes(
    G: "Generator",
    seeds: list[int],
    grid: tuple[int, int],
    count: int | None,
    shuffle_seed: int | None,
    label: "torch.Tensor",
    psi: float,
) -> np.ndarray:
    """Latents of the keyframes of every cell: w [cells, keyframes, num_ws, w_dim], or z where there is no w.

    Labels [N, c_dim] are those of the keyframes, in turn.
    """
    import torch

    from training.data.video import grid_keyframes

    dealt = grid_keyframes(seeds, grid[0] * grid[1], count, shuffle_seed)
    z = seed_latents(dealt.ravel().tolist(), G.z_dim)
    if not hasattr(G, "mapping"):
        return z.reshape(*dealt.shape, -1)
    turns = [number % dealt.shape[1] % len(label) for number in range(len(z))]  # keyframes of a cell take turns
    ws = [G.mapping(torch.from_numpy(part)[None].to(label.device), label[turn : turn + 1], truncation_psi=psi).cpu()
          for part, turn in zip(z, turns)]
    return torch.cat(ws).reshape(*dealt.shape, G.num_ws, G.w_dim).numpy()


def _frames(
    G: "Generator", paths: np.ndarray, grid: tuple[int, int], label: "torch.Tensor | None", psi: float
) -> Iterator[np.ndarray]:
    """Frames, uint8 [H, W, C], of latents [frames, cells, ...]."""
    import torch

    from training.data.images import truncated

    device = next(G.parameters()).device
    columns, rows = grid
    for latents in paths:
        images = []
        for latent in torch.from_numpy(latents).to(device).split(1):
            image = G.synthesis(latent, noise_mode="const") if hasattr(G, "mapping") else G(latent, label, psi)
            images.append(truncated(image)[0])
        lines = [np.concatenate(images[columns * row : columns * (row + 1)], axis=1) for row in range(rows)]
        yield np.concatenate(lines)


if __name__ == "__main__":
    main()
