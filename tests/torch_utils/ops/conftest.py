"""The CUDA kernels, compiled for the host."""
from collections.abc import Iterator

import pytest
import torch

from tests.torch_utils.ops import host_kernels
from tests.torch_utils.ops.host_kernels import HostLibrary
from torch_utils.ops.backend import choice


@pytest.fixture(scope="session")
def host_library(tmp_path_factory: pytest.TempPathFactory) -> HostLibrary:
    if host_kernels.COMPILER is None:
        pytest.skip("needs a host compiler (g++)")
    return host_kernels.build_library(tmp_path_factory.mktemp("host_kernels") / "kernels.so")


@pytest.fixture
def on_host(host_library: HostLibrary, monkeypatch: pytest.MonkeyPatch) -> Iterator[HostLibrary]:
    """Makes the registered operations use the kernels for tensors on the CPU."""
    monkeypatch.setitem(choice._chosen, torch.device("cpu"), host_library)
    host_library.launches.clear()
    host_library.seed(0)
    yield host_library
    host_library.launches.clear()
