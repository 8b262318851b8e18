"""For all tests: one thread per process, no way out to the network, coverage where it counts."""
import contextlib
import functools
import gc
import ipaddress
import multiprocessing
import os
import pkgutil
import signal
import socket
import sys
import types
from collections.abc import Callable, Generator, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from torch_utils import launch

if TYPE_CHECKING:
    from torch_utils.training_stats import Collector

# Before torch is imported by anyone, child processes included: the tests run side by side on few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
# Shells start background jobs with SIGINT ignored, and children inherit that; some tests interrupt their children.
signal.signal(signal.SIGINT, signal.default_int_handler)


# The packages whose coverage is measured → a module with most of what they import, in an order in which none imports
# one of a later package; and the names of test files without new lines: they do whole runs of what others test in
# parts, or other numbers, sizes and families by the same lines. Recording nearly doubles the processor time of whatever
# runs meanwhile.
MEASURED = {"torch_utils/checkpoint": "torch", "dgl": "training.training_loop"}
UNRECORDED = ("_runs.py", "_resume.py", "_rectangular_slices.py", "_biggan_slices.py", "_loss.py", "_refit_biggan.py",
              "_gradient_scores.py", "_slimming.py", "_zero_channels.py", "_distillation.py", "_teacher.py",
              "_teacher_images.py", "_estimates_of_students.py")


@contextlib.contextmanager
def _coverage_paused() -> Iterator[None]:
    coverage = sys.modules.get("coverage")
    stopped = []
    while coverage and (recording := coverage.Coverage.current()):  # in a worker of xdist there are two
        recording.stop()
        stopped.append(recording)
    try:
        yield
    finally:
        for recording in reversed(stopped):
            recording.start()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Pauses the recording of coverage for tests of other packages, and for those that reach no line of their own."""
    folders = [Path(__file__).parent / name for name in MEASURED]
    is_measured = any(folder in item.path.parents for folder in folders)
    is_unrecorded = item.get_closest_marker("slow") or item.get_closest_marker("unrecorded")
    if is_measured and not item.path.name.endswith(UNRECORDED) and not is_unrecorded:
        return (yield)
    with _coverage_paused():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Imports the measured packages while coverage is recorded, and all else while it is not.

    Garbage collection would take a fourth of the time: it walks through all modules and tests again and again. They
    stay, so it leaves them out from then on.
    """
    if session.config.pluginmanager.has_plugin("_cov") and not session.config.getoption("numprocesses", None):
        for name, needed in MEASURED.items():
            with _coverage_paused():
                import_module(needed)
            package = import_module(name.replace("/", "."))
            for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
                import_module(module.name)
    gc.disable()
    try:
        with _coverage_paused():
            return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True, scope="session")
def _quick_processes() -> Iterator[None]:
    """Processes that tests start by `launch` are forks of one that has imported torch, which saves seconds for each.

    A user's are started by the method spawn, as are those of the tests that run train.py itself.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["train", "training.training_loop", "tests.tiny", "tests.forks"])
    methods = types.SimpleNamespace(get_context=lambda name: context, parent_process=multiprocessing.parent_process)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "multiprocessing", methods)
        patch.setattr(launch, "_rank_env", lambda *args, make=launch._rank_env: {**os.environ, **make(*args)})
        yield


@pytest.fixture(autouse=True, scope="session")
def _quick_exports() -> Iterator[None]:
    """Functions of onnxscript keep what they have parsed of their own text; every export asks all of them again."""
    from training.export import onnx_file

    def require(names: Sequence[str], *args: str, original: Callable = onnx_file.require) -> list[Any]:
        modules = original(names, *args)
        function = getattr(sys.modules.get("onnxscript"), "TracedOnnxFunction", None)
        if isinstance(getter := getattr(function, "function_ir", None), property):
            function.function_ir = functools.cached_property(getter.fget)
            function.function_ir.__set_name__(function, "function_ir")
        return modules

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_file, "require", require)
        yield


def _is_local(family: int, address: object) -> bool:
    if family not in (socket.AF_INET, socket.AF_INET6):
        return True
    host = str(address[0]) if isinstance(address, tuple) else str(address)
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any connection that leaves this machine fails."""

    def guard(name: str) -> None:
        connect = getattr(socket.socket, name)

        def guarded(self: socket.socket, address: object) -> object:
            if not _is_local(self.family, address):
                raise OSError(f"tests must not use the network: connection to {address!r}")
            return connect(self, address)

        monkeypatch.setattr(socket.socket, name, guarded)

    guard("connect")
    guard("connect_ex")
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def statistics(monkeypatch: pytest.MonkeyPatch) -> "Collector":
    """A collector of what this test reports, whatever others have reported before."""
    from torch_utils import training_stats

    monkeypatch.setattr(training_stats, "_counters", training_stats._Counters())
    return training_stats.Collector()


@pytest.fixture(params=["native", "torch"])
def cpu_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The test runs with the native CPU kernels, where they can be built, and with the torch path."""
    from torch_utils.ops import cpu_kernels

    if request.param == "native" and cpu_kernels.library()[0] is None:
        pytest.skip(f"no native CPU kernels here: {cpu_kernels.library()[1]}")
    monkeypatch.setattr(cpu_kernels, "enabled", request.param == "native")
    return request.param
