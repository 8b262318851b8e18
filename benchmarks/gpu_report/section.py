"""What every section of the report gets, and what it hands back."""
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

Row = dict[str, Any]


class Skipped(Exception):
    """A section, or a part of one, has nothing to do on this machine; the message says why."""


@dataclass(frozen=True)
class Setup:
    """What the report runs on.

    Args:
        device: a CUDA device, or the CPU that stands in for one.
        is_tiny: sizes that take seconds on a CPU; the figures mean nothing.
        folder: for temporary files.
    """

    device: torch.device
    is_tiny: bool
    folder: Path

    @property
    def is_cuda(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    def need_cuda(self) -> None:
        """Leaves a section that only a GPU can fill.

        Raises:
            Skipped: the CPU stands in for the GPU.
        """
        if not self.is_cuda:
            raise Skipped("needs a CUDA device; the CPU stands in for one")


@dataclass
class Section:
    """One part of the report.

    Args:
        key: its name in the JSON file.
        title: its heading on the page.
        run: fills it: a list of rows with the same keys; a row with `ok` false makes the report fail.
    """

    key: str
    title: str
    run: Callable[[Setup], list[Row]]
    rows: list[Row] = field(default_factory=list)
    skipped: str | None = None
    error: str | None = None
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; a skipped section is not wrong."""
        return self.error is None and all(row.get("ok", True) for row in self.rows)

    def fill(self, setup: Setup) -> None:
        """Runs the section; what goes wrong in it is part of the report and does not end it."""
        begin = time.monotonic()
        try:
            self.rows = self.run(setup)
        except Skipped as reason:
            self.skipped = str(reason)
        except Exception as error:
            self.error = f"{type(error).__name__}: {' '.join(str(error).split())}"
        self.seconds = round(time.monotonic() - begin, 1)
