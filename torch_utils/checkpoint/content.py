"""The content of a file without a copy of it: mapped into memory where that is possible, and cut into views."""
import io
import mmap
from typing import BinaryIO

VIEW_BYTES = 1 << 14  # what is read in one piece of at least this size is a view, not a copy


def map_file(f: BinaryIO) -> memoryview:
    """All bytes of a file from its position on, which then is its end; private to this process, so they may be changed.

    Parts of a mapped file that are not read take no memory. Files that are not on a disk are read.
    """
    start = f.tell() if f.seekable() else 0
    if isinstance(f, io.BufferedReader) and isinstance(f.raw, io.FileIO):
        size = f.seek(0, io.SEEK_END)
        if size > start:
            try:
                return memoryview(mmap.mmap(f.fileno(), size, access=mmap.ACCESS_COPY))[start:]
            except (OSError, ValueError):  # a file system that cannot
                f.seek(start)
    return memoryview(bytearray(f.read()))


class Content:
    """A stream over bytes in memory. Large pieces that are read from it are views (memoryview), others are bytes."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def read(self, size: int = -1) -> bytes | memoryview:
        """The next `size` bytes, or those that are left; a negative size is all of them."""
        at = self._at
        if size == 1:  # almost always
            byte = self._data[at : at + 1].tobytes()
            self._at = at + len(byte)
            return byte
        piece = self._data[at : len(self._data) if size < 0 else at + size]
        self._at = at + len(piece)
        return piece if len(piece) >= VIEW_BYTES else piece.tobytes()

    def readline(self) -> bytes:
        """The bytes up to and with the next line feed."""
        parts = []
        while block := self._data[self._at : self._at + 256].tobytes():
            line, feed, _ = block.partition(b"\n")
            self._at += len(line) + len(feed)
            parts.append(line + feed)
            if feed:
                break
        return b"".join(parts)
