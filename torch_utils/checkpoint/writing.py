"""Network pickles as every StyleGAN2-ADA descendant reads them, written all or not at all; files of torch.save."""
import os
import pickle
from contextlib import AbstractContextManager
from typing import IO, Any

import torch

from dnnlib import EasyDict
from dnnlib.files import open_atomic
from dnnlib.installed import plain_names
from torch_utils import persistence

PROTOCOL = 4  # the highest that every Python a stock tree runs on can read


def write_pickle(data: dict[str, Any], path: str | os.PathLike) -> None:
    """Pickles a dictionary of persistent modules and plain values to `path`, through a temporary name beside it."""
    with open_atomic(path, "wb") as f, _plain_names():
        pickle.dump(data, f, protocol=PROTOCOL)


def _plain_names() -> AbstractContextManager[None]:
    """Within this context, what our pickles name is named as in the source tree, which every reader knows."""
    return plain_names(persistence._reconstruct_persistent_obj, EasyDict)


def torch_save(obj: object, file: IO[bytes]) -> None:
    """torch.save, but a full disk is an OSError, not a RuntimeError about positions in an archive.

    Raises:
        OSError: the file cannot be written.
    """
    sink = _Sink(file)
    try:
        with _plain_names():
            torch.save(obj, sink)  # type: ignore[arg-type]
    except RuntimeError:
        if sink.error is not None:
            raise sink.error from None
        raise


class _Sink:
    """Passes bytes to a file and notes the error that ends this, about which torch.save says nothing."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()
