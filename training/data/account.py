"""The account of a conversion: what was stored, what was left out and why, what became of labels. No torch."""
import collections
import dataclasses
import heapq
from typing import Any

from .labels import empty_classes, labels_array

MAX_LISTED = 20


@dataclasses.dataclass
class Names:
    """A count of images with a line for each of the first ones in the order of the source."""

    count: int = 0
    first: list[tuple[int, str]] = dataclasses.field(default_factory=list)  # (number in the source, line)

    def add(self, index: int, line: str) -> None:
        """Counts one image."""
        self.count += 1
        if len(self.first) < MAX_LISTED:
            self.first.append((index, line))

    @property
    def lines(self) -> list[str]:
        """The lines of the first images."""
        return [line for _, line in self.first]

    @classmethod
    def merged(cls, parts: list["Names"]) -> "Names":
        """All images of several lists."""
        first = heapq.nsmallest(MAX_LISTED, (entry for part in parts for entry in part.first))
        return cls(sum(part.count for part in parts), first)

    def __str__(self) -> str:
        if self.count == 1:
            return self.lines[0]
        more = [f"... and {self.count - len(self.lines)} more"] if self.count > len(self.lines) else []
        return "\n  ".join([f"{self.count} images:", *self.lines, *more])


@dataclasses.dataclass
class Account:
    """What became of the images of a source.

    Attributes:
        num_source: images that were looked at.
        num_stored: images in the data set.
        shape: [H, W, C] of the stored images; None if there are none.
        bad: images that cannot be used, with the reason.
        too_small: left out by center-crop-wide.
        unsupported: files of kinds that cannot be read, such as HEIC.
        hidden: images that belong to an operating system or a tool.
        unlabelled: stored images without a label.
        labels: stored name → label.
        num_labels: labels that the source has, for whatever images.
        classes: names of the classes, if folders give them.
        num_turned, num_composed, num_first_frames, num_reduced: images that `pixels.read_picture` changed in this way.
    """

    num_source: int = 0
    num_stored: int = 0
    shape: tuple[int, ...] | None = None
    bad: Names = dataclasses.field(default_factory=Names)
    too_small: Names = dataclasses.field(default_factory=Names)
    unsupported: Names = dataclasses.field(default_factory=Names)
    hidden: Names = dataclasses.field(default_factory=Names)
    unlabelled: Names = dataclasses.field(default_factory=Names)
    labels: dict[str, Any] = dataclasses.field(default_factory=dict)
    num_labels: int = 0
    classes: list[str] | None = None
    num_turned: int = 0
    num_composed: int = 0
    num_first_frames: int = 0
    num_reduced: int = 0

    @property
    def stored_labels(self) -> dict[str, Any] | None:
        """Stored name → label, or None if an image has no label."""
        return None if self.unlabelled.count or not self.labels else self.labels

    def class_counts(self) -> dict[str, int] | None:
        """Class (its name or number) → number of stored images, those without images too; None without classes."""
        if self.stored_labels is None:
            return None
        numbers = labels_array(list(self.stored_labels), self.stored_labels, "")
        if numbers.ndim != 1:
            return None
        counts = collections.Counter(numbers.tolist())
        if self.classes is not None:
            return {name: counts[number] for number, name in enumerate(self.classes)}
        return {str(number): counts[number] for number in sorted(counts)}

    def notes(self) -> list[str]:
        """One paragraph for each thing that the user should know."""
        lists = [
            (self.bad, "left out, bad"),
            (self.too_small, "left out, smaller than the crop"),
            (self.unsupported, "left out, not supported"),
            (self.hidden, "left out, hidden files of a system or tool"),
        ]
        if self.unlabelled.count != self.num_stored:  # otherwise the source has no labels: nothing is lost
            lists.append((self.unlabelled, "without a label, so dataset.json holds no labels at all"))
        notes = [f"{heading}: {names}" for names, heading in lists if names.count]
        counts = [
            (self.num_turned, "turned upright as their EXIF data say"),
            (self.num_composed, "with transparency, composed on the background"),
            (self.num_first_frames, "animated or of several pages, the first frame taken"),
            (self.num_reduced, "of 16 bits per channel, the upper 8 taken"),
        ]
        notes += [f"{heading}: {count} images" for count, heading in counts if count]
        if self.num_labels:
            notes.append(f"labels: {self.num_labels} in the source, {len(self.stored_labels or {})} stored")
        classes = self.class_counts()
        if classes is not None:
            notes.append("classes: " + _shortened([f"{name} {count}" for name, count in classes.items()]))
            if missing := self._classes_without_images():
                notes.append("classes without images: " + _shortened(missing))
        return notes

    def as_json(self) -> dict[str, Any]:
        """The same as plain values, for scripts."""
        height, width, channels = self.shape or (None, None, None)
        left_out = {name: getattr(self, name) for name in ("bad", "too_small", "unsupported", "hidden")}
        return {
            "images": self.num_stored,
            "width": width,
            "height": height,
            "channels": channels,
            "source_images": self.num_source,
            "left_out": {reason: names.count for reason, names in left_out.items()},
            "left_out_names": {reason: names.lines for reason, names in left_out.items() if names.count},
            "turned": self.num_turned,
            "composed": self.num_composed,
            "first_frames": self.num_first_frames,
            "reduced": self.num_reduced,
            "labels_in_source": self.num_labels,
            "labels_stored": len(self.stored_labels or {}),
            "unlabelled": self.unlabelled.count,
            "classes": self.class_counts(),
            "classes_without_images": self._classes_without_images(),
        }

    def _classes_without_images(self) -> list[str]:
        counts = self.class_counts()
        if counts is None or self.stored_labels is None:
            return []
        if self.classes is not None:
            return [name for name, count in counts.items() if not count]
        return [str(number) for number in empty_classes(labels_array(list(self.stored_labels), self.stored_labels, ""))]


def _shortened(items: list[str]) -> str:
    more = f" and {len(items) - MAX_LISTED} more" if len(items) > MAX_LISTED else ""
    return ", ".join(items[:MAX_LISTED]) + more
