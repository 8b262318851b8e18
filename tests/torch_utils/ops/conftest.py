"""The CUDA kernels, compiled for the host."""
import os
from collections.abc import Iterator

import pytest
import torch

from tests.torch_utils.ops import host_kernels
from tests.torch_utils.ops.host_kernels import HostLibrary
from torch_utils.ops.backend import choice


@pytest.fixture(scope="session")
def host_library(tmp_path_factory: pytest.TempPathFactory) -> HostLibrary:
    """Built once for all processes that run the tests: whoever comes later waits for it."""
    if host_kernels.COMPILER is None:
        pytest.skip("needs a host compiler (g++)")
    import fcntl

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of which each process has a folder
    library = folder / "host_kernels.so"
    with open(folder / "host_kernels.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.exists():
            os.replace(host_kernels.build(tmp_path_factory.mktemp("host_kernels") / "kernels.so",
                                          flags=host_kernels.LIBRARY_FLAGS), library)
    return HostLibrary(library)


@pytest.fixture
def on_host(host_library: HostLibrary, monkeypatch: pytest.MonkeyPatch) -> Iterator[HostLibrary]:
    """Makes the registered operations use the kernels for tensors on the CPU."""
    monkeypatch.setitem(choice._chosen, torch.device("cpu"), host_library)
    host_library.launches.clear()
    host_library.seed(0)
    yield host_library
    host_library.launches.clear()
