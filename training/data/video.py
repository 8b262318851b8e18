"""Videos of generated images: closed paths through latents, and files of frames."""
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import scipy.interpolate

from dnnlib.errors import UserError
from dnnlib.progress import Progress

FORMATS = (".mp4", ".gif", ".webp")
_MP4: dict[str, Any] = {"codec": "libx264", "bitrate": "12M", "macro_block_size": 1}  # any size of image


def closed_path(keyframes: np.ndarray, frames: int) -> np.ndarray:
    """Points on a smooth closed curve through keyframes.

    Args:
        keyframes: [K, ...]; the curve goes from the last one back to the first.
        frames: points from one keyframe to the next.

    Returns:
        Cubic periodic spline, float32 [K * frames, ...]; every keyframe is one of its points.
    """
    closed = np.concatenate([keyframes, keyframes[:1]])
    if len(keyframes) == 1:
        return np.repeat(keyframes, frames, axis=0).astype(np.float32)
    curve = scipy.interpolate.CubicSpline(np.arange(len(closed)), closed, axis=0, bc_type="periodic")
    return curve(np.arange(len(keyframes) * frames) / frames).astype(np.float32)


def grid_keyframes(seeds: list[int], cells: int, keyframes: int | None, shuffle_seed: int | None) -> np.ndarray:
    """Which seed every cell of a grid shows at every keyframe: ints [cells, keyframes].

    Args:
        seeds: dealt out cell by cell, and again from the start if there are too few.
        cells: of the grid.
        keyframes: of every cell; None divides the seeds among the cells.
        shuffle_seed: shuffles the seeds first; None keeps their order.

    Raises:
        UserError: the seeds cannot be divided evenly.
    """
    if keyframes is None:
        if len(seeds) % cells:
            raise UserError(f"expected a multiple of the grid's {cells} cells, found {len(seeds)}; "
                            "or give `num_keyframes`", field="seeds")
        keyframes = len(seeds) // cells
    dealt = np.resize(np.array(seeds, dtype=np.int64), cells * keyframes)
    if shuffle_seed is not None:
        np.random.RandomState(shuffle_seed).shuffle(dealt)
    return dealt.reshape(cells, keyframes)


def check_output(path: str | os.PathLike) -> None:
    """Checks that a video of this name can be written here.

    Raises:
        UserError: an unknown ending, a missing folder, or an mp4 without ffmpeg.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise UserError(f"expected a name that ends in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}, found {path}",
                        field="output")
    folder = Path(path).absolute().parent
    if not folder.is_dir():
        raise UserError(f"{path}: there is no folder {folder}; make it first", field="output")
    if suffix == ".mp4":
        try:
            import imageio_ffmpeg

            imageio_ffmpeg.get_ffmpeg_exe()
        except (ImportError, RuntimeError) as error:
            raise UserError("an mp4 needs imageio-ffmpeg (the extra [video]: pip install imageio-ffmpeg), which cannot "
                            f"be used: {error}; .gif and .webp need nothing", field="output") from error


def write_video(path: str | os.PathLike, frames: Iterator[np.ndarray], count: int, fps: float) -> None:
    """Writes frames as an mp4, GIF or WebP, by the ending of the name; all of it or nothing.

    Args:
        path: see `check_output`.
        frames: uint8 images [H, W, C] of 1 or 3 channels.
        count: how many there are, for the progress bar.
        fps: frames per second; GIF rounds the time of a frame to hundredths of a second.
    """
    target = Path(path)
    with tempfile.TemporaryDirectory(dir=target.absolute().parent, prefix=".video-") as folder, \
            Progress(count, "frames", unit="frame") as bar:
        temp = Path(folder, f"video{target.suffix.lower()}")

        def shown() -> Iterator[np.ndarray]:
            for frame in frames:
                yield np.repeat(frame, 3, axis=2) if frame.shape[2] == 1 else frame
                bar.update()

        if temp.suffix == ".mp4":
            import imageio

            writer: Any = imageio.get_writer(temp, fps=fps, **_MP4)
            with writer as video:
                for frame in shown():
                    video.append_data(frame)
        else:
            pictures = map(PIL.Image.fromarray, shown())
            options: dict[str, Any] = {"lossless": True} if temp.suffix == ".webp" else {}
            options |= {"save_all": True, "append_images": pictures, "duration": round(1000 / fps), "loop": 0}
            next(pictures).save(temp, **options)
        os.replace(temp, target)
