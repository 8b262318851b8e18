"""Command line: convert images into a data set for training, or check one. The work is in training/data/."""
import contextlib
import os
import re
import signal
import sys
from collections.abc import Iterator
from typing import Any

import click

from dnnlib import strict_json
from dnnlib.cli import Command, Group
from dnnlib.errors import UserError, printable

FILTERS = ["lanczos", "box"]
CROPS = ["center-crop", "center-crop-wide"]


class _Tool(Group):
    """Without a command name, `dataset_tool.py --source=...` converts, as NVlabs' tool does."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args if args and args[0] in self.commands else ["convert", *args])


class _Size(click.ParamType):
    name = "WxH"

    def convert(
        self, value: str | tuple[int, int], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"([1-9][0-9]*)[x,]([1-9][0-9]*)", value)
        if match is None:
            self.fail(f"expected WxH, for example 256x256, found {value!r}", param, ctx)
        return int(match[1]), int(match[2])


class _Range(click.ParamType):
    name = "FIRST:END"

    def convert(
        self, value: str | tuple[int, int | None], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int | None]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"([0-9]*):([0-9]*)", value)
        if match is None:
            self.fail(f"expected FIRST:END, for example 0:8000, found {value!r}", param, ctx)
        return int(match[1] or 0), int(match[2]) if match[2] else None


class Colour(click.ParamType):
    """A colour by name or as #80a0ff, as numbers (red, green, blue)."""

    name = "colour"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int, int]:
        """Reads the option's text."""
        from PIL import ImageColor

        if isinstance(value, tuple):
            return value
        try:
            red, green, blue = ImageColor.getrgb(value)[:3]
        except ValueError:
            self.fail(f"expected a colour, for example white or #80a0ff, found {value!r}", param, ctx)
        return red, green, blue


@click.group(cls=_Tool)
def main() -> None:
    """Converts images into a data set, or checks one."""


@main.command(cls=Command, name="convert")
@click.option("--source", help="What to convert, see above", required=True, metavar="PATH")
@click.option("--dest", help="Folder (empty or new) or name ending in .zip", required=True, metavar="PATH")
@click.option("--max-images", help="Use at most this many images", type=click.IntRange(min=1), metavar="INT")
@click.option("--range", "index_range", help="Use images FIRST up to, not including, END; either may be left out",
              type=_Range(), default=":", show_default="all images", metavar="FIRST:END")
@click.option("--transform", help="Crop to apply before resizing", type=click.Choice(CROPS))
@click.option("--resolution", help="Output size", type=_Size(), metavar="WxH")
@click.option("--width", help="Output width (or use --resolution)", type=click.IntRange(min=1), metavar="INT")
@click.option("--height", help="Output height (or use --resolution)", type=click.IntRange(min=1), metavar="INT")
@click.option("--resize-filter", help="Filter for resizing", type=click.Choice(FILTERS), default="lanczos",
              show_default=True)
@click.option("--force-channels", help="Convert to greyscale (1) or RGB (3)", type=click.Choice(["1", "3"]))
@click.option("--background", help="Colour that transparency is composed on, e.g. black or #80a0ff; also takes images "
              "with transparency without --force-channels", type=Colour(), metavar="COLOUR",
              show_default="white with --force-channels")
@click.option("--subfolders-as-labels", help="Number the sorted top-level folders and use them as class labels",
              is_flag=True)
@click.option("--skip-bad", help="Leave bad images out, and list them, instead of stopping: up to a tenth of them, or "
              "with --skip-bad=all any number", is_flag=False, flag_value="few", type=click.Choice(["few", "all"]))
@click.option("--format", "file_format", help="Format of the images; jpg (quality 95) is smaller, but not exact",
              type=click.Choice(["png", "jpg"]), default="png", show_default=True)
@click.option("--json", "as_json", help="Print the summary of the conversion as JSON", is_flag=True)
def convert_command(
    resolution: tuple[int, int] | None, force_channels: str | None, as_json: bool, **options: Any
) -> None:
    """Converts images into a data set: PNGs or JPEGs in a folder or in an uncompressed zip.

    `dataset_tool.py validate --data=PATH` checks a data set instead; see its own --help.

    --source is one of

    \b
      PATH/                             folder of images, with sub-folders
      PATH.zip                          the same in a zip
      cifar-10-python.tar.gz            CIFAR-10, training images with labels
      *-images-idx3-ubyte.gz            MNIST, Fashion-MNIST, ... with the labels
                                        file beside it; padded from 28 to 32 pixels
      PATH.tfrecords, PATH/             data sets of the TensorFlow code: a folder of
                                        .tfrecords files, with .labels beside them
      PATH_lmdb/                        LSUN (needs the lmdb package)
      PATH.pkl                          images of a network's G_ema, --max-images of
                                        them, without truncation, class after class

    Images are converted as a viewer shows them: upright according to their EXIF data, with their palette, the first
    frame of an animation. PNG, JPEG, WebP, BMP, GIF, TIFF and PPM are read. HEIC and camera raw files are not; they are
    listed and left out, as are the hidden files of systems and tools.

    All images must come out square, with a power of two from 8 up as side, greyscale or RGB, and of the shape that
    most of them have. If one does not, nothing is written and every such file is named; --transform, --resolution and
    --force-channels change images, --skip-bad leaves them out. Images keep their number in the source, so those left
    out leave gaps.

    Labels of a folder or zip come from its dataset.json, {"labels": [["dir/image.png", 6], ...]}, or with
    --subfolders-as-labels from its folders. A label is a class number or a list of numbers.

    The conversion ends with a summary: what was stored, what was left out and why, labels and classes.

    \b
    --transform=center-crop             the central square
    --transform=center-crop-wide        the central part of the same aspect ratio as
                                        the output size, on a black square
    Both need the output size. Without a transform images are only resized.

    The choice of --resize-filter affects FID: compare only numbers made with the same filter. (Published FIDs of
    downscaled FFHQ need box.) It is recorded in dataset.json.
    """
    from training.data.conversion import ConvertOptions, convert

    if all(os.path.exists(options[name]) for name in ("source", "dest")) and os.path.samefile(
            options["source"], options["dest"]):
        raise UserError(f"{options['dest']} is the source, too; name another", "dest")
    if resolution is not None:
        if options["width"] or options["height"]:
            raise click.UsageError("--resolution: pass it or --width and --height, not both")
        options["width"], options["height"] = resolution
    options["generator"] = _generator(options["source"]) if options["source"].endswith(".pkl") else None
    options["force_channels"] = int(force_channels) if force_channels else None
    with _sigterm_raises():
        account = convert(ConvertOptions(**options))
    if as_json:
        click.echo(strict_json.dumps({"dest": options["dest"], **account.as_json()}))
        return
    for note in account.notes():
        click.echo(printable(note), err=True)
    assert account.shape is not None, "something was stored"
    height, width, num_channels = account.shape
    click.echo(f"{options['dest']}: {account.num_stored} images, {width}x{height}, {num_channels} channel(s)")


def _generator(path: str) -> Any:
    """The G_ema of a network pickle, on the best device."""
    from torch_utils.devices import resolve_device
    from training.checkpoints.pickles import open_networks

    return open_networks(path)["G_ema"].to(resolve_device("auto"))


@main.command(cls=Command, name="validate")
@click.option("--data", help="Folder or zip to check", required=True, metavar="PATH")
@click.option("--resolution", help="Side the images must have", type=click.IntRange(min=1), metavar="INT")
def validate_command(data: str, resolution: int | None) -> None:
    """Decodes every image of a data set and reads its labels.

    Lists every bad file on stdout: name, mode, size and reason, separated by tabs. Exit status 1 if there are any.
    """
    from training.data.files import DatasetError
    from training.data.validation import check_dataset

    report = check_dataset(data, resolution)
    for finding in report.bad_files:
        click.echo(printable(finding.row()))
    problems = [f"{len(report.bad_files)} of {report.num_images} images cannot be used"] if report.bad_files else []
    problems += [report.label_error] if report.label_error else []
    if problems:
        raise DatasetError(f"{data}: {'; '.join(problems)}", "data")
    assert report.shape is not None, "there are good images"
    height, width, num_channels = report.shape
    if report.empty_classes:
        numbers = ", ".join(map(str, report.empty_classes[:20])) + (", ..." if len(report.empty_classes) > 20 else "")
        click.echo(f"Note: {len(report.empty_classes)} classes have no image: {numbers}", err=True)
    labels = f"labels of shape {report.label_shape}" if report.label_shape != [0] else "no labels"
    click.echo(f"{data}: {report.num_images} images, {width}x{height}, {num_channels} channel(s), {labels}: fine")


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Turns SIGTERM into an exception meanwhile, so that unfinished files are removed."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    main()
