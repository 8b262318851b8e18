"""Feature detectors: where they come from, which file they are, and loading them.

A detector is a TorchScript module called with images N x 3 x H x W in 0..255:
    (uint8 images, return_features=True) -> features [N, F];
    (uint8 images, no_output_bias=True) -> class probabilities [N, K];
    (float images, resize_images=False, return_lpips=True) -> vectors [N, V] whose squared distance is LPIPS.
It resizes the images itself unless resize_images is false.

Only the published file gives a score its usual name. It is known by its content: the sha256 sums below are
those that several public projects record for the two official downloads (they were not checked against a download
here). Any other file is an untrusted program: its code is checked before it runs (metrics/script_safety.py), unless
it is trusted, see `Trust`. Where an official file ever changes, pin the new one with `URL#sha256=...`; its scores then
carry its own name.
"""
import contextlib
import dataclasses
import enum
import functools
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import torch

from dnnlib.bounded import read_file
from dnnlib.errors import FileError, UserError
from dnnlib.util import is_url, open_url
from metrics import script_safety, torchscript
from torch_utils import distributed

_PIN = "#sha256="
_MAX_BYTES = 1 << 32  # of a detector


class DetectorError(UserError):
    """A detector that is not usable: wrong kind of file, wrong content, or a call form that it lacks."""


class DetectorUnavailable(DetectorError):
    """A detector that cannot be read, for example a URL while offline."""


@dataclasses.dataclass(frozen=True)
class DetectorSpec:
    """A detector's source and, if known, what its content must be.

    Args:
        source: path or URL of the TorchScript file.
        sha256: lower-case hex digest that the file must have; None accepts any.
    """

    source: str
    sha256: str | None = None

    @classmethod
    def parse(cls, text: str) -> "DetectorSpec":
        """Reads `PATH_OR_URL` or `PATH_OR_URL#sha256=HEX`.

        Raises:
            DetectorError: the digest is malformed.
        """
        source, separator, digest = text.partition(_PIN)
        if not separator:
            return cls(text)
        if len(digest) != 64 or not set(digest.lower()) <= set("0123456789abcdef"):
            raise DetectorError(f"detector {text}: expected 64 hexadecimal digits after {_PIN}, found {digest!r}")
        return cls(source, digest.lower())

    @property
    def name(self) -> str:
        """File name without folder and extension."""
        return PurePosixPath(self.source.replace("\\", "/")).stem


class Trust(enum.Enum):
    """Which detectors run without being looked through, besides the official ones."""

    NONE = "none"  # their source may be untrusted, as is the configuration of a run
    PINNED = "pinned"  # those whose sha256 was given
    ALL = "all"


_trust = Trust.PINNED


@contextlib.contextmanager
def trust(level: Trust) -> Iterator[None]:
    """Sets what this process trusts while the body runs; `Trust.PINNED` otherwise."""
    global _trust
    before, _trust = _trust, level
    try:
        yield
    finally:
        _trust = before


_OFFICIAL_FOLDER = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/"
INCEPTION = DetectorSpec(
    _OFFICIAL_FOLDER + "inception-2015-12-05.pt", "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
)
VGG16 = DetectorSpec(
    _OFFICIAL_FOLDER + "vgg16.pt", "b437eb095feaeb0b83eb3fa11200ebca4548ee39a07fb944a417ddc516cc07c3"
)
OFFICIAL = (INCEPTION, VGG16)


@dataclasses.dataclass(frozen=True)
class Detector:
    """A loaded detector that knows which file it is."""

    name: str
    sha256: str
    module: torch.jit.ScriptModule

    def __call__(self, images: torch.Tensor, **mode: object) -> torch.Tensor:
        """Runs the detector in one of the call forms; the result has shape [N, F].

        Raises:
            DetectorError: the detector does not know the call form or fails, or its result is of another type or shape
                or not finite.
        """
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1).contiguous()
        if unknown := set(mode) - self._call_options():
            raise DetectorError(
                f"detector {self.name}: does not know the option {sorted(unknown)[0]}, which this metric needs;"
                " pass another file as `detector`"
            )
        with script_safety.time_limit(self.name):
            try:
                result = self.module(images, **mode)
            except RuntimeError as error:
                raise DetectorError(f"detector {self.name}: failed: {_last_line(error)}") from error
        if not isinstance(result, torch.Tensor) or not result.is_floating_point():
            kind = result.dtype if isinstance(result, torch.Tensor) else type(result).__name__
            raise DetectorError(f"detector {self.name}: expected a tensor of floats, found {kind}")
        if result.ndim != 2 or len(result) != len(images):
            raise DetectorError(
                f"detector {self.name}: expected a result of shape [{len(images)}, F], found {list(result.shape)}"
            )
        if not result.isfinite().all():
            raise DetectorError(f"detector {self.name}: its features are not finite")
        return result

    def _call_options(self) -> set[str]:
        forward: Any = self.module.forward
        return {argument.name for argument in forward.schema.arguments}


def check_given(given: Sequence[str]) -> None:
    """Refuses detectors that are no URL and no file, before hours are spent on training.

    Raises:
        DetectorError: says which.
    """
    for source in (DetectorSpec.parse(text).source for text in given):
        if not is_url(source) and not os.path.isfile(source):
            raise DetectorError(f"{source}: no such file", "detector")


def choose(default: DetectorSpec, given: Sequence[str | DetectorSpec]) -> DetectorSpec:
    """Which of the user's detectors takes the place of the default one.

    A file named like an official detector stands in for that detector only, a file of any other name for all.
    """
    specs = [spec if isinstance(spec, DetectorSpec) else DetectorSpec.parse(spec) for spec in given]
    official_names = {spec.name for spec in OFFICIAL}
    namesakes = [spec for spec in specs if spec.name == default.name]
    substitutes = [spec for spec in specs if spec.name not in official_names]
    return (namesakes + substitutes + [default])[0]


def load(spec: DetectorSpec, device: torch.device, verbose: bool = False) -> Detector:
    """Fetches and loads a detector; repeated calls return the same one. Call it on every rank; rank 0 downloads first.

    Raises:
        DetectorUnavailable: it cannot be downloaded or found (on every rank, if rank 0 cannot).
        DetectorError: the file is not TorchScript, or its content is not the pinned one.
    """
    problem = None
    if distributed.is_main():
        try:
            _load(spec, device, verbose)
        except DetectorError as error:
            problem = error
    problem = distributed.broadcast_object(problem)
    if problem is not None:
        raise problem
    return _load(spec, device, verbose=False)


def _load(spec: DetectorSpec, device: torch.device, verbose: bool) -> Detector:
    path = _fetch(spec, verbose)
    stat = os.stat(path)
    return _load_file(spec, path, (stat.st_size, stat.st_mtime_ns), device, _trust)


@functools.lru_cache(maxsize=8)
def _load_file(
    spec: DetectorSpec, path: str, version: tuple[int, int], device: torch.device, trusted: Trust
) -> Detector:
    # `version` only makes a file that was replaced a different call.
    try:
        content = read_file(path, _MAX_BYTES)
    except FileError as error:
        raise DetectorError(f"detector {spec.name}: {error}") from error
    digest = hashlib.sha256(content).hexdigest()
    if spec.sha256 not in (None, digest):
        raise DetectorError(f"detector {spec.source}: expected sha256 {spec.sha256}, found {digest}")
    is_pinned = spec.sha256 is not None and trusted is not Trust.NONE
    is_official = digest in {official.sha256 for official in OFFICIAL}
    try:
        if not is_official and not is_pinned and trusted is not Trust.ALL:
            content = script_safety.checked_copy(content)
        with script_safety.time_limit(spec.name):
            module = torchscript.load(content, device)
    except script_safety.UnsafeScript as error:
        pin = "" if trusted is Trust.NONE else f" or `detector={spec.source}{_PIN}{digest}`"
        raise DetectorError(
            f"detector {spec.source}: refused: {error}; if you trust it, pass `trust_detector=True`{pin}"
        ) from error
    except (RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DetectorError(f"detector {spec.source}: not a TorchScript file that torch can load: {reason}") from error
    return Detector(spec.name, digest, module)


def _fetch(spec: DetectorSpec, verbose: bool) -> str:
    if spec.source.endswith((".pkl", ".pickle")):
        published = next((known.source for known in OFFICIAL if known.name == spec.name), None)
        example = "" if published is None else f", for example {published}"
        raise DetectorError(f"detector {spec.source}: is a Python pickle, which would have to be executed; pass a "
                            f"TorchScript file{example}")
    try:
        path = open_url(spec.source, return_filename=True, verbose=verbose)
    except OSError as error:
        raise DetectorUnavailable(f"detector {spec.name}: {error}, as `detector=PATH`") from error
    if not os.path.isfile(path):
        raise DetectorUnavailable(f"detector {spec.source}: no such file; pass a TorchScript file as `detector=PATH`")
    return path


def _last_line(error: Exception) -> str:
    """What went wrong, without the call stack that TorchScript puts before it."""
    return (str(error).strip().splitlines() or [""])[-1]
