"""Reads CIFAR-10's archive of Python pickles without executing anything in them. No torch."""
import io
import math
import pickle
import tarfile
import zlib
from typing import Any

import numpy as np

from .files import DatasetError

_BATCHES = [f"cifar-10-batches-py/data_batch_{number}" for number in range(1, 6)]


def read_cifar10(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads the training batches of `cifar-10-python.tar.gz`.

    Returns:
        Images uint8 [N, 32, 32, 3] and class numbers int64 [N], in the archive's order.

    Raises:
        DatasetError: the archive or one of its batches is damaged, missing, or holds anything but lists, strings,
            numbers and byte arrays; the message names it.
    """
    try:
        with tarfile.open(path, "r:gz") as archive:
            batches = [_read_batch(archive, path, member) for member in _BATCHES]
    except DatasetError:
        raise
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{path}: cannot be unpacked: {error}", "source") from error
    pixels = np.concatenate([data for data, _ in batches])  # [N, 3072], channel by channel
    labels = np.concatenate([labels for _, labels in batches])
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


def _read_batch(archive: tarfile.TarFile, path: str, member: str) -> tuple[np.ndarray, np.ndarray]:
    where = f"{path}: {member}"
    try:
        file = archive.extractfile(member)
    except KeyError:
        file = None
    if file is None:
        raise DatasetError(f"{where} is missing", "source")
    try:
        content = _BatchUnpickler(io.BytesIO(file.read()), encoding="latin1").load()
        data, labels = content["data"].to_numpy(), np.array(content["labels"], dtype=np.int64)
    except _Refused as error:
        raise DatasetError(f"{where} was refused: {error}", "source") from error
    except (pickle.UnpicklingError, LookupError, TypeError, ValueError, AttributeError, EOFError) as error:
        raise DatasetError(f"{where} is no CIFAR-10 batch: {error}", "source") from error
    if data.shape != (len(labels), 3072) or labels.ndim != 1:
        raise DatasetError(
            f"{where} has data of shape {data.shape} for {labels.shape} labels, expected [N, 3072]", "source"
        )
    return data, labels


class _Refused(Exception):
    """A pickle names something outside the allow-list."""


class _BatchUnpickler(pickle.Unpickler):
    """Resolves only NumPy's array and dtype, and those to recorders: nothing of NumPy runs on the file's behalf."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): lambda *_: _ArrayRecord(),
            ("numpy._core.multiarray", "_reconstruct"): lambda *_: _ArrayRecord(),
            ("numpy", "ndarray"): _ArrayRecord,
            ("numpy", "dtype"): _DtypeRecord,
            ("_codecs", "encode"): _encode_latin1,  # how protocol 2 of Python 3 spells a bytes object
        }
        try:
            return allowed[module, name]
        except KeyError:
            raise _Refused(f"it names {module}.{name}, which no CIFAR-10 file needs") from None

    def persistent_load(self, pid: object) -> Any:
        raise _Refused("it holds a persistent id, which no CIFAR-10 file needs")


class _DtypeRecord:
    """What a pickle says about a dtype."""

    def __init__(self, code: str, *_: object):
        self.code = code

    def __setstate__(self, state: object) -> None:
        """Takes byte order and the like, which bytes do not have."""


class _ArrayRecord:
    """What a pickle says about an array: (version, shape, dtype, is Fortran order, bytes)."""

    state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def to_numpy(self) -> np.ndarray:
        """The array [...], if it is one of bytes in C order.

        Raises:
            ValueError: it is another one.
        """
        _, shape, dtype, is_fortran, raw = self.state
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        if not isinstance(raw, bytes) or dtype.code != "u1" or is_fortran or len(raw) != math.prod(shape):
            raise ValueError("its data is no plain array of bytes")
        return np.frombuffer(raw, dtype=np.uint8).reshape(shape)


def _encode_latin1(text: str, encoding: str = "latin1") -> bytes:
    if encoding != "latin1":
        raise _Refused(f"it asks for the codec {encoding}")
    return text.encode("latin1")
