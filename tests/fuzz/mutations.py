"""Seeded damage to files, and the count of what became of them.

Every reader must take a damaged file or refuse it with one line (a UserError); anything else is a failure.
"""
import dataclasses
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from dnnlib.errors import UserError


@dataclasses.dataclass
class Count:
    """What became of the files."""

    tried: int = 0
    loaded: int = 0
    refused: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        failed = len(self.failures)
        return f"tried {self.tried}, refused in one line {self.refused}, loaded {self.loaded}, failed {failed}"


def damaged(content: bytes, seed: int, num: int) -> Iterator[bytes]:
    """Copies with a few of: other bytes, parts cut out, doubled, filled or moved, extreme numbers, a cut end."""
    rng = random.Random(seed)
    for _ in range(num):
        data = bytearray(content)
        for _ in range(rng.choice([1, 1, 1, 2, 5])):
            data = _damage(data, rng)
        yield bytes(data)


def _damage(data: bytearray, rng: random.Random) -> bytearray:
    size = len(data)
    if size == 0:
        return bytearray(rng.randbytes(8))
    # Headers decide more than the middle: half of the damage is near an end.
    place = rng.choice([rng.randrange(size), rng.randrange(min(size, 256)), size - 1 - rng.randrange(min(size, 256))])
    length = rng.choice([1, 1, 2, 4, 8, 64])
    kind = rng.randrange(7)
    if kind == 0:
        data[place] ^= 1 << rng.randrange(8)
    elif kind == 1:
        data[place : place + length] = rng.randbytes(length)
    elif kind == 2:
        del data[place : place + length]
    elif kind == 3:
        data[place:place] = data[place : place + length]
    elif kind == 4:
        data[place : place + length] = rng.choice([b"\0", b"\xff", b"\x7f", b"9", b"("]) * length
    elif kind == 5:
        data = data[:place]
    else:
        other = rng.randrange(size)
        data[place : place + length] = data[other : other + length]
    return data


def tried(count: Count, action: Callable[[], object]) -> None:
    """Does something with damaged input, and counts what became of it."""
    count.tried += 1
    try:
        action()
        count.loaded += 1
    except UserError as error:
        text = str(error)
        is_list = "\n  " in text  # of bad images
        is_one_line = (is_list or "\n" not in text) and 0 < len(text) < 4000
        if is_one_line:
            count.refused += 1
        else:
            count.failures.append(f"case {count.tried}: not one line: {text[:200]!r}")
    except Exception as error:
        count.failures.append(f"case {count.tried}: {type(error).__name__}: {str(error)[:200]}")


def fuzz(path: Path, contents: Iterator[bytes], read: Callable[[Path], object]) -> Count:
    """Writes each content to the path and reads it."""
    count = Count()
    for content in contents:
        path.write_bytes(content)
        tried(count, lambda: read(path))
    return count
