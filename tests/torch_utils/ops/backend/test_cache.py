"""The cache of builds: what they are kept by, one builder at a time, and no trouble from killed ones."""
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests import forks
from tests.helpers import wait_until
from torch_utils import launch
from torch_utils.ops.backend import cache, nvcc
from torch_utils.ops.backend.archs import Targets
from torch_utils.ops.backend.errors import BackendError

TARGETS = Targets(("80",), ("80",))


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path))
    return tmp_path / "cuda-ops"


def build(folder: Path) -> dict[str, str]:
    (folder / "library").write_text("code")
    return {"compiler": "test 1"}


def refuse(folder: Path) -> dict[str, str]:
    raise AssertionError("there is a build already")


def test_a_build_is_made_once(folder) -> None:
    made = cache.get("ninja", TARGETS, build)
    assert made.parent == folder
    assert (made / "library").read_text() == "code"
    manifest = json.loads((made / "manifest.json").read_text())
    assert manifest["compiler"] == "test 1"
    assert (manifest["sm"], manifest["ptx"], manifest["torch"]) == (["80"], ["80"], str(torch.__version__))
    assert cache.get("ninja", TARGETS, refuse) == made
    assert cache.get("nvrtc", TARGETS, build) != made


def test_key(folder, monkeypatch) -> None:
    """PyTorch, CUDA, architectures and sources: another one of them is another build."""
    names = {cache.get("ninja", TARGETS, build).name, cache.get("ninja", Targets(("90",)), build).name}
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "9.9.9")
        names.add(cache.get("ninja", TARGETS, build).name)
    with monkeypatch.context() as patch:
        patch.setattr(torch.version, "cuda", "77.7")
        names.add(cache.get("ninja", TARGETS, build).name)
    sources = {**cache.sources(), "common.cuh": "// changed"}
    with monkeypatch.context() as patch:
        patch.setattr(cache, "sources", lambda: sources)
        patch.setattr(cache, "source_hash", cache.source_hash.__wrapped__)
        names.add(cache.get("ninja", TARGETS, build).name)
    assert len(names) == 5


def test_find(folder) -> None:
    made = cache.get("ninja", TARGETS, build)
    assert cache.find("ninja", lambda targets: targets == TARGETS) == made
    assert cache.find("ninja", lambda targets: False) is None
    assert cache.find("nvrtc", lambda targets: True) is None
    (made / "manifest.json").write_text("{")
    assert cache.find("ninja", lambda targets: True) is None


def test_a_build_that_fails_leaves_nothing(folder) -> None:
    def fail(folder: Path) -> dict[str, str]:
        (folder / "half").write_text("")
        raise BackendError("no")

    with pytest.raises(BackendError, match=r"^no$"):
        cache.get("ninja", TARGETS, fail)
    assert [path.suffix for path in folder.iterdir()] == [".lock"]
    assert cache.get("ninja", TARGETS, build).is_dir()


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "file"))
    made = cache.get("ninja", TARGETS, build)
    assert (made / "library").read_text() == "code"
    assert tmp_path not in made.parents


@pytest.fixture
def builder(folder) -> Iterator[forks.Program]:
    """Another process in the middle of a build that does not end."""
    code = (
        "import time\n"
        "from torch_utils.ops.backend import cache\n"
        "from torch_utils.ops.backend.archs import Targets\n"
        "def build(folder):\n"
        "    (folder / 'half').write_text('')\n"
        "    time.sleep(600)\n"
        f"cache.get('ninja', Targets({TARGETS.sm}, {TARGETS.ptx}), build)\n"
    )
    process = forks.Program(code)
    wait_until(lambda: any(folder.rglob("half")))
    yield process
    process.finish(timeout=0)


def test_a_builder_that_hangs_ends_the_wait(builder, monkeypatch) -> None:
    monkeypatch.setattr(cache, "LOCK_TIMEOUT_SEC", 0.3)
    with pytest.raises(BackendError, match=r"\.lock: another process has been building for over 0 s; end it"):
        cache.get("ninja", TARGETS, refuse)


def test_a_killed_builder_does_not_block(builder, folder, monkeypatch) -> None:
    builder.send_signal(signal.SIGKILL)
    wait_until(lambda: builder.poll() is not None)
    unfinished = [path for path in folder.iterdir() if path.suffix == ".tmp"]
    assert len(unfinished) == 1
    assert (cache.get("ninja", TARGETS, build) / "library").is_file()
    # What it left goes once nobody can be working on it any more.
    assert unfinished[0].is_dir()
    os.utime(unfinished[0], (time.time() - 7200,) * 2)
    cache.get("ninja", Targets(("90",)), build)
    assert not unfinished[0].exists()


def test_processes_that_build_together_build_once(folder) -> None:
    code = (
        "import time\n"
        "from torch_utils.ops.backend import cache\n"
        "from torch_utils.ops.backend.archs import Targets\n"
        "def build(folder):\n"
        "    print('built')\n"
        "    time.sleep(0.5)\n"
        "    return {}\n"
        "print(cache.get('ninja', Targets(('80',)), build))\n"
    )
    both = [forks.Program(code) for _ in range(2)]
    outputs = sorted(process.finish().stdout.splitlines() for process in both)
    assert [len(lines) for lines in outputs] in ([1, 2], [2, 1])
    assert outputs[0][-1] == outputs[1][-1]


def test_time_outs_fit_into_one_another() -> None:
    assert nvcc.BUILD_TIMEOUT_SEC < cache.LOCK_TIMEOUT_SEC < launch._DEFAULT_TIMEOUT_SEC


def test_a_compiler_that_hangs_is_ended(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(nvcc, "BUILD_TIMEOUT_SEC", 0.2)
    with pytest.raises(BackendError, match=r"^sh did not end within 0 s$"):
        nvcc.run(["sh", "-c", "sleep 600 & sleep 600"])
    with pytest.raises(BackendError, match=r"^/no/such cannot be run: No such file"):
        nvcc.run(["/no/such"])


def test_a_build_that_is_damaged_is_made_again(folder) -> None:
    made = cache.get("ninja", TARGETS, build)
    (made / "library").write_text("cod")
    assert not cache.is_whole(made)
    assert cache.find("ninja", lambda targets: True) is None
    assert (cache.get("ninja", TARGETS, build) / "library").read_text() == "code"
    assert cache.find("ninja", lambda targets: True) == made
    folder.chmod(0o777)
    assert cache.find("ninja", lambda targets: True) is None


def test_a_process_that_waits_says_what_for(builder, monkeypatch, caplog) -> None:
    monkeypatch.setattr(cache, "LOCK_TIMEOUT_SEC", 0.3)
    monkeypatch.setattr(cache, "_PATIENCE_SEC", 0.0)
    with pytest.raises(BackendError):
        cache.get("ninja", TARGETS, refuse)
    assert caplog.text.count("waiting for another process that builds kernels") == 1
