"""Detectors of strangers: looked through before they run, ended if they do not end, named if they give nonsense."""
import io
import re
import signal
import time
import zipfile
from pathlib import Path

import pytest
import torch

from metrics import script_safety, torchscript
from metrics.detector import DetectorError, DetectorSpec, Trust, load, trust
from metrics.script_operators import UnsafeScript, check_code
from metrics.script_safety import DamagedScript, checked_copy
from tests import forks
from tests.helpers import damage_zip_entry

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
        while bool((x == 0).all()):
            x = x * 2
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


@pytest.mark.parametrize(("module", "name"), [(Printing(), "print"), (Mapping(), "torch.from_file")])
def test_side_effects_are_refused_unless_trusted(tmp_path: Path, module: torch.nn.Module, name: str) -> None:
    path = write(module, tmp_path / "d.pt")
    with pytest.raises(DetectorError, match=f"refused: its code names `{name}`, which is not known to only compute; if "
                                            f"you trust it, pass `trust_detector=True` or `detector={path}#sha256="
                                            "[0-9a-f]{64}`$") as caught:
        load_and_call(path)
    pinned = DetectorSpec.parse(str(caught.value).rpartition("`detector=")[2].rstrip("`"))
    assert load(pinned, CPU).name == "d"
    with trust(Trust.ALL):
        assert load(DetectorSpec(str(path)), CPU).name == "d"
    with trust(Trust.NONE), pytest.raises(DetectorError, match=r"pass `trust_detector=True`$"):
        load(pinned, CPU)  # the pin may be a stranger's


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


def test_archives_are_what_torch_writes(tmp_path: Path) -> None:
    path = write(NotFinite(), tmp_path / "d.pt")
    copy = checked_copy(path.read_bytes())
    assert torchscript.load(copy, CPU)(torch.ones([1, 3, 2, 2])).isinf().all()
    with zipfile.ZipFile(path) as archive:
        code = next(name for name in archive.namelist() if name.endswith("test_script_safety.py"))
        text = archive.read(code)
    for change, message in [
        ({"code/more.txt": b""}, "a part of an unknown kind, archive/code/more.txt"),
        ({"CODE/more.PY": b""}, "a part of an unknown kind, archive/CODE/more.PY"),
        ({code.removeprefix("archive/").upper(): text}, "ambiguous"),  # torch takes either
        ({"model.json": b"{}"}, "before 2019"),
        ({"data.pkl": b"c__torch__.torch.classes.dist\nStore\n."}, "classes that are compiled into torch"),
        ({"data/0": b"", "../data/1": b""}, "a part of an unknown kind"),
    ]:
        with pytest.raises(UnsafeScript, match=message):
            checked_copy(rewritten(path, change))
    with pytest.raises(UnsafeScript, match="ambiguous"):
        checked_copy(b"#!" + path.read_bytes())
    for content in (b"junk", b""):
        with pytest.raises(DamagedScript, match="damaged"):
            checked_copy(content)


@pytest.mark.parametrize(("line", "message"), [
    ("y = torch.add(x, 1)", None),
    ("y = ops.prim.device(x)", None),
    ("y = (self).own_layer(x)", None),
    ('y = getattr(self, "0")', None),
    ('torch.warn("a\\nb")', None),
    ("y = torch.no_such_operator(x)", "`torch.no_such_operator`, which is not known"),
    ("y = torch._reshape_alias(x, [9], [1])", "`torch._reshape_alias`, which is not known"),
    ("y = x.set_data(x)", "`set_data`, which is not known"),
    ('y = getattr(x, "set_data")', "`set_data`, which is not known"),
    ("y = getattr(x, name)", "attributes that cannot be foreseen"),
    ("y = ops.aten.from_file(x)", "`ops.aten.from_file`, which is not known"),
    ("y = ops.image.decode(x)", "`ops.image.decode`, which is not known"),
    ("y = __torch__.torch.classes.a.B()", "`torch.classes.B`, which is not known"),
    ("y = torch", "`torch` itself as a value"),
    ("y = ops.aten", "a namespace of operators as a value"),
    ("y = print", "`print`, which is not known"),
    ("print = 1\n  print(x)", "gives `print` another meaning"),
    ("fork(x)", "`fork`, which is not known"),
    ("y = fork.x", "`fork`, which is not known"),
    ("y = [z for z in x]", "a ListComp, which torch does not write"),
    ("y = x  # a\rtorch.from_file", "control characters"),
    ("y = x  # a", "`# a`, which torch does not write"),
    ('y = b"a"', "which torch does not write"),
    ('y = """a\n"""', "a text of several lines"),
    ("y = \\\n  x", "lines that continue"),
    ('y = "\\x1b[2J"', "a text with control characters"),
    ("y = " + "(" * 101 + ")" * 101, "nested too deeply"),
    ("y = " + "-" * 101 + "1", "nested too deeply"),
    ("y = \u00e9", "not in the form that torch writes"),
    ("y = (", "not in the form that torch writes"),
])  # fmt: skip
def test_code_may_only_name_what_computes(line: str, message: str | None) -> None:
    code = f"class A(Module):\n def forward(self: __torch__.A,\n    x: Tensor) -> Tensor:\n  {line}\n".encode()
    if message is None:
        check_code(code)
        return
    with pytest.raises(UnsafeScript, match=re.escape(message)):
        check_code(code)


def test_layers_of_torch_are_known() -> None:
    """What nn and functional are made of, as scripted by the torch that runs."""
    class Layers(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.Sequential(
                torch.nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), torch.nn.BatchNorm2d(4), torch.nn.ReLU6(),
                torch.nn.GroupNorm(2, 4), torch.nn.SiLU(), torch.nn.MaxPool2d(2), torch.nn.AdaptiveAvgPool2d(4),
                torch.nn.Hardswish(), torch.nn.Dropout(0.1), torch.nn.Flatten(), torch.nn.Linear(64, 8),
                torch.nn.LayerNorm(8), torch.nn.GELU(),
            )
            self.attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, img: torch.Tensor) -> torch.Tensor:
            x = torch.nn.functional.interpolate(img.float(), [8, 8], mode="bilinear", align_corners=False)
            assert x.shape[1] == 3, f"{x.shape}"
            x = self.layers(torch.nn.functional.normalize(x, dim=1))[:, None]
            return self.attention(x, x, x)[0][:, 0]

    buffer = io.BytesIO()
    torchscript.save(torchscript.script(Layers().eval()), buffer)
    assert torchscript.load(checked_copy(buffer.getvalue()), CPU)(torch.zeros([2, 3, 16, 16])).shape == (2, 8)


def test_a_flipped_bit_is_seen(tmp_path: Path) -> None:
    path = forks.ROOT / "metrics" / "detectors" / "clothing32.pt"
    checked_copy(path.read_bytes())
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
        "endless = detector.load(detector.DetectorSpec.parse(sys.argv[1]), torch.device('cpu'))\n"
        "print(endless(torch.ones([1, 3, 8, 8])).tolist(), flush=True)\n"  # ends; the next call does not
        "endless(torch.zeros([1, 3, 8, 8]))"
    )
    done = forks.run(code, path)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == "[[1.0, 1.0, 1.0]]\n"
    assert done.stderr == "Error: detector d: not done after 2 s; it may never be\n"


def test_the_limit_ends_with_its_body() -> None:
    for _ in range(2):
        with script_safety.time_limit("d", 0.3):
            pass
    time.sleep(0.5)  # this process continues
