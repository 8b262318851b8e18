"""The driver's interface, spoken with a pretended driver that runs the kernels on the host."""
import ctypes
from pathlib import Path

import pytest
import torch

from tests.torch_utils.ops import host_kernels
from torch_utils.ops.backend import selftest
from torch_utils.ops.backend.driver import Driver, Module
from torch_utils.ops.backend.errors import BackendError
from torch_utils.ops.backend.launch_config import Launch
from torch_utils.ops.backend.params import BiasActParams

pytestmark = pytest.mark.skipif(host_kernels.COMPILER is None, reason="needs a host compiler (g++)")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("driver") / "libcuda.so"
    kernels = host_kernels.of_types("f16", "f32")
    return host_kernels.build(path, kernels, flags=("-shared", "-fPIC"), program="fake_driver.cpp")


def test_kernels_run_through_the_driver(library) -> None:
    driver = Driver(str(library))
    assert driver.version == "13.2"
    module = Module(driver, b"an image", 0)
    selftest.run(module, torch.device("cpu"))
    selftest.run(module, torch.device("cpu"))
    assert ctypes.CDLL(str(library)).fake_contexts_left() == 0


def test_the_drivers_errors_are_passed_on(library) -> None:
    driver = Driver(str(library))
    with pytest.raises(BackendError, match=r"^cuModuleLoadData: failure \(1\)$"):
        Module(driver, b"another image", 0)
    with pytest.raises(BackendError, match=r"^cuDeviceGet: failure \(1\)$"):
        Module(driver, b"an image", 1)
    module = Module(driver, b"an image", 0)
    with pytest.raises(BackendError, match=r"^cuModuleGetFunction: named symbol not found \(500\)$"):
        module.launch(Launch("no_such_kernel", (1, 1, 1), BiasActParams()), 0, 0)
    with pytest.raises(BackendError, match=r"^cuLaunchKernel: failure \(719\)$"):
        module.launch(Launch("bias_act0_f32_i32", (1, 70000, 1), BiasActParams()), 0, 0)
    with pytest.raises(BackendError, match=r"^the module was loaded on GPU 0, not 1$"):
        module.check(1)
    assert ctypes.CDLL(str(library)).fake_contexts_left() == 0


def test_without_a_driver() -> None:
    with pytest.raises(BackendError, match=r"^the CUDA driver \(no-such-library.so\) cannot be loaded: "):
        Driver("no-such-library.so")
