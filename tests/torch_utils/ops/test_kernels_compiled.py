"""The CUDA kernels through the real compilers: nvcc and NVRTC. Nothing is launched."""
import re
from pathlib import Path

import pytest

from benchmarks import kernel_resources
from torch_utils.ops.backend import archs, build_ahead, cache, loading, nvcc, nvrtc
from torch_utils.ops.backend.archs import Targets
from torch_utils.ops.backend.errors import BackendError
from torch_utils.ops.backend.library import Library

MAX_SHARED = 48 << 10  # bytes of a block that needs no opt-in


def nvcc_archs() -> list[str]:
    try:
        return sorted(nvcc.supported_archs(nvcc.find_nvcc()), key=int)
    except BackendError:
        return []


def nvrtc_or_skip() -> nvrtc.Compiler:
    try:
        return nvrtc.find()
    except BackendError as error:
        pytest.skip(str(error))


ARCHS = nvcc_archs()
needs_nvcc = pytest.mark.skipif(not ARCHS, reason="needs nvcc")


# nvcc ---------------------------------------------------------------------------------------------------------------


@needs_nvcc
@pytest.mark.parametrize("arch", [arch for arch in ARCHS if arch in (ARCHS[0], "80", "90", ARCHS[-1])])
def test_cubin_without_spills(arch: str) -> None:
    """The oldest architecture in all types, the newest in those that networks compute in, two others in float32.

    `benchmarks/kernel_resources.py` compiles for all.
    """
    types = {ARCHS[0]: kernel_resources.ALL_TYPES, ARCHS[-1]: ("f16", "f32")}.get(arch, ("f32",))
    result = kernel_resources.compile_for(arch, types)
    assert len(result) == 18 * len(types)
    for kernel, resources in result.items():
        assert resources.spilled == resources.stack == 0, (kernel, resources)
        assert resources.shared <= MAX_SHARED, (kernel, resources)
        # As many blocks as the launch bounds promise: 65,536 registers, given out in groups of 8 per thread.
        blocks = 2 if "f64" in kernel else 4
        assert -(-resources.registers // 8) * 8 * 256 * blocks <= 65536, (kernel, resources)


def test_report_is_read() -> None:
    """Two entries as ptxas prints them, one of which spills."""
    report = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'good' for 'sm_90'
ptxas info    : Function properties for good
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 74 registers, used 1 barriers, 6656 bytes smem
ptxas info    : Compiling entry function 'bad' for 'sm_90'
ptxas info    : Function properties for bad
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 64 registers
"""
    result = kernel_resources.parse(report)
    assert result == {"good": (74, 6656, 0, 0), "bad": (64, 0, 16, 20)}
    assert kernel_resources.table({"90": result, "75": {**result, "good": result["bad"]}})[2:] == [
        "| bad | 64 | 0 | 16 | 20 |",
        "| good | 64 to 74 | 0 to 6656 | 0 to 16 | 0 to 20 |",
    ]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a real build by nvcc and ninja, for the oldest architecture and its PTX."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DNNLIB_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        (folder,) = build_ahead.build_ahead([f"{ARCHS[0]}+PTX"])
    return folder


@needs_nvcc
def test_ninja_builds_a_library_of_all_kernels(built, host_library) -> None:
    library = Library(built / nvcc.LIBRARY)
    assert library.name == "ninja"
    assert library.kernels == host_library.kernels
    for kernel in library.kernels:
        assert library.params_size(kernel) == host_library.params_size(kernel)
    assert f"compute_{ARCHS[0]}" in (built / "build.ninja").read_text()


@needs_nvcc
@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="this machine has a GPU")
def test_a_library_without_a_driver_says_so(built) -> None:
    with pytest.raises(BackendError, match=r"^CUDA error \d+: .*(driver|device)"):
        Library(built / nvcc.LIBRARY).check(0)


@needs_nvcc
def test_the_first_error_of_the_compiler_is_passed_on(tmp_path, monkeypatch) -> None:
    broken = {**cache.sources(), "common.cuh": "#error this will not do\n"}
    monkeypatch.setattr(cache, "sources", lambda: broken)
    with pytest.raises(BackendError, match=r"^ninja failed: .*this will not do"):
        nvcc.build(tmp_path, Targets(sm=(ARCHS[0],)))


# NVRTC --------------------------------------------------------------------------------------------------------------


def test_nvrtc_compiles_for_the_oldest_and_the_newest_architecture() -> None:
    compiler = nvrtc_or_skip()
    assert re.fullmatch(r"NVRTC \d+\.\d+", compiler.version)
    known = sorted(compiler.supported_archs, key=int)
    for arch in (known[0], known[-1]):
        image = compiler.compile(loading.single_target(compiler, arch), ("SG_DTYPES(K)=SG_F32(K)",))
        assert image[:4] == b"\x7fELF"
        assert b"fir4_f32_u2d1_c1w128h16" in image
        assert b"bias_act0_f32_i32" in image


def test_nvrtc_makes_ptx_for_gpus_it_does_not_know() -> None:
    compiler = nvrtc_or_skip()
    newest = max(map(int, compiler.supported_archs))
    target = loading.single_target(compiler, str(newest + 10))
    assert target == Targets(ptx=(str(newest),))
    image = compiler.compile(target, ("SG_DTYPES(K)=SG_F16(K)",))
    assert f".target sm_{newest}".encode() in image
    assert b".entry fir4_f16_u1d2_c1w128h8" in image


def test_nvrtc_tells_its_first_error(monkeypatch) -> None:
    compiler = nvrtc_or_skip()
    broken = {**cache.sources(), "common.cuh": "#error this will not do\n"}
    monkeypatch.setattr(cache, "sources", lambda: broken)
    with pytest.raises(BackendError, match=r"NVRTC_ERROR_COMPILATION: .*this will not do"):
        compiler.compile(Targets(sm=(compiler.supported_archs[-1],)))


def test_an_nvrtc_build_is_kept(tmp_path, monkeypatch) -> None:
    compiler = nvrtc_or_skip()
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path))
    compiled = []
    monkeypatch.setattr(nvrtc.Compiler, "compile", lambda self, targets: compiled.append(targets) or b"image")
    arch = compiler.supported_archs[-1]
    folder = loading.find_or_build("nvrtc", arch, loading.build_nvrtc)
    assert (folder / nvrtc.IMAGE).read_bytes() == b"image"
    assert loading.find_or_build("nvrtc", arch, loading.build_nvrtc) == folder
    assert compiled == [archs.Targets(sm=(arch,))]
