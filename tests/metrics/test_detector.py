import hashlib
import io
import re
import warnings
import zipfile
from pathlib import Path

import pytest
import torch

from dnnlib.errors import UrlError
from metrics import detector as detector_module
from metrics.detector import INCEPTION, VGG16, DetectorError, DetectorSpec, DetectorUnavailable, choose, load
from tests.metrics.toys import write_detector

CPU = torch.device("cpu")


def test_parse():
    digest = "AB" * 32
    assert DetectorSpec.parse("a/b.pt") == DetectorSpec("a/b.pt")
    assert DetectorSpec.parse(f"https://x.org/b.pt#sha256={digest}") == DetectorSpec("https://x.org/b.pt", "ab" * 32)
    with pytest.raises(DetectorError, match=r"b\.pt#sha256=12: expected 64 hexadecimal digits .*, found '12'"):
        DetectorSpec.parse("b.pt#sha256=12")


@pytest.mark.parametrize("source", ["clothing32.pt", "a/clothing32.pt", "c:\\a\\clothing32.pt", "https://x.org/clothing32.pt"])
def test_name(source):
    assert DetectorSpec(source).name == "clothing32"


def test_choose():
    own_inception = "/mirror/inception-2015-12-05.pt"
    assert choose(INCEPTION, []) == INCEPTION
    assert choose(INCEPTION, ["toy.pt"]).source == "toy.pt"
    assert choose(INCEPTION, ["toy.pt", own_inception]).source == own_inception
    assert choose(VGG16, ["toy.pt", own_inception]).source == "toy.pt"
    assert choose(VGG16, [own_inception]) == VGG16  # an Inception network does not stand in for VGG16


def test_identity_is_the_content(toy_detector):
    loaded = load(DetectorSpec(toy_detector), CPU)
    assert loaded.name == "toy"
    assert loaded.sha256 == hashlib.sha256(Path(toy_detector).read_bytes()).hexdigest()
    assert load(DetectorSpec(toy_detector, loaded.sha256), CPU).sha256 == loaded.sha256


def test_loaded_once_until_the_file_changes(tmp_path):
    path = write_detector(tmp_path / "d.pt", seed=0)
    first = load(DetectorSpec(path), CPU)
    assert load(DetectorSpec(path), CPU, verbose=True) is first
    write_detector(tmp_path / "d.pt", seed=1)
    assert load(DetectorSpec(path), CPU).sha256 != first.sha256


def test_call_forms(toy_detector):
    loaded = load(DetectorSpec(toy_detector), CPU)
    grey = torch.randint(0, 256, [3, 1, 20, 20], dtype=torch.uint8)
    colour = grey.repeat([1, 3, 1, 1])
    for mode in ({"return_features": True}, {"no_output_bias": True}, {"resize_images": False, "return_lpips": True}):
        assert torch.equal(loaded(grey, **mode), loaded(colour, **mode))


def test_missing_file(tmp_path):
    path = tmp_path / "none.pt"
    expected = rf"detector {re.escape(str(path))}: no such file; pass a TorchScript file as `detector=PATH`"
    with pytest.raises(DetectorUnavailable, match=expected):
        load(DetectorSpec(str(path)), CPU)


def test_offline(monkeypatch):
    def offline(url, **_):
        raise UrlError(f"URL {url} could not be read: no connection; download it and pass the local path")

    monkeypatch.setattr(detector_module, "open_url", offline)
    with pytest.raises(
        DetectorUnavailable,
        match=r"detector inception-2015-12-05: URL https://.* could not be read: .* local path, as `detector=PATH`$",
    ):
        load(INCEPTION, CPU)


def test_other_content_than_pinned(toy_detector):
    with pytest.raises(DetectorError, match=rf"toy\.pt: expected sha256 {'0' * 64}, found [0-9a-f]{{64}}"):
        load(DetectorSpec(toy_detector, "0" * 64), CPU)


@pytest.mark.parametrize("content", [b"", b"not a network", b"PK\x05\x06" + bytes(18)])
def test_not_torchscript(tmp_path, content):
    path = tmp_path / "bad.pt"
    path.write_bytes(content)
    with pytest.raises(DetectorError, match=r"bad\.pt: not a TorchScript file that torch can load: \S") as caught:
        load(DetectorSpec(str(path)), CPU)
    assert "\n" not in str(caught.value)


def test_pickled_detector_is_refused(tmp_path):
    path = tmp_path / "vgg16.pkl"
    path.write_bytes(b"")
    expected = r"vgg16\.pkl: is a Python pickle, which would have to be executed; .*vgg16\.pt$"
    with pytest.raises(DetectorError, match=expected):
        load(DetectorSpec(str(path)), CPU)
    with pytest.raises(DetectorError, match=r"mine\.pkl: is a Python pickle, .* executed; pass a TorchScript file$"):
        load(DetectorSpec(str(tmp_path / "mine.pkl")), CPU)


class OnlyFeatures(torch.nn.Module):
    def forward(self, img: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        return img if return_features else img.float().mean(dim=[2, 3])


def test_call_form_that_the_detector_lacks(tmp_path):
    from metrics import torchscript

    path = tmp_path / "plain.pt"
    with open(path, "wb") as file:
        torchscript.save(torchscript.script(OnlyFeatures()), file)
    plain = load(DetectorSpec(str(path)), CPU)
    images = torch.zeros([2, 3, 4, 4])
    with pytest.raises(DetectorError, match="plain: does not know the option return_lpips, which this metric needs"):
        plain(images, return_lpips=True)
    with pytest.raises(DetectorError, match=r"plain: expected a result of shape \[2, F\], found \[2, 3, 4, 4\]"):
        plain(images, return_features=True)


def test_a_detector_file_does_not_tell_where_its_source_lay(tmp_path):
    """So that its digest is the same wherever it is made."""
    from metrics import torchscript

    module, usual, path = torchscript.script(OnlyFeatures()), io.BytesIO(), tmp_path / "plain.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(module, usual)
    with open(path, "wb") as file:
        torchscript.save(module, file)
    place = __file__.encode()
    with zipfile.ZipFile(usual) as archive:
        assert any(place in archive.read(name) for name in archive.namelist())
    with zipfile.ZipFile(path) as archive:
        assert not any(place in archive.read(name) for name in archive.namelist())
    images = torch.arange(24.0).reshape(1, 2, 3, 4)
    torch.testing.assert_close(torchscript.load(path.read_bytes(), CPU)(images), images.mean(dim=[2, 3]))
