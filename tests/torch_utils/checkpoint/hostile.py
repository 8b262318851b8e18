"""What tests of hostile files share."""
import contextlib
import io
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from torch_utils import checkpoint
from torch_utils.checkpoint import CheckpointError

SPARE_MEMORY = 1 << 29  # bytes that reading a few hundred bytes may take at the very most


class NamedFile(io.BytesIO):
    """A binary file called evil.pkl."""

    name = "evil.pkl"


def refuse(data: bytes, match: str) -> str:
    """Asserts that a stream is refused in one printable line with the file's name; returns the line."""
    with pytest.raises(CheckpointError, match=match) as caught:
        checkpoint.read(NamedFile(data))
    line = str(caught.value)
    assert line.startswith("evil.pkl: ")
    assert line.isprintable()
    return line


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    """Within this context, no more than SPARE_MEMORY can be allocated."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + SPARE_MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
