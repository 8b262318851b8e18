"""Detectors of strangers: looked through before they run, ended if they do not end, named if they give nonsense."""
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch

from metrics import script_safety, torchscript
from metrics.detector import DetectorError, DetectorSpec, load
from metrics.script_safety import DamagedScript, UnsafeScript, check_archive
from tests.helpers import damage_zip_entry

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


class Printing(torch.nn.Module):
    def forward(self, img: torch.Tensor) -> torch.Tensor:
        print("hello")  # noqa: T201
        return img.float().mean(dim=[2, 3])


class Mapping(torch.nn.Module):
    def forward(self, img: torch.Tensor) -> torch.Tensor:
        return img.float().mean(dim=[2, 3]) + torch.from_file("/tmp/never", True, 3)


class Endless(torch.nn.Module):
    def forward(self, img: torch.Tensor) -> torch.Tensor:
        x = img.float().mean(dim=[2, 3])
        while bool((x == x).all()):
            x = x + 1
        return x


class NotFinite(torch.nn.Module):
    def forward(self, img: torch.Tensor) -> torch.Tensor:
        return img.float().mean(dim=[2, 3]) / 0


class Whole(torch.nn.Module):
    def forward(self, img: torch.Tensor) -> torch.Tensor:
        return img.long().sum(dim=[2, 3])


class Failing(torch.nn.Module):
    def forward(self, img: torch.Tensor) -> torch.Tensor:
        return img.float() @ torch.zeros(3, 3)


def write(module: torch.nn.Module, path: Path) -> Path:
    with open(path, "wb") as file:
        torchscript.save(torchscript.script(module), file)
    return path


def load_and_call(path: object) -> torch.Tensor:
    return load(DetectorSpec.parse(str(path)), CPU)(torch.zeros([2, 3, 8, 8], dtype=torch.uint8))


@pytest.mark.parametrize(("module", "name"), [(Printing(), "print"), (Mapping(), "from_file")])
def test_side_effects_are_refused_unless_pinned(tmp_path: Path, module: torch.nn.Module, name: str) -> None:
    path = write(module, tmp_path / "d.pt")
    with pytest.raises(DetectorError, match=f"refused: its code names `{name}`, which does more than compute; if you "
                                            f"trust it, pass `detector={path}#sha256=[0-9a-f]{{64}}`") as caught:
        load_and_call(path)
    pinned = str(caught.value).rpartition("`detector=")[2].rstrip("`")
    assert load(DetectorSpec.parse(pinned), CPU).name == "d"


def rewritten(path: Path, change: dict[str, bytes]) -> bytes:
    """The archive with other contents of the entries whose names end so, or with further entries."""
    dest = path.with_suffix(".new")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(dest, "w") as archive:
        for name in source.namelist():
            key = next((key for key in change if name.endswith(key)), None)
            archive.writestr(name, change.pop(key) if key else source.read(name))
        for name, content in change.items():
            archive.writestr("archive/" + name, content)
    return dest.read_bytes()


def test_other_spellings_and_archives(tmp_path: Path) -> None:
    path = write(NotFinite(), tmp_path / "d.pt")
    check_archive(path.read_bytes())
    for change, message in [
        ({"test_script_safety.py": b"x = getattr(torch, 'from\\x5ffile')"}, "from_file"),
        ({"code/more.py": b"t = torch\ny = t.from_file"}, "from_file"),
        ({"code/more.txt": b""}, "code of an unknown kind"),
        ({"model.json": b"{}"}, "before 2019"),
    ]:
        with pytest.raises(UnsafeScript, match=message):
            check_archive(rewritten(path, change))
    with pytest.raises(UnsafeScript, match="ambiguous"):
        check_archive(b"#!" + path.read_bytes())
    for content in (b"junk", b""):
        with pytest.raises(DamagedScript, match="damaged"):
            check_archive(content)


def test_a_flipped_bit_is_seen(tmp_path: Path) -> None:
    path = ROOT / "metrics" / "detectors" / "clothing32.pt"
    check_archive(path.read_bytes())
    copy = tmp_path / "c.pt"
    copy.write_bytes(path.read_bytes())
    damage_zip_entry(copy, "archive/data/4")
    with pytest.raises(DetectorError, match="torch can load: the archive is damaged: Bad CRC-32"):
        load_and_call(copy)


@pytest.mark.parametrize(("module", "message"), [
    (NotFinite(), "features are not finite"), (Whole(), "expected a tensor of floats, found torch.int64"),
    (Failing(), "failed: "),
])  # fmt: skip
def test_nonsense_is_named(tmp_path: Path, module: torch.nn.Module, message: str) -> None:
    with pytest.raises(DetectorError, match=f"detector d: (its )?{message}"):
        load_and_call(write(module, tmp_path / "d.pt"))


def test_an_endless_script_ends_with_one_line(tmp_path: Path) -> None:
    path = write(Endless(), tmp_path / "d.pt")
    code = (
        "import sys, torch; from metrics import script_safety, detector; script_safety.TIME_LIMIT_SEC = 2\n"
        "spec = detector.DetectorSpec.parse(sys.argv[1])\n"
        "detector.load(spec, torch.device('cpu'))(torch.zeros([1, 3, 8, 8], dtype=torch.uint8))"
    )
    done = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert done.stderr == "Error: detector d: not done after 2 s; it may never be\n"


def test_the_limit_ends_with_its_body() -> None:
    with script_safety.time_limit("d", 0.3):
        pass
    time.sleep(0.5)  # this process continues
