"""Small files that ask for much memory, and what reading each takes: `python -m tests.bombs` prints a row for each.

Every file is read in a process of its own, whose highest memory use beyond that of the program itself is measured.
"""
import contextlib
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
from typing import Any, NamedTuple

import numpy as np
import torch

from dnnlib import arrays
from dnnlib.errors import UserError
from tests import tiny
from tests.helpers import random_images, write_images
from tests.torch_utils.checkpoint import streams
from tests.training import tiny_runs
from torch_utils import checkpoint
from torch_utils.checkpoint.storage import MAGIC, PROTOCOL
from training import run_config, run_state
from training.checkpoints.pickles import open_networks
from training.data.conversion import ConvertOptions, convert
from training.data.files import BadFile
from training.data.pixels import read_picture
from training.training_loop import training_loop

ANNOUNCED = 256 << 20  # bytes


def _torch_file(path: Path, compression: int) -> None:
    """A .pth whose storage is 256 MiB of zeros, which is there only if the zip is unpacked."""
    whole = io.BytesIO()
    torch.save({"a": torch.zeros(4)}, whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w", compression) as dest:
        for name in source.namelist():
            with dest.open(name, "w", force_zip64=True) as entry:
                if name.endswith("/data/0"):
                    for _ in range(256):
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
        for _ in range(256):
            entry.write(bytes(1 << 20))


def _npz(path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (ANNOUNCED // 4,)})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("w.npy", "w") as entry:
        entry.write(header.getvalue())
        for _ in range(256):
            entry.write(bytes(1 << 20))


def _idx(path: Path) -> None:
    header = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (1 << 18, 32, 32))
    with gzip.open(path, "wb") as file:
        file.write(header)
        for _ in range(256):
            file.write(bytes(1 << 20))
    with gzip.open(path.with_name("a-labels-idx1-ubyte.gz"), "wb") as file:
        file.write(b"\0\0\x08\x01" + (1 << 18).to_bytes(4, "big") + bytes(1 << 18))


def _options(content: bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.mkdir()
        (path / run_config.FILE_NAME).write_bytes(content)

    return make


def _wide_networks(path: Path) -> None:
    """The folder of a run whose networks have as many channels as numbers in the options may say."""
    data = tiny.write_data(path.with_name("images"), num=2, side=64)
    options = tiny_runs.options(data, *tiny_runs.STYLEGAN2)
    options["G_kwargs"]["synthesis_kwargs"] |= {"channel_base": 1 << 24, "channel_max": 1 << 24}
    _options(json.dumps(options).encode())(path)


def _resume(path: Path) -> object:
    with contextlib.redirect_stdout(io.StringIO()):
        return training_loop(run_config.read(path), str(path), resume=True)


def _state(path: Path) -> None:
    (path / "state").mkdir(parents=True)
    _torch_file(path / "state" / "training-state-000000001.pt", zipfile.ZIP_DEFLATED)


def _labels(content: bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        write_images(path, random_images(1))
        (path / "dataset.json").write_bytes(content)

    return make


def _pickle(opcodes: bytes) -> Callable[[Path], None]:
    return lambda path: Path(path).write_bytes(b"\x80\x04" + opcodes + b".") and None


def _again_and_again(once: bytes, function: str, num: int) -> Callable[[Path], None]:
    """A file that calls one function with the same argument, again and again."""
    start = streams.tuple_of(once) + b"q\1" + streams.name(*function.rsplit(".", 1)) + b"q\0"
    content = streams.stream(b"(" + start + b"h\0h\1R" * num + b"t", protocol=3)
    return lambda path: Path(path).write_bytes(content) and None


def _copies(path: Path) -> None:
    """One megabyte in the memo, turned into new bytes again and again."""
    text = streams.plain("x" * (1 << 20)) + b"q\1"
    once = streams.name("_codecs", "encode") + b"h\1" + streams.plain("latin1") + b"\x86R"
    path.write_bytes(streams.stream(b"](" + text + once * 4000 + b"e"))


def _colliding_keys(path: Path) -> None:
    """A dictionary whose keys, which are integers, all have the same hash."""
    keys = b"".join(b"\x8a\x14" + (index * (2**61 - 1)).to_bytes(20, "little") + b"K\0" for index in range(1, 60_000))
    path.write_bytes(streams.stream(b"}(" + keys + b"u"))


def _fractions(path: Path) -> None:
    keys = b"".join(b"G" + struct.pack(">d", index + 0.5) + b"K\0" for index in range(100_000))
    path.write_bytes(streams.stream(b"}(" + keys + b"u"))


def _announced(path: Path) -> None:
    """A few bytes of torch's older format that announce a storage of 2 GiB."""
    entry = streams.tuple_of(streams.plain("storage"), streams.name("torch", "FloatStorage"),
                             *map(streams.plain, ("0", "cpu", 1 << 29)))
    header = [pickle.dumps(value, 2) for value in (MAGIC, PROTOCOL, {"little_endian": True})]
    path.write_bytes(b"".join([*header, streams.stream(entry, b"Q")]))


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


class Bomb(NamedTuple):
    """How a file is made, its name, how it is read, and how many times its size that may take in memory."""

    make: Callable[[Path], None]
    file_name: str
    read: Callable[[Path], object]
    multiple: int = 8

    def allowed(self, size: int) -> int:
        """Bytes of memory, as docs/checkpoints.md states them, and some MiB for the code of the readers."""
        return self.multiple * size + (64 << 20) + (8 << 20)


JSON = 32  # a pair of brackets becomes a dictionary
BOMBS = {
    "pickle: bytes of 4 GiB announced": Bomb(_pickle(b"B\xff\xff\xff\xff"), "a.pkl", _read_pickle),
    "pickle: bytearray of 2^60 bytes announced": Bomb(_pickle(b"\x96" + (1 << 60).to_bytes(8, "little")), "a.pkl",
                                                      _read_pickle),
    "pickle: memo index 2^32 - 1": Bomb(_pickle(b"Nr\xff\xff\xff\xff"), "a.pkl", _read_pickle),
    "pickle: four million empty lists": Bomb(_pickle(b"]" * (4 << 20)), "a.pkl", _read_pickle),
    "pickle: four million empty dictionaries": Bomb(_pickle(b"}" * (4 << 20)), "a.pkl", _read_pickle),
    "pickle: four million empty sets": Bomb(_pickle(b"\x8f" * (4 << 20)), "a.pkl", _read_pickle),
    "pickle: a megabyte encoded 4,000 times": Bomb(_copies, "a.pkl", _read_pickle),
    "pickle: 60,000 keys of one hash": Bomb(_colliding_keys, "a.pkl", _read_pickle),
    "pickle: 100,000 keys that are fractions": Bomb(_fractions, "a.pkl", _read_pickle),
    "pickle: lists in lists, a million deep": Bomb(_pickle(b"]" * (1 << 20) + b"a" * ((1 << 20) - 1)), "a.pkl",
                                                   _read_pickle),
    "pickle: a million NumPy types": Bomb(
        _again_and_again(streams.plain("f4"), "numpy.dtype", 1 << 20), "a.pkl", _read_pickle),
    "pickle: 65,536 storages": Bomb(
        _again_and_again(streams.raw(streams.blob([1.0])), "torch.storage._load_from_bytes", 1 << 16), "a.pkl",
        _read_pickle),
    "pickle: a million tensors without elements": Bomb(
        _again_and_again(b"".join([streams.storage([]), *map(streams.plain, (0, (0,), (1,)))]),
                         "torch._utils._rebuild_tensor_v2", 1 << 20), "a.pkl", _read_pickle),
    "pickle: lists that double forty times": Bomb(_doubling, "a.pkl", _read_pickle),
    "pickle: nested four million deep": Bomb(_pickle(b"(" * (4 << 20)), "a.pkl", _read_pickle),
    ".pth: 2 GiB announced in the older format": Bomb(_announced, "a.pth", checkpoint.read_torch_file),
    ".pth: storage that unpacks to 256 MiB": Bomb(lambda path: _torch_file(path, zipfile.ZIP_DEFLATED), "a.pth",
                                                _networks),
    ".pth: tensor of 10^12 elements over one": Bomb(_expanded, "a.pth", _networks),
    "npz: array that unpacks to 256 MiB": Bomb(_npz, "a.npz", arrays.load_arrays),
    "zip: image that unpacks to 256 MiB": Bomb(_zip_of_zeros, "a.zip", _convert),
    "idx.gz: 2^18 images in 0.3 MB": Bomb(_idx, "a-images-idx3-ubyte.gz", _convert),
    "png: 60,000 x 60,000 pixels": Bomb(_png, "a.png", _read_picture),
    "training_options.json: nested deeply": Bomb(_options(b'{"x": ' * 170_000), "run", run_config.read, JSON),
    "training_options.json: empty dictionaries": Bomb(_options(b"[" + b"{}," * 340_000 + b"0]"), "run", run_config.read,
                                                      JSON),
    "training_options.json: networks of 10^14 weights": Bomb(_wide_networks, "run", _resume, JSON),
    "state of a run that unpacks to 256 MiB": Bomb(_state, "run", run_state.load_latest),
    "dataset.json: four million brackets": Bomb(_labels(b"[" * 4_000_000), "data", _convert, JSON),
    "dataset.json: a million empty dictionaries": Bomb(_labels(b"[" + b"{}," * 1_000_000 + b"0]"), "data", _convert,
                                                       JSON),
}


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Reads one bomb in a fork of this process.

    Returns:
        Bytes of the file, of memory beyond the process's own at the peak, and of memory that are allowed; seconds of
        processor time; what happened.
    """
    bomb = BOMBS[name]
    folder.mkdir()
    path = folder / bomb.file_name
    pid = os.fork()
    if pid == 0:  # making some takes memory as well
        bomb.make(path)
        os._exit(0)
    os.waitpid(pid, 0)
    receiver, sender = os.pipe()
    pid = os.fork()
    if pid == 0:
        outcome = "read"
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            bomb.read(path)
        except UserError as error:
            outcome = f"refused: {str(error).replace(str(folder) + '/', '')[:110]}"
        except BaseException as error:
            outcome = f"FAILED: {type(error).__name__}: {error}"
        usage = resource.getrusage(resource.RUSAGE_SELF)
        size = _size(path)
        row = {"bomb": name, "bytes": size, "peak": max(0, usage.ru_maxrss - before) * 1024,
               "allowed": bomb.allowed(size), "seconds": round(usage.ru_utime + usage.ru_stime, 1), "outcome": outcome}
        os.write(sender, json.dumps(row).encode())
        os._exit(0)
    os.close(sender)
    with os.fdopen(receiver, "rb") as pipe:
        result = json.loads(pipe.read())
    os.waitpid(pid, 0)
    return result


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(BOMBS):
            sys.stdout.write(json.dumps(measure(name, Path(folder, str(number)))) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
