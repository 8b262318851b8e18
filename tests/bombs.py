"""Small files that ask for much memory, and what reading each takes: `python -m tests.bombs` prints a table.

Every file is read in a process of its own, whose highest memory use beyond that of the program itself is measured.
"""
import gzip
import io
import json
import os
import pickle
import resource
import struct
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from dnnlib import arrays
from dnnlib.errors import UserError
from tests.helpers import random_images, write_images
from torch_utils import checkpoint
from training import run_config, run_state
from training.checkpoints.pickles import open_networks
from training.data.conversion import ConvertOptions, convert
from training.data.files import BadFile
from training.data.pixels import read_picture

GIB = 1 << 30


def _torch_file(path: Path, compression: int) -> None:
    """A .pth whose storage is a GiB of zeros, which is there only if the zip is unpacked."""
    whole = io.BytesIO()
    torch.save({"a": torch.zeros(4)}, whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w", compression) as dest:
        for name in source.namelist():
            with dest.open(name, "w", force_zip64=True) as entry:
                if name.endswith("/data/0"):
                    for _ in range(1024):
                        entry.write(bytes(1 << 20))
                else:
                    entry.write(source.read(name))


def _expanded(path: Path) -> None:
    """A tensor of a million by a million, all of whose elements are the same four bytes."""
    torch.save({"a": torch.zeros(1).expand(1_000_000, 1_000_000)}, path)


def _png(path: Path) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1 << 24))))


def _zip_of_zeros(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("0.png", "w") as entry:
        for _ in range(1024):
            entry.write(bytes(1 << 20))


def _npz(path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (GIB // 4,)})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("w.npy", "w") as entry:
        entry.write(header.getvalue())
        for _ in range(1024):
            entry.write(bytes(1 << 20))


def _idx(path: Path) -> None:
    header = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (1 << 20, 32, 32))
    with gzip.open(path, "wb") as file:
        file.write(header)
        for _ in range(1024):
            file.write(bytes(1 << 20))
    with gzip.open(path.with_name("a-labels-idx1-ubyte.gz"), "wb") as file:
        file.write(b"\0\0\x08\x01" + (1 << 20).to_bytes(4, "big") + bytes(1 << 20))


def _options(path: Path) -> None:
    path.mkdir()
    (path / run_config.FILE_NAME).write_bytes(b'{"x": ' * 600_000)


def _state(path: Path) -> None:
    (path / "state").mkdir(parents=True)
    _torch_file(path / "state" / "training-state-000000001.pt", zipfile.ZIP_DEFLATED)


def _labels(path: Path) -> None:
    write_images(path, random_images(1))
    (path / "dataset.json").write_bytes(b"[" * 4_000_000)


def _pickle(opcodes: bytes) -> Callable[[Path], None]:
    return lambda path: Path(path).write_bytes(b"\x80\x04" + opcodes + b".") and None


def _doubling(path: Path) -> None:
    """A list in a list in a list, each twice: two to the power of forty elements for whoever walks through them."""
    value: list[object] = [0]
    for _ in range(40):
        value = [value, value]
    path.write_bytes(pickle.dumps(value, 4))


def _read_pickle(path: Path) -> object:
    with open(path, "rb") as file:
        return checkpoint.read(file)


def _read_picture(path: Path) -> object:
    try:
        return read_picture(path.read_bytes(), channels=3)
    except BadFile as error:
        raise UserError(error.describe(path.name)) from error


def _convert(path: Path) -> object:
    return convert(ConvertOptions(source=str(path), dest=str(path.with_name("out.zip")), skip_bad="all"))


def _networks(path: Path) -> object:
    return [network for network in open_networks(str(path)).values() if network is not None]


# Name → how the file is made, its name, how it is read.
BOMBS: dict[str, tuple[Callable[[Path], None], str, Callable[[Path], object]]] = {
    "pickle: bytes of 4 GiB announced": (_pickle(b"B\xff\xff\xff\xff"), "a.pkl", _read_pickle),
    "pickle: bytearray of 2^60 bytes announced": (_pickle(b"\x96" + (1 << 60).to_bytes(8, "little")), "a.pkl",
                                                  _read_pickle),
    "pickle: memo index 2^32 - 1": (_pickle(b"Nr\xff\xff\xff\xff"), "a.pkl", _read_pickle),
    "pickle: four million empty lists": (_pickle(b"]" * (4 << 20)), "a.pkl", _read_pickle),
    "pickle: lists that double forty times": (_doubling, "a.pkl", _read_pickle),
    "pickle: nested four million deep": (_pickle(b"(" * (4 << 20)), "a.pkl", _read_pickle),
    ".pth: storage that unpacks to 1 GiB": (lambda path: _torch_file(path, zipfile.ZIP_DEFLATED), "a.pth", _networks),
    ".pth: tensor of 10^12 elements over one": (_expanded, "a.pth", _networks),
    "npz: array that unpacks to 1 GiB": (_npz, "a.npz", arrays.load_arrays),
    "zip: image that unpacks to 1 GiB": (_zip_of_zeros, "a.zip", _convert),
    "idx.gz: 2^20 images in 1 MB": (_idx, "a-images-idx3-ubyte.gz", _convert),
    "png: 60,000 x 60,000 pixels": (_png, "a.png", _read_picture),
    "training_options.json: nested deeply": (_options, "run", run_config.read),
    "state of a run that unpacks to 1 GiB": (_state, "run", run_state.load_latest),
    "dataset.json: four million brackets": (_labels, "data", _convert),
}


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def measure(name: str, folder: Path) -> dict[str, object]:
    """Reads one bomb in a fork of this process.

    Returns:
        Bytes of the file, peak memory in bytes beyond the process's own, seconds of processor time, and what happened.
    """
    make, file_name, read = BOMBS[name]
    folder.mkdir()
    path = folder / file_name
    pid = os.fork()
    if pid == 0:  # making some takes memory as well
        make(path)
        os._exit(0)
    os.waitpid(pid, 0)
    receiver, sender = os.pipe()
    pid = os.fork()
    if pid == 0:
        outcome = "read"
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            read(path)
        except UserError as error:
            outcome = f"refused: {str(error).replace(str(folder) + '/', '')[:110]}"
        except BaseException as error:
            outcome = f"FAILED: {type(error).__name__}: {error}"
        usage = resource.getrusage(resource.RUSAGE_SELF)
        found = {"file": _size(path), "peak": max(0, usage.ru_maxrss - before) * 1024,
                 "seconds": round(usage.ru_utime + usage.ru_stime, 1), "outcome": outcome}
        os.write(sender, json.dumps(found).encode())
        os._exit(0)
    os.close(sender)
    with os.fdopen(receiver, "rb") as pipe:
        result = json.loads(pipe.read())
    os.waitpid(pid, 0)
    return result


def main() -> None:
    write = sys.stdout.write
    write("| file | bytes | peak MiB | s | outcome |\n|---|---|---|---|---|\n")
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(BOMBS):
            found = measure(name, Path(folder, str(number)))
            write(f"| {name} | {found['file']:,} | {int(str(found['peak'])) / (1 << 20):.0f} | {found['seconds']} | "
                  f"{found['outcome']} |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
