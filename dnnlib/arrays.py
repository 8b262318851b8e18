"""Reads arrays of NumPy's files (.npz and .npy) within bounds: no pickles, and no more memory than there are bytes."""
import io
import math
import os
import zipfile
import zlib

import numpy as np

from dnnlib.bounded import open_regular, read_file, read_zip_entry
from dnnlib.errors import FileError

MAX_BYTES = 1 << 32  # of one array
_DAMAGED = (KeyError, OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error)


def load_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays [...] of an .npz file by name, read-only; the single array of an .npy file has the name "".

    Raises:
        FileError: the file is missing, damaged or of another kind, or an array holds Python objects.
    """
    with open_regular(path) as file:
        is_archive = file.read(2) == b"PK"
        if not is_archive:
            return {"": _parse(path, read_file(path, MAX_BYTES))}
        try:
            with zipfile.ZipFile(file) as archive:
                names = [name for name in archive.namelist() if name.endswith(".npy")]
                return {name[:-4]: _parse(path, read_zip_entry(archive, name, MAX_BYTES)) for name in names}
        except FileError as error:
            raise _damaged(path, error.reason) from error
        except _DAMAGED as error:
            raise _damaged(path, str(error)) from error


def _parse(path: str | os.PathLike[str], data: bytes) -> np.ndarray:
    """The array in the bytes of an .npy file, whose header is compared with the bytes behind it."""
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise ValueError(f"version {version} of the format is not known")
        shape, is_fortran, dtype = readers[version](stream)
        if dtype.hasobject:
            raise ValueError("it holds Python objects, which would have to be executed")
        expected, size = math.prod(shape) * dtype.itemsize, len(data) - stream.tell()
        if size != expected:
            raise ValueError(f"expected {expected} bytes for shape {list(shape)}, found {size}")
        if dtype.itemsize == 0 or not expected:
            return np.empty(shape, dtype)
        return np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape, order="F" if is_fortran else "C")
    except Exception as error:  # NumPy's parser of headers raises whatever it trips over: TokenError, SyntaxError...
        raise _damaged(path, str(error)) from error


def _damaged(path: str | os.PathLike[str], reason: str) -> FileError:
    reason = " ".join(reason.split())[:300]
    return FileError(f"{os.fspath(path)}: cannot be read as NumPy arrays: {reason}", reason=reason)
