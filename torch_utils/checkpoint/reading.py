"""Reads network pickles: by default into plain records, executing nothing; on request with all that they ask for."""
import io
import pickle
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

import torch

from dnnlib.installed import plain_names

from .. import persistence
from .allowed_globals import GLOBALS
from .content import Content, map_file
from .errors import MALFORMED, CheckpointError, describe
from .machine import Budget, run
from .records import Foreign, TFNetworkRecord
from .torch_files import is_torch_file, read_torch_content

_BEGINNING = b"\x80"  # of every pickle of protocol 2 or newer; networks were never written in an older one
_SIGNATURE_BYTES = 64
# How files begin that users take for network pickles.
_SIGNATURES = {
    b"<": "a web page or XML; was the download redirected?",
    b"version https://git-lfs": "what Git LFS leaves in place of a large file; fetch it with 'git lfs pull'",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x1f\x8b": "a gzip archive; unpack it first",
}


def refusal(name: str) -> str:
    """What an error says about a file that needs a class or function by this dotted name."""
    return (f"refused: the file names {name}, which no network pickle needs. "
            "Pass `trust_pickle` only if you trust its origin: that executes what the file contains")


def _refuse(module: str, name: str) -> Any:
    raise CheckpointError(refusal(f"{module}.{name}"))


def _keep(module: str, name: str) -> Any:
    return Foreign(f"{module}.{name}")


def file_name(f: BinaryIO) -> str:
    """What error messages call a file."""
    name = getattr(f, "name", None)
    return name if isinstance(name, str) and name else "network pickle"


def _check_signature(data: bytes) -> None:
    if not data:
        raise CheckpointError("the file is empty")
    for signature, meaning in _SIGNATURES.items():
        if data[:_SIGNATURE_BYTES].lstrip().startswith(signature):
            raise CheckpointError(f"not a network pickle but {meaning}")


def _damaged(name: str, data: bytes, error: BaseException) -> CheckpointError:
    if data.startswith(b"PK"):
        return CheckpointError(f"{name}: the file is truncated or damaged ({describe(error)})")
    if not data.startswith(_BEGINNING):
        return CheckpointError(f"{name}: not a network pickle: it does not begin as one")
    return CheckpointError(f"{name}: the file is truncated, damaged or not a network pickle "
                           f"({describe(error)})")


def _finder(find_unknown: Callable[[str, str], Any]) -> Callable[[str, str], Any]:
    return lambda module, name: GLOBALS.get((module, name)) or find_unknown(module, name)


def read(f: BinaryIO, keep_foreign: bool = False) -> Any:
    """Reads a pickle, or a file of torch.save, without executing anything it names.

    Args:
        f: binary file; its `name`, if any, appears in error messages.
        keep_foreign: let a `Foreign` stand for every object of a class or function that network files do not need,
            instead of refusing the file.

    Returns:
        Dictionaries, lists, tuples, sets, numbers, strings, NumPy arrays, tensors (which may share memory, and may lie
        in the mapped file: copy what is to stay), and a `ModuleRecord` or `TFNetworkRecord` for every network object.

    Raises:
        CheckpointError: the file is of another kind, is damaged, or names a global that is not in the list of
            docs/checkpoints.md.
    """
    name, data = file_name(f), map_file(f)
    beginning = data[:_SIGNATURE_BYTES].tobytes()
    find_unknown = _keep if keep_foreign else _refuse
    try:
        _check_signature(beginning)
        if is_torch_file(beginning):
            return read_torch_content(io.BytesIO(data), find_unknown)
        return run(Content(data), _finder(find_unknown), budget=Budget(len(data)))
    except CheckpointError as error:
        raise CheckpointError(f"{name}: {error}") from None
    except (*MALFORMED, zipfile.BadZipFile) as error:
        raise _damaged(name, beginning, error) from None


class _TrustingUnpickler(pickle.Unpickler):
    stand_ins = {("dnnlib.tflib.network", "Network"): TFNetworkRecord}  # of classes that exist nowhere any more

    def find_class(self, module: str, name: str) -> Any:
        return self.stand_ins.get((module, name)) or super().find_class(module, name)


def read_trusted(f: BinaryIO) -> Any:
    """Reads a pickle with everything it asks for, embedded program text included. For files you trust only.

    Raises:
        CheckpointError: the file is damaged, or what it executes fails.
    """
    name, data = file_name(f), f.read()
    try:
        _check_signature(data)
        with persistence.trusted(), plain_names():
            if is_torch_file(data):
                return torch.load(io.BytesIO(data), map_location="cpu", weights_only=False)
            return _TrustingUnpickler(io.BytesIO(data)).load()
    except CheckpointError as error:
        raise CheckpointError(f"{name}: {error}") from None
    except ImportError as error:
        raise CheckpointError(f"{name}: what the file contains needs a module or a class that is not here "
                              f"({describe(error)}); only the code base that wrote the file can load it") from error
    except (pickle.UnpicklingError, EOFError, zipfile.BadZipFile) as error:
        raise _damaged(name, data, error) from error
    except Exception as error:  # foreign code may raise anything
        raise CheckpointError(f"{name}: the file is damaged, or the code that it brings fails here "
                              f"({describe(error)}); without `trust_pickle` networks are read as data") from error
