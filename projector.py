"""Find the latent whose generated image is closest to a given one."""
import os
import tempfile
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from dnnlib.bounded import read_file
from dnnlib.cli import (
    ClassChoice,
    Command,
    class_labels,
    class_option,
    device_option,
    in_flags,
    trust_detector_option,
    trust_pickle_option,
)
from dnnlib.errors import FileError, UserError
from dnnlib.files import check_writable_dir, open_atomic
from dnnlib.progress import Progress

if TYPE_CHECKING:
    import torch

    from metrics.perceptual import Features
    from torch_utils.network_types import Generator

OWN_DISCRIMINATOR = "D"
VIDEO = {"fps": 10, "codec": "libx264", "bitrate": "16M", "macro_block_size": 1}  # any size of image


@click.command(cls=Command)
@click.option("--network", help="Network pickle: path or URL.", required=True, metavar="[PATH|URL]")
@click.option("--target", "target_path", help="Target image; cropped around its centre to the shape of the network's "
              "images and resized.",
              required=True, metavar="FILE")
@click.option("--num-steps", help="Optimisation steps.", type=click.IntRange(min=1), default=1000, show_default=True,
              metavar="INT")
@click.option("--seed", help="Random seed.", type=click.IntRange(min=0, max=2**32 - 1), default=303, show_default=True,
              metavar="INT")
@click.option("--save-video", help="Write a video of the optimisation; needs the extra 'video'.", type=bool,
              default=True, show_default=True, metavar="BOOL")
@click.option("--outdir", help="Folder for the results.", required=True, metavar="DIR")
@class_option
@click.option("--detector", help="Network that compares the images: a TorchScript file such as vgg16.pt that gives "
              "LPIPS features (path or URL, optionally #sha256=...), or D for the pickle's own discriminator, which "
              "needs no other file.", show_default="the published vgg16.pt, or D if that cannot be read",
              metavar="[PATH|URL|D]")
@device_option
@trust_pickle_option
@trust_detector_option
@click.pass_context
def main(
    ctx: click.Context,
    network: str,
    target_path: str,
    num_steps: int,
    seed: int,
    save_video: bool,
    outdir: str,
    class_idx: ClassChoice | None,
    detector: str | None,
    device: str,
    trust_pickle: bool,
    trust_detector: bool,
) -> None:
    """Project an image into the latent space of a trained network.

    Writes target.png (the image as it is compared), proj.png (the closest image found), projected_w.npz (its latent,
    for generate.py --projected-w) and proj.mp4 (the optimisation). For a range of classes, each class is optimised for
    --num-steps, and the closest image is kept.

    \b
    Example:
      python projector.py --network=ffhq.pkl --target=portrait.jpg --num-steps=500 --outdir=found
    """
    is_required = ctx.get_parameter_source("save_video") is click.core.ParameterSource.COMMANDLINE
    save_video = save_video and _can_write_video(is_required)
    check_writable_dir(outdir, "outdir")
    import torch

    from torch_utils.devices import resolve_device, tune_allocator
    from training.checkpoints.pickles import open_networks
    from training.data.images import PROJECTED, truncated, write_png
    from training.inference.projection import project

    tune_allocator()
    compute = resolve_device(device)
    networks = open_networks(network, trust_pickle=trust_pickle)
    G = networks["G_ema"].to(compute)
    if not hasattr(G, "mapping") or not hasattr(G, "synthesis"):
        raise UserError(f"{network} holds a {type(G).__name__}, which has no latent space w; this needs a "
                        "StyleGAN2", "network")
    labels = class_labels(G.c_dim, class_idx, networks.get("label_kind"))
    target = _load_target(target_path, G)
    pixels = torch.from_numpy(target.transpose(2, 0, 1).copy())
    features = _features(detector, networks, compute, trust_detector)
    nearest = float("inf")
    for name, array in labels.items():
        torch.manual_seed(seed)
        path = project(G, pixels, features=features, c=torch.from_numpy(array).to(compute), num_steps=num_steps,
                       verbose=True, device=compute)  # fmt: skip
        distance = _distance(G, path[-1:].to(compute), pixels, features) if len(labels) > 1 else 0.0
        if len(labels) > 1:
            click.echo(f"{name.rstrip('-')}: distance {distance:.4g}")
        if distance < nearest:
            nearest, ws = distance, path

    def images() -> Iterator[np.ndarray]:
        for step in ws:
            yield truncated(G.synthesis(step[None].to(compute), noise_mode="const"), PROJECTED)[0]

    os.makedirs(outdir, exist_ok=True)
    with torch.no_grad():
        write_png(os.path.join(outdir, "target.png"), target)
        if save_video:
            _write_video(os.path.join(outdir, "proj.mp4"), target, images(), num_steps)
        proj = truncated(G.synthesis(ws[-1:].to(compute), noise_mode="const"), PROJECTED)[0]
    write_png(os.path.join(outdir, "proj.png"), proj)
    with open_atomic(os.path.join(outdir, "projected_w.npz"), "wb") as f:
        np.savez(f, w=ws[-1:].numpy())


def _distance(G: "Generator", ws: "torch.Tensor", target: "torch.Tensor", features: "Features") -> float:
    """The distance of the image of ws [1, num_ws, w_dim], with the network's own noise, from the target [C, H, W]."""
    import torch

    with torch.no_grad():
        image = G.synthesis(ws, noise_mode="const", force_fp32=True)
        wanted = features(target[None].to(ws))
        return float((features((image + 1) * 127.5) - wanted).square().sum())


def _load_target(path: str, G: "Generator") -> np.ndarray:
    """The target as uint8 [H, W, C] of the network's size and channels."""
    from torch_utils.network_types import image_size
    from training.data.files import MAX_FILE, BadFile
    from training.data.pixels import read_picture
    from training.data.transforms import centre_resized

    if G.img_channels not in range(1, 5):
        raise UserError(f"images of {G.img_channels} channels cannot be written as PNG", "network")
    try:
        picture = read_picture(read_file(path, MAX_FILE), G.img_channels)
    except FileError as error:
        raise UserError(str(error), "target_path") from None
    except BadFile as error:
        raise UserError(error.describe(path), "target_path") from None
    height, width = image_size(G)
    return centre_resized(picture.pixels, width, height)


def _features(
    source: str | None, networks: Mapping[str, Any], device: "torch.device", trust: bool
) -> "Features":
    """What --detector stands for."""
    from metrics import detector
    from metrics.perceptual import DetectorFeatures, DiscriminatorFeatures
    from training.checkpoints.parts import optional

    if source != OWN_DISCRIMINATOR:
        spec = detector.VGG16 if source is None else detector.DetectorSpec.parse(source)
        try:
            with detector.trust(detector.Trust.ALL if trust else detector.Trust.PINNED):
                return DetectorFeatures(detector.load(spec, device, verbose=True))
        except detector.DetectorUnavailable as error:
            if source is not None:
                raise
            reason = in_flags(error, click.get_current_context().command)
            if optional(networks, "D") is None:
                raise UserError(f"the network's file has no discriminator to compare images with, and {reason}",
                                "detector") from error
            click.echo(f"Warning: images are compared by the network's own discriminator, since {reason}", err=True)
    return DiscriminatorFeatures(networks["D"].to(device))


def _can_write_video(is_required: bool) -> bool:
    """Whether there is an ffmpeg for imageio to use.

    Raises:
        UserError: there is none, and the option was given.
    """
    try:
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
        return True
    except (ImportError, RuntimeError) as error:
        advice = f"a video needs imageio-ffmpeg (pip install imageio-ffmpeg), which cannot be used: {error}"
    if is_required:
        raise UserError(advice, "save_video")
    click.echo(f"Note: no proj.mp4 will be written; {advice}", err=True)
    return False


def _write_video(path: str, target: np.ndarray, images: Iterator[np.ndarray], num_images: int) -> None:
    """Writes a video of the target beside each image [H, W, C]."""
    import imageio

    # ffmpeg writes to a name, not into an open file, and knows the format by its end.
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path), prefix=".proj-") as folder:
        temp = os.path.join(folder, "proj.mp4")
        writer: Any = imageio.get_writer
        with writer(temp, **VIDEO) as video, Progress(num_images, "video", unit="frame") as bar:
            for image in images:
                pair = np.concatenate([target, image], axis=1)
                video.append_data(np.repeat(pair[:, :, :1], 3, axis=2) if pair.shape[2] < 3 else pair[:, :, :3])
                bar.update()
        os.replace(temp, path)


if __name__ == "__main__":
    main()
