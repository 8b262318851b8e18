"""Small files that ask for much memory or time are refused, and take neither."""
import pickle
import struct
import subprocess
import sys
from pathlib import Path

from torch_utils.checkpoint.storage import MAGIC, PROTOCOL

ROOT = Path(__file__).parents[3]
MEGABYTE = 1 << 20


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def legacy_torch_file() -> bytes:
    """A few bytes of torch's older format that announce a storage of 2 GiB."""
    entry = b"\x80\x02(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"J\0\0\0\x20tQ."
    return b"".join([*(pickle.dumps(value, 2) for value in (MAGIC, PROTOCOL, {"little_endian": True})), entry])


def copies(kind: bytes, num: int) -> bytes:
    """One megabyte in the memo, turned into a new array or bytes again and again."""
    raw = b"X" + struct.pack("<I", MEGABYTE) + b"x" * MEGABYTE + b"q\x01"
    once = b"c_codecs\nencode\nh\x01" + text("latin1") + b"\x86R"
    return b"\x80\x02](" + raw + {b"encode": once}[kind] * num + b"e."


def colliding_keys(num: int) -> bytes:
    """A dictionary whose integer keys all have the same hash."""
    keys = b"".join(b"\x8a\x14" + (index * (2**61 - 1)).to_bytes(20, "little") + b"K\0" for index in range(1, num))
    return b"\x80\x02}(" + keys + b"u."


def many_floats(num: int) -> bytes:
    return b"\x80\x02}(" + b"".join(b"G" + struct.pack(">d", index + 0.5) + b"K\0" for index in range(num)) + b"u."


BOMBS = {
    "storage": legacy_torch_file(),
    "sets": b"\x80\x04(" + b"\x8f" * (4 * MEGABYTE) + b"t.",
    "dictionaries": b"\x80\x04(" + b"}\x94" * (2 * MEGABYTE) + b"t.",
    "copies": copies(b"encode", 4000),
    "colliding": colliding_keys(60_000),
    "floats": many_floats(100_000),
    "nested": b"\x80\x02" + b"]" * MEGABYTE + b"a" * (MEGABYTE - 1) + b".",
}
CODE = """
import resource, sys, time
from torch_utils import checkpoint
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
for path in sys.argv[1:]:
    before, begin = peak(), time.process_time()
    try:
        checkpoint.read_torch_file(path) if path.endswith("pth") else checkpoint.read(open(path, "rb"))
        outcome = "loaded"
    except checkpoint.CheckpointError as error:
        outcome = "refused"
        assert "\\n" not in str(error)
    print(outcome, peak() - before, round(time.process_time() - begin, 1))
"""


def test_bombs(tmp_path: Path) -> None:
    """All are refused, in little time, and the peak of memory never grows by more than 8 times a file and 64 MiB."""
    paths = []
    for name, content in BOMBS.items():
        paths.append(tmp_path / f"{name}.{'pth' if name == 'storage' else 'pkl'}")
        paths[-1].write_bytes(content)
    done = subprocess.run([sys.executable, "-c", CODE, *paths], cwd=ROOT, capture_output=True, text=True, check=True)
    rows = dict(zip(BOMBS, map(str.split, done.stdout.splitlines()), strict=True))
    assert {name: outcome for name, (outcome, *_) in rows.items()} == dict.fromkeys(BOMBS, "refused")
    growth = sum(int(megabytes) for _, megabytes, _ in rows.values())
    assert growth < 9 * max(map(len, BOMBS.values())) / MEGABYTE + 80, rows
    assert all(float(seconds) < 20 for *_, seconds in rows.values()), rows


def test_the_smallest_bomb_is_small() -> None:
    assert len(BOMBS["storage"]) < 300
