"""Regions of interest: mask images of every mode, functions of the user's, and what is wrong with either."""
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from dgl import roi
from dgl.architectures import plan_of
from dgl.scores import content
from dgl.scores.registry import ScoreOptions, compute
from dnnlib.errors import UserError
from tests import forks, tiny

IMAGE = torch.zeros([1, 3, 16, 16])


def corner(dtype: Any, value: float) -> np.ndarray:
    pixels = np.zeros([16, 16], dtype=dtype)
    pixels[:4, :4] = value
    return pixels


def score(function: Any) -> dict[str, torch.Tensor]:
    G = tiny.tiny_generator()
    return compute("content", G, plan_of(G), ScoreOptions(num_samples=2, roi=function))


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a module of the user's into the current directory and gives its name."""
    monkeypatch.chdir(tmp_path)

    def write(source: str) -> str:
        name = f"masks_{len(sys.modules)}_{abs(hash((str(tmp_path), source)))}"
        (tmp_path / f"{name}.py").write_text(source)
        return name

    return write


# ----------------------------------------------------------------------------------------------------------------------
# Masks


def test_only_the_region_of_interest_counts(tmp_path: Path) -> None:
    """With a mask over one corner, only the constant of channels seen there matters: noise falls nowhere else."""
    PIL.Image.fromarray(corner(np.uint8, 255)).save(tmp_path / "mask.png")
    options = ScoreOptions(roi=roi.load(str(tmp_path / "mask.png"), (16, 16)))
    noise = sum(
        content._noise(IMAGE, content._inside(IMAGE, options), torch.Generator().manual_seed(seed)).abs()
        for seed in range(60)
    )
    assert isinstance(noise, torch.Tensor)
    assert (noise[..., :4, :4] > 0).any()
    assert not noise[..., 4:, :].any()
    assert not noise[..., :, 4:].any()


def with_alpha(mode: str) -> PIL.Image.Image:
    """White everywhere, opaque in the corner."""
    white = np.full([16, 16, len(mode)], 255, dtype=np.uint8)
    white[..., -1] = corner(np.uint8, 255)
    return PIL.Image.fromarray(white, mode)


PICTURES: dict[str, Callable[[], PIL.Image.Image]] = {
    "8 bits": lambda: PIL.Image.fromarray(np.maximum(corner(np.uint8, 128), 127).astype(np.uint8)),
    "1 bit": lambda: PIL.Image.fromarray(corner(bool, 1)),
    "palette": lambda: PIL.Image.fromarray(corner(np.uint8, 255)).convert("P"),
    "colour": lambda: PIL.Image.fromarray(corner(np.uint8, 255)).convert("RGB"),
    "16 bits": lambda: PIL.Image.fromarray(np.maximum(corner(np.uint16, 32768), 32767).astype(np.uint16)),
    "colour and alpha": lambda: with_alpha("RGBA"),
    "grey and alpha": lambda: with_alpha("LA"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_mask_is_what_is_bright_and_not_transparent(name: str, tmp_path: Path) -> None:
    PICTURES[name]().save(tmp_path / "mask.png")
    assert torch.equal(roi.load(str(tmp_path / "mask.png"), (16, 16))(IMAGE), torch.from_numpy(corner(bool, 1)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{tmp}/none.png", "none.png cannot be read as an image"),
        ("{tmp}/small.png", r"small.png is 8x8, the network's images are 16x16"),
        ("{tmp}/black.png", "has no bright pixel"),
        ("nonsense", "expected MASK.png or MODULE:FUNCTION, found 'nonsense'"),
        (":f", "expected MASK.png or MODULE:FUNCTION, found ':f'"),
        ("math:", "expected MASK.png or MODULE:FUNCTION, found 'math:'"),
        (".a:f", r"\.a in '\.a:f' is a relative name; give the module's full name"),
        ("no_such_module_at_all:f", "cannot be imported"),
        ("math:no_such_function", "cannot be imported"),
        ("math:pi", "math:pi is no function but a float"),
    ],
)
def test_bad_regions_are_named(text: str, message: str, tmp_path: Path) -> None:
    for name, side, value in (("small", 8, 255), ("black", 16, 0)):
        PIL.Image.fromarray(np.full([side, side], value, dtype=np.uint8)).save(tmp_path / f"{name}.png")
    with pytest.raises(UserError, match=f"^roi: .*{message}"):
        roi.load(text.format(tmp=tmp_path), (16, 16))


# ----------------------------------------------------------------------------------------------------------------------
# Functions


def bright(img: torch.Tensor) -> torch.Tensor:
    """A region of interest as a user would write it."""
    return img.mean(dim=1)[0] > 0


def test_a_function_can_be_the_region_of_interest() -> None:
    function = roi.load(f"{__name__}:bright", (16, 16))
    img = tiny.images(1)
    assert torch.equal(function(img), bright(img))
    assert not torch.equal(score(None)["b8.conv0"], score(function)["b8.conv0"])


@pytest.mark.parametrize(
    "result",
    ["img[0, 0].numpy() > 0", "(img[0, 0].numpy() > 0)[::-1][::-1]", "(img[0, 0] > 0).tolist()", "img[:, :1] > 0",
     "(img[0, 0] > 0).float()", "(img[0, 0] > 0).byte() * 255", "(img[0, 0].numpy() > 0).astype('uint16')"],
)
def test_masks_of_every_kind_are_taken(result: str, module: Callable[[str], str]) -> None:
    function = roi.load(f"{module(f'def f(img):{chr(10)}    return {result}')}:f", (16, 16))
    img = tiny.images(1)
    actual = function(img)
    assert (actual.dtype, actual.shape) == (torch.bool, (16, 16))
    assert torch.equal(actual, img[0, 0] > 0)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def f(img:", r"cannot be imported \(SyntaxError"),
        ("raise KeyError('x')", r"cannot be imported \(KeyError: 'x'\)"),
        ("raise SystemExit(3)", r"cannot be imported \(SystemExit: 3\)"),
    ],
)
def test_modules_that_cannot_be_imported_are_named(source: str, message: str, module: Callable[[str], str]) -> None:
    with pytest.raises(UserError, match=f"^roi: masks_.*:f {message}"):
        roi.load(f"{module(source)}:f", (16, 16))


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("1 / 0", r"failed on an image of shape \[1, 3, 16, 16\] \(ZeroDivisionError: division by zero\)$"),
        ("img[0, 0, :8]", r"expected a mask of shape \[16, 16\], found \[8, 16\]"),
        ("img[0]", r"expected a mask of shape \[16, 16\], found \[3, 16, 16\]"),
        ("True", r"expected a mask of shape \[16, 16\], found \[\]"),
        ("None", r"expected a mask of shape \[16, 16\], tensor or array, found a NoneType"),
        ("img[0, 0].numpy().astype(object)", "expected a mask .*, tensor or array, found a ndarray"),
        ("img[0, 0]", "expected a mask .* of True and False, found float32 values; compare them with a threshold"),
        ("img[0, 0] * 1j", "expected a mask .* of True and False, found complex64 values"),
    ],
)
def test_results_that_are_no_masks_are_named(result: str, message: str, module: Callable[[str], str]) -> None:
    function = roi.load(f"{module(f'def f(img):{chr(10)}    return {result}')}:f", (16, 16))
    with pytest.raises(UserError, match=f"^roi: masks_.*:f:? {message}"):
        function(tiny.images(1))


def test_a_region_that_is_always_empty_is_refused(module: Callable[[str], str]) -> None:
    function = roi.load(f"{module('def f(img):' + chr(10) + '    return img[0, 0] > 1e9')}:f", (16, 16))
    with pytest.raises(UserError, match=r"^roi: the region of interest is empty in each of the 2 images"):
        score(function)


def test_a_region_may_be_empty_in_some_images() -> None:
    masks = iter([torch.zeros([16, 16], dtype=torch.bool), torch.ones([16, 16], dtype=torch.bool)])
    assert (score(lambda img: next(masks))["b8.conv0"] > 0).any()


def test_the_current_directory_is_searched_and_the_search_path_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "masks.py").write_text("def f(img):\n    import helper\n    return helper.all(img)\n")
    (tmp_path / "helper.py").write_text("def all(img):\n    return img[0, 0] == 0\n")
    code = ("import os, sys, torch\nfrom dgl import roi\nbefore = list(sys.path)\n"
            "assert not {'', os.getcwd()} & {*before}\n"
            "assert roi.load('masks:f', (4, 4))(torch.zeros([1, 3, 4, 4])).all()\n"
            "assert sys.path == before\n")
    done = forks.run(code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
