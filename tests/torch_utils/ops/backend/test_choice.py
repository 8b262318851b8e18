"""Which kernels a device gets: the order of the ways, what is said, what $SG_OPS forces. The GPU is pretended."""
import logging

import pytest
import torch

from dnnlib.errors import UserError
from torch_utils import distributed, training_stats
from torch_utils.ops import settings
from torch_utils.ops.backend import build_ahead, cache, choice, loading, nvcc, nvrtc, selftest
from torch_utils.ops.backend.archs import Targets
from torch_utils.ops.backend.errors import BackendError
from training import training_loop
from training.run_config import (
    Component,
    DataConfig,
    MachineConfig,
    NetworksConfig,
    OptimizersConfig,
    RunConfig,
)

GPU = torch.device("cuda", 0)


class Kernels:
    """Stands for compiled kernels."""

    def __init__(self, name: str) -> None:
        self.name = name


class Machine:
    """What works on a pretended machine with one GPU; `tried` says what was tried."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tried: list[str] = []
        self.broken: dict[str, Exception] = {}
        monkeypatch.setattr(choice, "_chosen", {torch.device("cpu"): None})
        monkeypatch.setattr(choice, "_reasons", {})
        monkeypatch.setattr(settings, "mode", "auto")
        monkeypatch.setattr(torch.version, "hip", None)
        monkeypatch.setattr(loading, "LOADERS", {"ninja": self._load("ninja"), "nvrtc": self._load("nvrtc")})
        monkeypatch.setattr(selftest, "run", lambda kernels, device: None)

    def _load(self, way: str):
        def load(index: int) -> Kernels:
            self.tried.append(way)
            if way in self.broken:
                raise self.broken[way]
            return Kernels(way)

        return load


@pytest.fixture
def machine(monkeypatch) -> Machine:
    return Machine(monkeypatch)


def test_ninja_comes_first(machine, caplog) -> None:
    caplog.set_level(logging.INFO)
    assert choice.kernels_for(GPU).name == "ninja"
    assert choice.kernels_for(GPU).name == "ninja"
    assert machine.tried == ["ninja"]
    (line,) = caplog.messages
    assert line.startswith("CUDA ops on cuda:0: ninja, ready in ")


def test_then_nvrtc(machine, caplog) -> None:
    caplog.set_level(logging.INFO)
    machine.broken["ninja"] = BackendError("nvcc was not found")
    assert choice.kernels_for(GPU).name == "nvrtc"
    assert machine.tried == ["ninja", "nvrtc"]
    assert choice.reasons(GPU) == ["ninja: nvcc was not found"]
    (line,) = caplog.messages
    assert line.startswith("CUDA ops on cuda:0: nvrtc, ready in ")


def test_then_plain_torch(machine, caplog) -> None:
    machine.broken = {"ninja": BackendError("nvcc was not found"), "nvrtc": OSError("no\nlibrary")}
    assert choice.kernels_for(GPU) is None
    assert choice.kernels_for(GPU) is None
    assert machine.tried == ["ninja", "nvrtc"]  # once
    assert caplog.messages == [
        "CUDA ops on cuda:0: plain torch, which is slower; ninja: nvcc was not found; nvrtc: no library. "
        "Run `python -m torch_utils.ops` for more"
    ]


def test_without_logging_the_line_goes_to_stderr(machine, monkeypatch, capsys) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    choice.kernels_for(GPU)
    captured = capsys.readouterr()
    assert captured.err.startswith("CUDA ops on cuda:0: ninja, ready in ")
    assert captured.err.count("\n") == 1


def test_other_ranks_are_silent(machine, monkeypatch, caplog) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    assert choice.kernels_for(GPU).name == "ninja"
    assert caplog.messages == []


@pytest.mark.parametrize("mode", ["ninja", "nvrtc"])
def test_sg_ops_insists_on_one_way(machine, monkeypatch, mode: str) -> None:
    monkeypatch.setattr(settings, "mode", mode)
    assert choice.kernels_for(GPU).name == mode
    assert machine.tried == [mode]
    choice._chosen.clear()
    machine.broken[mode] = BackendError("it is broken")
    with pytest.raises(UserError, match=f"SG_OPS: {mode} is not possible here; {mode}: it is broken"):
        choice.kernels_for(GPU)


def test_sg_ops_ref(machine, monkeypatch, caplog) -> None:
    monkeypatch.setattr(settings, "mode", "ref")
    assert choice.kernels_for(GPU) is None
    assert machine.tried == []
    assert caplog.messages == []


def test_sg_ops_of_no_meaning(machine, monkeypatch) -> None:
    monkeypatch.setattr(settings, "mode", "fast")
    with pytest.raises(UserError, match=r"^environment variable SG_OPS: expected one of auto, .* found 'fast'$"):
        choice.kernels_for(GPU)


def test_gpus_of_amd(machine, monkeypatch, caplog) -> None:
    monkeypatch.setattr(torch.version, "hip", "6.0")
    assert choice.kernels_for(GPU) is None
    assert "this PyTorch is for AMD's" in caplog.text
    assert machine.tried == []


def test_rank_0_builds_while_the_others_wait(machine, monkeypatch) -> None:
    order = []
    monkeypatch.setattr(choice, "kernels_for", lambda device: order.append(f"kernels on {device}"))
    monkeypatch.setattr(distributed, "barrier", lambda: order.append("barrier"))
    monkeypatch.setattr(distributed, "local_rank", lambda: 0)
    choice.prepare(GPU)
    assert order == ["kernels on cuda:0", "barrier", "kernels on cuda:0"]
    order.clear()
    monkeypatch.setattr(distributed, "local_rank", lambda: 3)
    choice.prepare(torch.device("cuda", 3))
    assert order == ["barrier", "kernels on cuda:3"]
    order.clear()
    choice.prepare(torch.device("cpu"))
    assert order == []


def test_training_prepares_first(monkeypatch) -> None:
    class Stop(Exception):
        pass

    def prepare(device: torch.device) -> None:
        raise Stop(str(device))

    monkeypatch.setattr(choice, "prepare", prepare)
    monkeypatch.setattr(training_stats, "init_multiprocessing", lambda rank, device: None)  # others may have collected
    part = Component("none")
    config = RunConfig(
        data=DataConfig(training_set=part), networks=NetworksConfig(G=part, D=part),
        optimizers=OptimizersConfig(G=part, D=part), loss=part, machine=MachineConfig(device="cpu"))
    with pytest.raises(Stop, match="cpu"):
        training_loop.training_loop(config)


# Self-test ----------------------------------------------------------------------------------------------------------


def test_kernels_are_tried_before_they_are_used(host_library) -> None:
    host_library.launches.clear()
    selftest.run(host_library, torch.device("cpu"))
    assert {launch.kernel.split("_")[0] for launch in host_library.launches} == {"fir4", "upfirdn2d", "bias"}


def test_kernels_that_compute_nonsense_are_refused() -> None:
    class Idle:
        name = "idle"

        def check(self, device: int) -> None: ...

        def launch(self, launch, device: int, stream: int) -> None: ...

    with pytest.raises(BackendError, match=r"^kernel fir4_f32_u1d1_c1w128h16 computes wrong numbers"):
        selftest.run(Idle(), torch.device("cpu"))


# Targets ------------------------------------------------------------------------------------------------------------


def test_a_build_is_for_the_gpu_unless_a_list_says_otherwise(monkeypatch) -> None:
    known = ["75", "80", "90"]
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    assert loading.targets_for(known, "nvcc 1", "80") == Targets(("80",), ("80",))
    assert loading.targets_for(known, "nvcc 1", "120") == Targets((), ("90",))
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "7.5;9.0")
    assert loading.targets_for(known, "nvcc 1", "90") == Targets(("75", "90"), ("90",))
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0")
    with pytest.raises(BackendError, match=r"^TORCH_CUDA_ARCH_LIST=9.0 leaves out this GPU's sm_80$"):
        loading.targets_for(known, "nvcc 1", "80")


def test_a_finished_build_serves_a_machine_without_a_compiler(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path))

    def cannot(arch: str):
        raise BackendError("nvcc was not found")

    with pytest.raises(BackendError, match="nvcc was not found"):
        loading.find_or_build("ninja", "90", cannot)
    made = cache.get("ninja", Targets(("80",), ("80",)), lambda folder: {})
    assert loading.find_or_build("ninja", "86", cannot) == made  # its machine code
    assert loading.find_or_build("ninja", "90", cannot) == made  # its PTX
    with pytest.raises(BackendError, match="nvcc was not found"):
        loading.find_or_build("ninja", "75", cannot)


def test_ahead_of_time_without_nvcc(tmp_path, monkeypatch) -> None:
    """Then NVRTC builds, one image per architecture; without that too, both reasons are given."""
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path))

    def cannot():
        raise BackendError("nvcc was not found")

    monkeypatch.setattr(nvcc, "find_nvcc", cannot)
    built = []
    monkeypatch.setattr(loading, "build_nvrtc", lambda arch: built.append(arch) or tmp_path / arch)
    monkeypatch.setattr(nvrtc, "find", lambda: None)
    assert build_ahead.build_ahead(["8.0", "9.0"]) == [tmp_path / "80", tmp_path / "90"]

    def neither():
        raise BackendError("no NVRTC library was found")

    monkeypatch.setattr(nvrtc, "find", neither)
    with pytest.raises(UserError, match=r"^wanted: nvcc was not found; no NVRTC library was found$"):
        build_ahead.build_ahead(["8.0"])
