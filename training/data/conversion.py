"""Converts a source of images into a data set: transform, check, number, label, write. No torch."""

import dataclasses
import itertools
import os
from typing import Any

import numpy as np

from dnnlib.progress import Progress

from .files import BadFile, DatasetError
from .pixels import check_same_shape, check_square_power_of_two, encode_png
from .sources import Source, SourceImage, open_source
from .transforms import Transform, make_transform
from .writer import WriteFile, check_dest, image_name, open_dest, write_labels

MAX_LISTED = 20

_ADVICE = (
    "Repair or remove the bad ones, change images with `transform`, `resolution` or `force_channels`, "
    "or leave bad ones out with `skip_bad`."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """What to convert and how; see the options of dataset_tool.py."""

    source: str
    dest: str
    max_images: int | None = None
    index_range: tuple[int, int | None] = (0, None)  # images first ≤ index < end; None: to the last one
    transform: str | None = None
    width: int | None = None
    height: int | None = None
    resize_filter: str = "lanczos"
    force_channels: int | None = None
    subfolders_as_labels: bool = False
    skip_bad: bool = False


@dataclasses.dataclass
class Names:
    """A count of images with a line for each of the first ones."""

    count: int = 0
    lines: list[str] = dataclasses.field(default_factory=list)

    def add(self, line: str) -> None:
        """Counts one image."""
        self.count += 1
        if len(self.lines) < MAX_LISTED:
            self.lines.append(line)

    def __str__(self) -> str:
        if self.count == 1:
            return self.lines[0]
        more = [f"... and {self.count - len(self.lines)} more"] if self.count > len(self.lines) else []
        return "\n  ".join([f"{self.count} images:", *self.lines, *more])


@dataclasses.dataclass
class Report:
    """What became of the images."""

    num_stored: int = 0
    shape: tuple[int, ...] | None = None  # [H, W, C] of the first good image, which the others must have
    first_name: str = ""  # its name
    refused: Names = dataclasses.field(default_factory=Names)
    skipped: Names = dataclasses.field(default_factory=Names)  # bad ones left out
    too_small: Names = dataclasses.field(default_factory=Names)  # left out by center-crop-wide
    unlabelled: Names = dataclasses.field(default_factory=Names)
    labels: dict[str, Any] = dataclasses.field(default_factory=dict)  # stored name → label

    def notes(self) -> list[str]:
        """What the user should know of a conversion that went through."""
        notes = [
            (self.skipped, "left out, bad"),
            (self.too_small, "left out, smaller than the crop"),
            (self.unlabelled, "without a label, so dataset.json holds no labels at all"),
        ]
        if self.unlabelled.count == self.num_stored:  # the source has no labels: nothing was lost
            notes.pop()
        return [f"{what}: {names}" for names, what in notes if names.count]


def convert(options: ConvertOptions) -> Report:
    """Converts a source into a data set; on any error nothing is written.

    Images keep the number that they have in the source, so those left out leave gaps.

    Raises:
        UserError: source, destination or options are wrong, no image is left, or images are bad and `skip_bad`
            is off; the message then names up to 20 of them.
    """
    check_dest(options.dest)
    transform = make_transform(options.transform, options.width, options.height, options.resize_filter)
    source = open_source(options.source, options.force_channels, options.subfolders_as_labels)
    report = Report()
    with open_dest(options.dest) as write:
        _store_images(source, transform, options, report, write)
        _check_outcome(report)
        write_labels(write, None if report.unlabelled.count else report.labels, _provenance(options, source))
    return report


def _store_images(
    source: Source, transform: Transform, options: ConvertOptions, report: Report, write: WriteFile
) -> None:
    first, end = _selection(source.total, options)
    selected = zip(range(first, end), itertools.islice(source.images, first, end), strict=True)
    with Progress(end - first, "images", unit="img") as progress:
        for index, item in selected:
            try:
                pixels = _good_pixels(item, transform, report)
            except BadFile as error:
                may_skip = options.skip_bad or (source.skips_unreadable and error.size is None)
                (report.skipped if may_skip else report.refused).add(error.describe(item.name))
                pixels = None
            if pixels is not None and not report.refused.count:
                _store(image_name(index), item, pixels, report, write)
            progress.update()
            if report.shape is None and report.refused.count == MAX_LISTED:
                break  # the first twenty are all bad: something common to them, no need to go through the rest


def _selection(total: int, options: ConvertOptions) -> tuple[int, int]:
    first, end = options.index_range
    end = total if end is None else end
    if end > total or first >= end:
        raise DatasetError(f"{first}:{end} is outside of the {total} images of {options.source}", "index_range")
    return first, end if options.max_images is None else min(end, first + options.max_images)


def _good_pixels(item: SourceImage, transform: Transform, report: Report) -> np.ndarray | None:
    """The image as it will be stored, None if the crop leaves it out. Raises BadFile."""
    pixels = transform(item.load())
    if pixels is None:
        report.too_small.add(item.name)
        return None
    check_square_power_of_two(pixels.shape)
    if report.shape is None:
        report.shape, report.first_name = pixels.shape, item.name
    check_same_shape(pixels.shape, report.shape, f"{report.first_name} is")
    return pixels


def _store(name: str, item: SourceImage, pixels: np.ndarray, report: Report, write: WriteFile) -> None:
    write(name, encode_png(pixels))
    report.num_stored += 1
    report.labels[name] = item.label
    if item.label is None:
        report.unlabelled.add(item.name)


def _check_outcome(report: Report) -> None:
    if report.refused.count:
        end = ". " if report.refused.count == 1 else "\n"
        raise DatasetError(f"{report.refused}{end}Nothing was written. {_ADVICE}", "source")
    if not report.num_stored:
        left_out = "; ".join(str(names) for names in (report.skipped, report.too_small) if names.count)
        raise DatasetError(f"every image was left out, nothing was written: {left_out}", "source")


def _provenance(options: ConvertOptions, source: Source) -> dict[str, Any]:
    resized = options.width is not None or options.height is not None
    facts = {
        "source": os.path.basename(os.path.normpath(options.source)),
        "range": None if options.index_range == (0, None) else list(options.index_range),
        "max_images": options.max_images,
        "transform": options.transform,
        "width": options.width,
        "height": options.height,
        "resize_filter": options.resize_filter if resized else None,
        "force_channels": options.force_channels,
        "classes": source.classes,
    }
    return {key: value for key, value in facts.items() if value is not None}
