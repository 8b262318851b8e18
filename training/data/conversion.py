"""Converts a source of images into a data set: transform, check, number, label, write. No torch."""
import dataclasses
import itertools
import os
from typing import Any

import numpy as np

from dnnlib.progress import Progress

from .account import MAX_LISTED, Account, Names
from .files import BadFile, DatasetError
from .labels import labels_array
from .pixels import MODE_OF_CHANNELS, Colour, Picture, check_square_power_of_two, encode_jpeg, encode_png
from .sources import Source, SourceImage, open_source
from .transforms import Transform, make_transform
from .writer import WriteFile, check_dest, image_name, open_dest, write_labels

MAX_SKIPPED = 0.1  # of the images; leaving out more needs an option

ENCODERS = {"png": encode_png, "jpg": encode_jpeg}

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
    background: Colour | None = None
    subfolders_as_labels: bool = False
    skip_bad: str | None = None  # "few" leaves out up to a tenth of the images, "all" any number
    file_format: str = "png"  # or "jpg"
    generator: Any = None  # the network in the file `source`, if its own images are to be converted


class _OtherShape(Exception):
    """Most images have another shape than the first one, which was taken to be the right one."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape)
        self.shape = shape


def convert(options: ConvertOptions) -> Account:
    """Converts a source into a data set; on any error nothing is written.

    The right shape is the one that most images have. Images keep the number that they have in the source, so those
    left out leave gaps.

    Raises:
        UserError: source, destination or options are wrong, no image is left, the loader would refuse the labels, or
            images are bad and `skip_bad` does not allow to leave them out; the message then names up to 20 of them.
    """
    check_dest(options.dest)
    transform = make_transform(options.transform, options.width, options.height, options.resize_filter)
    try:
        return _convert(options, transform, None)
    except _OtherShape as error:
        return _convert(options, transform, error.shape)


def _convert(options: ConvertOptions, transform: Transform, shape: tuple[int, ...] | None) -> Account:
    end = options.index_range[1]
    if end is None and options.max_images is not None:
        end = options.index_range[0] + options.max_images
    source = open_source(
        options.source, options.force_channels, options.subfolders_as_labels, options.background, options.generator, end
    )
    job = _Job(options, transform, source, shape)
    with open_dest(options.dest) as write:
        job.store_images(write)
        job.check_outcome()
        account = job.account
        if account.stored_labels is not None:
            labels_array(list(job.source_labels), job.source_labels, options.source)  # as the loader will
        write_labels(write, account.stored_labels, _provenance(options, source))
    return account


class _Job:
    """One pass over the images of a source.

    Args:
        shape: [H, W, C] of the images to store; None takes the first good image's.
    """

    def __init__(
        self, options: ConvertOptions, transform: Transform, source: Source, shape: tuple[int, ...] | None
    ) -> None:
        self._options = options
        self._transform = transform
        self._source = source
        self._unreadable = Names()
        self._by_shape: dict[tuple[int, ...], Names] = {}
        self.source_labels: dict[str, Any] = {}  # name in the source → label, of the stored images
        self.account = Account(shape=shape, classes=source.classes, num_labels=source.num_labels)
        for names, files in ((self.account.unsupported, source.unsupported), (self.account.hidden, source.hidden)):
            for index, name in enumerate(files):
                names.add(index, name)

    def store_images(self, write: WriteFile) -> None:
        """Goes through the images and stores the good ones, as long as that may be of use."""
        first, end = _selection(self._source.total, self._options)
        selected = zip(range(first, end), itertools.islice(self._source.images, first, end), strict=True)
        self.account.num_source = end - first
        with Progress(end - first, "images", unit="img") as progress:
            for index, item in selected:
                try:
                    self._take(index, item, write)
                except BadFile as error:
                    self._note_bad(index, item, error)
                progress.update()
                if not self._by_shape and self._unreadable.count == MAX_LISTED and not self._options.skip_bad:
                    break  # the first twenty are all bad: something common to them, no need to go through the rest

    def _take(self, index: int, item: SourceImage, write: WriteFile) -> None:
        picture = item.load()
        pixels = self._transform(picture.pixels)
        if pixels is None:
            self.account.too_small.add(index, item.name)
            return
        check_square_power_of_two(pixels.shape)
        if self.account.shape is None:
            self.account.shape = pixels.shape
        mode = MODE_OF_CHANNELS[pixels.shape[2]]
        line = f"{item.name} ({mode} {pixels.shape[1]}x{pixels.shape[0]})"
        self._by_shape.setdefault(pixels.shape, Names()).add(index, line)
        may_store = self._options.skip_bad or not (self._unreadable.count or len(self._by_shape) > 1)
        if pixels.shape == self.account.shape and may_store:
            self._store(index, item, picture, pixels, write)

    def _note_bad(self, index: int, item: SourceImage, error: BadFile) -> None:
        line = error.describe(item.name)
        if self._source.skips_unreadable and error.size is None:  # reported, and never a reason to stop
            self.account.bad.add(index, line)
        else:
            self._unreadable.add(index, line)

    def _store(self, index: int, item: SourceImage, picture: Picture, pixels: np.ndarray, write: WriteFile) -> None:
        account, name = self.account, image_name(index, self._options.file_format)
        write(name, ENCODERS[self._options.file_format](pixels))
        account.num_stored += 1
        account.num_turned += picture.is_turned
        account.num_composed += picture.is_composed
        account.num_first_frames += picture.is_first_frame
        account.num_reduced += picture.is_reduced
        account.labels[name] = self.source_labels[item.name] = item.label
        if item.label is None:
            account.unlabelled.add(index, item.name)

    def check_outcome(self) -> None:
        """Judges the pass.

        Raises:
            _OtherShape: it took the wrong shape for the right one.
            DatasetError: images are bad and may not be left out, or none is left.
        """
        account = self.account
        bad = Names.merged([self._unreadable, *self._odd_shapes()])
        if bad.count and not self._options.skip_bad:
            end = ". " if bad.count == 1 else "\n"
            raise DatasetError(f"{bad}{end}Nothing was written. {_ADVICE}", "source")
        account.bad = Names.merged([account.bad, bad])
        if self._by_shape and account.shape != self._usual_shape():
            raise _OtherShape(self._usual_shape())
        if not account.num_stored:
            left_out = "; ".join(str(names) for names in (account.bad, account.too_small) if names.count)
            raise DatasetError(f"every image was left out, nothing was written: {left_out}", "source")
        if bad.count > MAX_SKIPPED * account.num_source and self._options.skip_bad != "all":
            raise DatasetError(
                f"{bad.count} of {account.num_source} images are bad, more than a tenth; nothing was written. "
                f"`skip_bad=all` leaves out any number. {bad}",
                "source",
            )

    def _usual_shape(self) -> tuple[int, ...]:
        """The shape of most images, of equally frequent ones the first."""
        return max(self._by_shape, key=lambda shape: self._by_shape[shape].count)

    def _odd_shapes(self) -> list[Names]:
        """The images of other shapes than most have, with the reason."""
        if len(self._by_shape) < 2:
            return []
        height, width, channels = usual = self._usual_shape()
        reason = f"expected {MODE_OF_CHANNELS[channels]} {width}x{height} as most images are"
        return [
            Names(names.count, [(index, f"{line}: {reason}") for index, line in names.first])
            for shape, names in self._by_shape.items()
            if shape != usual
        ]


def _selection(total: int, options: ConvertOptions) -> tuple[int, int]:
    first, end = options.index_range
    end = total if end is None else end
    if end > total or first >= end:
        raise DatasetError(f"{first}:{end} is outside of the {total} images of {options.source}", "index_range")
    return first, end if options.max_images is None else min(end, first + options.max_images)


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
        "background": options.background and list(options.background),
        "format": None if options.file_format == "png" else options.file_format,
        "classes": source.classes,
    }
    return {key: value for key, value in facts.items() if value is not None}
