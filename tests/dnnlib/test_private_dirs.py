"""Folders for what is executed later: ours alone, or a temporary one."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dnnlib.private_dirs import is_private, private_dir
from torch_utils.ops import cpu_build

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs owners and modes")


def test_a_new_folder_is_closed_to_others_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        folder = private_dir(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert folder == tmp_path / "a" / "b"
    assert folder.stat().st_mode & 0o777 == folder.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("place", [".", ".."])
def test_folders_that_others_can_write_are_not_used(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    (folder / place).chmod(0o777)
    assert not is_private(folder)
    used = private_dir(folder)
    assert used != folder
    assert is_private(used)
    (folder / place).chmod(0o1777 if place == ".." else 0o755)  # a sticky folder above, such as /tmp, is no danger
    assert private_dir(folder) == folder


def test_a_folder_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert not is_private(tmp_path)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert tmp_path not in private_dir(tmp_path / "file" / "a").parents


def test_a_damaged_kernel_library_is_built_again(tmp_path: Path) -> None:
    """Cut in the middle, which may end a process with a bus error when it is mapped."""
    loaded, _ = cpu_build.load()
    if loaded is None:
        pytest.skip("no host compiler")
    whole = Path(loaded._name)
    library = private_dir(tmp_path / "cpu-ops") / whole.name
    shutil.copy(whole.with_suffix(".sha256"), library.parent)
    library.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    code = "from torch_utils.ops import cpu_build; print(cpu_build.load()[1].split()[0])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"DNNLIB_CACHE_DIR": str(tmp_path)},
                          capture_output=True, text=True, check=True)
    assert done.stdout == "compiled\n"
    assert library.stat().st_size == whole.stat().st_size
