"""GPU architectures: which to compile for, and what code runs where."""
import os
import re
from dataclasses import dataclass, field

import torch

from .errors import BackendError

# The names that TORCH_CUDA_ARCH_LIST may use instead of numbers.
_NAMED = {
    "Volta": "7.0+PTX",
    "Turing": "7.5+PTX",
    "Ampere": "8.0;8.6+PTX",
    "Ada": "8.9+PTX",
    "Hopper": "9.0+PTX",
    "Blackwell": "10.0;12.0+PTX",
}


@dataclass(frozen=True)
class Targets:
    """What a build contains: machine code for `sm` (such as "90" or "90a"), and for `ptx` text that drivers compile."""

    sm: tuple[str, ...] = ()
    ptx: tuple[str, ...] = ()
    skipped: tuple[str, ...] = field(default=(), compare=False)  # requested, but too old for the compiler

    def __str__(self) -> str:
        return "-".join([f"sm{arch}" for arch in self.sm] + [f"ptx{arch}" for arch in self.ptx])

    def has_code_for(self, arch: str) -> bool:
        """Whether the build has machine code for a GPU of this architecture."""
        return any(sm == arch or (_is_plain(sm) and _same_major(sm, arch) and _number(sm) <= _number(arch))
                   for sm in self.sm)

    def run_on(self, arch: str) -> bool:
        """Whether a GPU of this architecture can run the build, if need be after its driver has compiled the PTX."""
        return self.has_code_for(arch) or any(_is_plain(ptx) and _number(ptx) <= _number(arch) for ptx in self.ptx)


def _number(arch: str) -> int:
    return int(arch.rstrip("af"))


def _is_plain(arch: str) -> bool:
    """Code for "90a" runs on nothing but compute capability 9.0 itself."""
    return arch.isdigit()


def _same_major(a: str, b: str) -> bool:
    return _number(a) // 10 == _number(b) // 10


def of_device(index: int) -> str:
    """A GPU's architecture, such as "90"."""
    major, minor = torch.cuda.get_device_capability(index)
    return f"{major}{minor}"


def from_environment() -> tuple[list[str], list[str]] | None:
    """Machine code and PTX that $TORCH_CUDA_ARCH_LIST asks for; None if it is not set."""
    text = os.environ.get("TORCH_CUDA_ARCH_LIST", "").strip()
    return parse(text) if text else None


def parse(text: str) -> tuple[list[str], list[str]]:
    """Reads a list such as "8.0;8.6+PTX", "90 120" or "Ampere": numbers of machine code, and of PTX.

    Raises:
        BackendError: something in the list is not an architecture.
    """
    sm: list[str] = []
    ptx: list[str] = []
    for word in re.split(r"[;,\s]+", text.strip()):
        for item in _NAMED.get(word, word).split(";"):
            match = re.fullmatch(r"(?:sm_)?(\d{1,2})\.?(\d)([af]?)(\+PTX)?", item)
            if match is None:
                raise BackendError(f"{word!r} is not a GPU architecture; expected numbers such as 8.6 or 9.0+PTX")
            arch = match[1] + match[2] + match[3]
            sm.append(arch)
            if match[4]:
                ptx.append(arch)
    return list(dict.fromkeys(sm)), list(dict.fromkeys(ptx))


def choose(sm: list[str], ptx: list[str], supported: list[str], compiler: str) -> Targets:
    """Fits a wish to what a compiler can do.

    For a GPU newer than the compiler there is PTX for the newest architecture it knows; older ones are left out. The
    newest of all always comes as PTX too, so that a build outlives the next generation of GPUs.

    Args:
        sm, ptx: wanted architectures.
        supported: those that the compiler knows, as numbers.
        compiler: its name and version, for messages.

    Raises:
        BackendError: none of the wanted architectures is possible.
    """
    known = sorted({_number(arch) for arch in supported})
    skipped = [arch for arch in sm if _number(arch) < known[0]]
    native = [arch for arch in sm if _number(arch) in known]
    text = [arch for arch in ptx if _number(arch) in known]
    if len(native) + len(skipped) < len(sm):
        text.append(str(known[-1]))
    elif native:
        text.append(str(max(map(_number, native))))
    if not native and not text:
        raise BackendError(f"{compiler} knows sm_{known[0]} to sm_{known[-1]}, not sm_{', sm_'.join(skipped)}")
    return Targets(tuple(dict.fromkeys(native)), tuple(dict.fromkeys(text)), tuple(skipped))
