"""Architectures: lists as users write them, what a compiler makes of them, what runs where."""
import pytest

from torch_utils.ops.backend import archs
from torch_utils.ops.backend.archs import Targets
from torch_utils.ops.backend.errors import BackendError

KNOWN = ["75", "80", "86", "90", "100", "120"]


@pytest.mark.parametrize(
    ("text", "sm", "ptx"),
    [
        ("8.0;8.6+PTX", ["80", "86"], ["86"]),
        ("90 120", ["90", "120"], []),
        ("sm_90, 9.0a", ["90", "90a"], []),
        ("Ampere", ["80", "86"], ["86"]),
        ("Hopper;9.0", ["90"], ["90"]),
    ],
)
def test_lists(text: str, sm: list[str], ptx: list[str]) -> None:
    assert archs.parse(text) == (sm, ptx)


@pytest.mark.parametrize("text", ["native", "8.6;", "8", "compute_80"])
def test_lists_that_are_none(text: str) -> None:
    with pytest.raises(BackendError, match="is not a GPU architecture; expected numbers such as"):
        archs.parse(text)


def test_the_variable_of_the_environment(monkeypatch) -> None:
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    assert archs.from_environment() is None
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", " 7.5;8.0+PTX ")
    assert archs.from_environment() == (["75", "80"], ["80"])


def test_what_a_compiler_makes_of_a_wish() -> None:
    def choose(*sm: str, ptx: tuple[str, ...] = ()) -> Targets:
        return archs.choose(list(sm), list(ptx), KNOWN, "nvcc 1")

    assert choose("80", "90") == Targets(("80", "90"), ("90",))  # the newest as PTX too, for what comes after it
    assert choose("130") == Targets((), ("120",))  # newer than the compiler
    assert choose("90", "130") == Targets(("90",), ("120",))
    older = choose("70", "80")
    assert older == Targets(("80",), ("80",))
    assert older.skipped == ("70",)
    with pytest.raises(BackendError, match="nvcc 1 knows sm_75 to sm_120, not sm_60, sm_70"):
        choose("60", "70")


@pytest.mark.parametrize(
    ("targets", "arch", "code", "runs"),
    [
        (Targets(("80",)), "80", True, True),
        (Targets(("80",)), "86", True, True),  # within a major version
        (Targets(("86",)), "80", False, False),
        (Targets(("80",)), "90", False, False),
        (Targets(("80",), ("80",)), "90", False, True),  # the driver compiles the PTX
        (Targets((), ("90",)), "86", False, False),
        (Targets(("90a",), ("90a",)), "90", False, False),
        (Targets(("90a",)), "90a", True, True),
        (Targets(("100",)), "110", False, False),
    ],
)
def test_what_runs_where(targets: Targets, arch: str, code: bool, runs: bool) -> None:
    assert targets.has_code_for(arch) == code
    assert targets.run_on(arch) == runs


def test_names_of_builds() -> None:
    assert str(Targets(("80", "90"), ("90",))) == "sm80-sm90-ptx90"
