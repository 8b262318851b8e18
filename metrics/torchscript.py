"""TorchScript files in and out, without the deprecation notes of recent torch versions.

TorchScript is deprecated from torch 2.10 or so on, but it is the format of the published detectors and the only one
that runs without any of our code. Only the notes that these three calls give are silenced.
"""
import contextlib
import io
import warnings
import zipfile
from collections.abc import Iterator
from typing import IO

import torch


@contextlib.contextmanager
def _deprecation_silenced() -> Iterator[None]:
    with warnings.catch_warnings():
        notes = r"`torch\.jit\.\w+` is (deprecated|not supported in Python 3\.14)"
        warnings.filterwarnings("ignore", message=notes, category=DeprecationWarning)
        yield


def script(module: torch.nn.Module) -> torch.jit.ScriptModule:
    """Compiles a module to TorchScript."""
    with _deprecation_silenced():
        return torch.jit.script(module)


def save(module: torch.jit.ScriptModule, file: IO[bytes]) -> None:
    """Writes a scripted module to an open binary file.

    The records that say where the Python source lay are left out, and with them the id that is a hash of all records:
    the same module gives the same bytes in every folder, so that the digest of a detector identifies it. (Layers that
    state constants, as scripted ones of torch.nn do and traced ones do not, write them in an order that also depends
    on PYTHONHASHSEED.)
    """
    with _deprecation_silenced(), io.BytesIO() as whole:
        torch.jit.save(module, whole)
        with zipfile.ZipFile(whole) as source, zipfile.ZipFile(file, "w") as dest:
            for name in source.namelist():
                if not name.endswith((".debug_pkl", "/.data/serialization_id")):
                    dest.writestr(zipfile.ZipInfo(name), source.read(name))


def load(content: bytes, device: torch.device) -> torch.jit.ScriptModule:
    """Reads a scripted module onto a device, frozen, in evaluation mode.

    Raises:
        RuntimeError, ValueError: torch cannot read it.
    """
    with _deprecation_silenced(), io.BytesIO(content) as file:
        module = torch.jit.load(file, map_location=device).eval()
    for param in module.parameters():
        param.requires_grad_(False)
    return module
