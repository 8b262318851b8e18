"""Reads the TFRecords files of StyleGAN's TensorFlow code, without TensorFlow. No torch.

Such a data set is a folder of NAME-r02.tfrecords ... NAME-r10.tfrecords, one per resolution, with NAME-rxx.labels
beside them (a NumPy file, one row per image). A record is a `tf.train.Example` with the features `shape` ([C, H, W])
and `data` (uint8). Of several resolutions the highest is taken.
"""
import dataclasses
import glob
import math
import os
import re
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from dnnlib.bounded import open_regular
from dnnlib.errors import FileError

from .files import BadFile, DatasetError

_MAX_RECORD = 1 << 28  # bytes
_CRC_POLYNOMIAL = 0x82F63B78  # CRC-32C, reflected
_CRC_MASK = 0xA282EAD8
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types of protocol buffers


@dataclasses.dataclass(frozen=True)
class RecordFiles:
    """The images' file, and that of the labels if there is one."""

    path: str
    labels_path: str | None


def find(path: str) -> RecordFiles | None:
    """The files that a path stands for: a .tfrecords file, or a folder with such files; None for anything else."""
    if path.endswith(".tfrecords"):
        files = [path]
    elif os.path.isdir(path):
        files = sorted(glob.glob(os.path.join(glob.escape(path), "*.tfrecords")))
    else:
        return None
    if not files:
        return None
    labels = sorted(glob.glob(os.path.join(glob.escape(os.path.dirname(files[-1])), "*.labels")))
    stem = re.sub(r"(-r\d+)?\.tfrecords$", "", files[-1])
    own = [name for name in labels if name.startswith(stem)]
    return RecordFiles(files[-1], own[0] if own else None)


def records(path: str) -> Iterator[bytes]:
    """The records of a file, not decoded.

    Raises:
        DatasetError: the file cannot be read, is cut short, or is no TFRecords file.
    """
    for length, file in _headers(path):
        record = file.read(length)
        if len(record) != length or len(file.read(4)) != 4:
            raise DatasetError(f"{path}: is cut short", "source")
        yield record


def count(path: str) -> int:
    """The number of records in a file.

    Raises:
        DatasetError: the file cannot be read, is cut short, or is no TFRecords file.
    """
    num = 0
    for length, file in _headers(path):
        end = file.seek(length + 4, os.SEEK_CUR)
        if end > os.fstat(file.fileno()).st_size:
            raise DatasetError(f"{path}: is cut short", "source")
        num += 1
    return num


def _headers(path: str) -> Iterator[tuple[int, Any]]:
    """Length of each record, and the file at its beginning; the caller moves behind the record."""
    try:
        with open_regular(path) as file:
            while header := file.read(12):
                if len(header) != 12:
                    raise DatasetError(f"{path}: is cut short", "source")
                length, check_sum = struct.unpack("<QI", header)
                if _masked_crc(header[:8]) != check_sum or length > _MAX_RECORD:
                    raise DatasetError(f"{path}: is no TFRecords file, or damaged", "source")
                yield length, file
    except FileError as error:
        raise DatasetError(str(error), "source") from error


def _masked_crc(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (_CRC_POLYNOMIAL * (crc & 1))
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + _CRC_MASK) & 0xFFFFFFFF


def read_labels(files: RecordFiles) -> list[Any] | None:
    """A class number for each image where rows are one-hot, else a list of numbers; None without a labels file.

    Raises:
        DatasetError: the file is no NumPy array of one row per image.
    """
    if files.labels_path is None:
        return None
    try:
        with open_regular(files.labels_path) as file:
            table = np.load(file, allow_pickle=False)
    except (FileError, OSError, ValueError, EOFError) as error:
        raise DatasetError(f"{files.labels_path}: cannot be read as a NumPy array: {error}", "source") from error
    if not isinstance(table, np.ndarray) or table.dtype.kind not in "iuf" or table.ndim != 2:
        raise DatasetError(f"{files.labels_path}: expected an array of one row of numbers per image", "source")
    if table.shape[1] == 0:
        return None
    is_one_hot = ((table == 0) | (table == 1)).all() and (table.sum(axis=1) == 1).all()
    return table.argmax(axis=1).tolist() if is_one_hot else table.tolist()


def decode(record: bytes) -> np.ndarray:
    """The image in a record, uint8 [H, W, C] with C = 1 or 3.

    Raises:
        BadFile: the record holds no such image.
    """
    try:
        features = {key: value for entry in _chunks(_only(record, 1), 1) for key, value in [_map_entry(entry)]}
        shape = _integers(_only(features[b"shape"], 3))
        data = _only(_only(features[b"data"], 1), 1)
    except (KeyError, IndexError, ValueError) as error:
        raise BadFile("is no record with an image") from error
    if len(shape) != 3 or shape[0] not in (1, 3) or len(data) != math.prod(shape) or not data:
        raise BadFile(f"expected uint8 data of shape [1 or 3, H, W], found {len(data)} bytes for {shape}")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape).transpose(1, 2, 0)


# Protocol buffers, as far as needed.


def _fields(message: bytes) -> Iterator[tuple[int, int, Any]]:
    """Number, wire type and value of each field."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, position = _varint(message, position)
            yield number, wire, value
            continue
        if wire == _BYTES:
            length, position = _varint(message, position)
        elif wire in (_FIXED32, _FIXED64):
            length = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError("unknown wire type")
        if position + length > len(message):
            raise ValueError("a field is cut short")
        yield number, wire, message[position : position + length]
        position += length


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number is too long")


def _chunks(message: bytes, number: int) -> list[bytes]:
    return [value for field, wire, value in _fields(message) if field == number and wire == _BYTES]


def _only(message: bytes, number: int) -> bytes:
    return _chunks(message, number)[-1]


def _map_entry(message: bytes) -> tuple[bytes, bytes]:
    return _only(message, 1), _only(message, 2)


def _integers(message: bytes) -> list[int]:
    """The values of an Int64List, packed or not."""
    values: list[int] = []
    for _, wire, value in _fields(message):
        if wire == _VARINT:
            values.append(value)
            continue
        position = 0
        while position < len(value):
            number, position = _varint(value, position)
            values.append(number)
    return values
