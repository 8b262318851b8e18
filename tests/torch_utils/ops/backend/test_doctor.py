"""`python -m torch_utils.ops`, on this machine and on pretended ones."""
import pytest
import torch
from click.testing import CliRunner

from torch_utils.ops import __main__ as doctor_command
from torch_utils.ops import grid_sample_gradfix, settings
from torch_utils.ops.backend import cache, choice, nvcc, nvrtc
from torch_utils.ops.backend.archs import Targets
from torch_utils.ops.backend.errors import BackendError


def run(*args: str) -> str:
    result = CliRunner().invoke(doctor_command.main, args)
    assert result.exit_code == 0, result.output
    return result.output


def fail(*args: str) -> str:
    result = CliRunner().invoke(doctor_command.main, args)
    assert result.exit_code != 0
    return result.output


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    return tmp_path / "cuda-ops"


@pytest.fixture
def no_compilers(monkeypatch) -> None:
    def no_nvcc():
        raise BackendError("nvcc was not found; install the CUDA toolkit")

    def no_nvrtc():
        raise BackendError("no NVRTC library was found")

    monkeypatch.setattr(nvcc, "find_nvcc", no_nvcc)
    monkeypatch.setattr(nvrtc, "find", no_nvrtc)


@pytest.fixture
def gpu(monkeypatch) -> None:
    """A GPU that nobody ever computes on."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Pretended GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    monkeypatch.setattr(choice, "_chosen", {torch.device("cpu"): None})
    monkeypatch.setattr(choice, "_reasons", {})
    monkeypatch.setattr(settings, "mode", "auto")
    monkeypatch.setattr(grid_sample_gradfix, "_use_own", lambda device_type: True)


def test_this_machine(folder) -> None:
    output = run()
    assert f"PyTorch               {torch.__version__}, " in output
    for row in ("driver", "nvcc", "host compiler", "ninja", "NVRTC", "SG_OPS", "TORCH_CUDA_ARCH_LIST"):
        assert f"\n{row} " in output
    assert f"builds in             {folder}\n" in output
    assert "No builds yet." in output
    assert "On cpu:\n  bias_act " in output


def test_builds_are_listed(folder, monkeypatch) -> None:
    cache.get("ninja", Targets(("80",), ("80",)), lambda folder: {"compiler": "nvcc 1"})
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "1.0")
        cache.get("nvrtc", Targets(("90",)), lambda folder: {"compiler": "NVRTC 1"})
    output = run()
    assert "  ninja: sm_80, PTX 80 (nvcc 1, 0.0 s); fits\n" in output
    assert "  nvrtc: sm_90 (NVRTC 1, 0.0 s); for another PyTorch or other sources\n" in output


def test_why_not_faster(gpu, no_compilers) -> None:
    output = run()
    assert "GPU 0                 Pretended GPU, sm_90\n" in output
    assert "nvcc                  not found: nvcc was not found; install the CUDA toolkit\n" in output
    on_gpu = output.split("On cuda:0:\n")[1]
    assert on_gpu.startswith("  bias_act                 plain torch\n")
    assert "  not faster because       ninja: nvcc was not found; install the CUDA toolkit\n" in on_gpu
    assert "  not faster because       nvrtc: " in on_gpu


def test_a_forced_way_that_is_not_possible(gpu, no_compilers, monkeypatch) -> None:
    monkeypatch.setattr(settings, "mode", "ninja")
    assert "  upfirdn2d                none: environment variable SG_OPS: ninja is not possible here; " in run()


def test_plain_torch_was_asked_for(gpu, monkeypatch) -> None:
    monkeypatch.setattr(settings, "mode", "ref")
    assert "  not faster because       SG_OPS=ref selects plain torch\n" in run()


def test_build(folder, monkeypatch) -> None:
    """Ahead of time, for the architectures of --arch, else of the variable, else of the GPUs."""
    wanted = []

    def build(folder, targets: Targets) -> dict[str, str]:
        wanted.append(targets)
        return {"compiler": "nvcc 1"}

    monkeypatch.setattr(nvcc, "find_nvcc", lambda: folder)
    monkeypatch.setattr(nvcc, "find_ninja", lambda: folder)
    monkeypatch.setattr(nvcc, "version", lambda path: "nvcc 1")
    monkeypatch.setattr(nvcc, "supported_archs", lambda path: ["75", "80", "90"])
    monkeypatch.setattr(nvcc, "build", build)
    output = run("--build", "--arch=8.0", "--arch=9.0+PTX")
    assert output.startswith(f"built {folder}")
    assert output.endswith("-sm80-sm90-ptx90\n")
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "7.5")
    run("--build")
    assert wanted == [Targets(("80", "90"), ("90",)), Targets(("75",), ("75",))]
    assert "sm_70; leave it out" in fail("--build", "--arch=7.0", "--arch=8.0")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--arch=8.0"], "Error: --arch says what to build for: give --build too.\n"),
        (["--build", "--arch=fast"], "Error: --arch: 'fast' is not a GPU architecture; expected numbers such as 8.6"),
    ],
)
def test_errors(args: list[str], message: str) -> None:
    assert message in fail(*args)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_nothing_to_build_for() -> None:
    assert "Error: --arch: this machine has no GPU to build for; name architectures, such as" in fail("--build")
