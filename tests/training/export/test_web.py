"""The page in a real browser: its images are Python's, its controls work, and it asks nobody for anything."""
import base64
import functools
import http.server
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from dnnlib.cli import seed_latents
from dnnlib.errors import UserError
from tests import browser, tiny
from training.data.images import truncated
from training.export import web, web_runtime

PSI = 0.5


@pytest.fixture(scope="module")
def generators() -> dict[str, Any]:
    sides = {"teacher": 8, "student": 4}
    return {name: tiny.tiny_generator(resolution=side, c_dim=2) for name, side in sides.items()}


@pytest.fixture(scope="module")
def exported(generators: dict[str, Any]) -> dict[str, Any]:
    for name in ("onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="the extra [export] is not installed")
    browser.require()
    if web_runtime.cached() is None:
        pytest.skip(f"onnxruntime-web {web_runtime.VERSION} is not in the cache; "
                    "training.export.web_runtime.fetch() gets it from npm")
    return {name: web.network_files(G, name, "float32") for name, G in generators.items()}


@pytest.fixture(scope="module")
def page(
    generators: dict[str, Any], exported: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[browser.Page]:
    path = tmp_path_factory.mktemp("web") / "page.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(web, "network_files", lambda G, name, *_: exported[name])
        web.write(generators, path, "</script><b>tiny & \"small\"", "float32")
    with browser.Page(width=360, height=640) as opened:
        opened.open(path.as_uri())
        opened.wait("document.body?.dataset.ready === '1'")
        yield opened
        assert opened.errors == []
        assert {url.split(":")[0] for url in opened.requests} <= {"file", "blob", "data"}


def drawn(page: browser.Page) -> list[np.ndarray]:
    """The RGB images that the page shows."""
    sides = page.run("[...document.querySelectorAll('canvas')].map(canvas => canvas.width)")
    pixels = page.run("[...document.querySelectorAll('canvas')].map(canvas => Array.from("
                      "canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data))")
    return [np.array(part).reshape(side, side, 4)[..., :3] for part, side in zip(pixels, sides)]


def set_fields(page: browser.Page, **values: object) -> list[np.ndarray]:
    """Sets inputs as a user does, one after the other, and returns the images that follow."""
    for name, value in values.items():
        before = page.run("document.body.dataset.drawn")
        field = f"document.getElementById('{name}')"
        page.run(f"{field}.value = '{value}'; {field}.dispatchEvent(new Event('input', {{bubbles: true}}))")
        page.wait(f"document.body.dataset.drawn !== '{before}'")
    return drawn(page)


def expected(G: Any, seed: int, label: int = 0, psi: float = 1.0, other: int = 1, layer: int = 99) -> np.ndarray:
    c = torch.eye(2)[[label]]
    ws, mixed = (G.mapping(torch.from_numpy(seed_latents([n], G.z_dim)), c, truncation_psi=psi) for n in (seed, other))
    ws[:, layer:] = mixed[:, layer:]
    return truncated(G.synthesis(ws, noise_mode="const"))[0].astype(int)


def assert_alike(actual: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    for image, reference in zip(actual, wanted, strict=True):
        assert np.abs(image - reference).mean() <= 1
        assert np.abs(image - reference).max() <= 2


def test_images_are_those_of_python(page: browser.Page, generators: dict[str, Any]) -> None:
    for seed, label in ((0, 0), (4294967295, 1), (17, 1)):
        actual = set_fields(page, seed=seed, **{"class": label})
        assert_alike(actual, [expected(G, seed, label) for G in generators.values()])
    assert page.run("document.getElementById('status').textContent").startswith("Computed in this browser, by Web")
    assert page.run("document.querySelector('h1').textContent") == "</script><b>tiny & \"small\""
    captions = page.run("[...document.querySelectorAll('figcaption')].map(item => item.textContent)")
    assert [caption.split(":")[0] for caption in captions] == ["teacher", "student"]
    assert all(caption.endswith(" ms") for caption in captions)


def test_a_label_of_several_numbers(page: browser.Page, generators: dict[str, Any]) -> None:
    """Numbers with commas are the label itself; one is a class."""
    z = torch.from_numpy(seed_latents([9], 16))
    for text, label in (("0.25,0.75", [0.25, 0.75]), ("1", [0.0, 1.0]), ("9", [0.0, 1.0])):
        actual = set_fields(page, seed=9, **{"class": text})
        wanted = [truncated(G(z, torch.tensor([label]), noise_mode="const"))[0].astype(int)
                  for G in generators.values()]
        assert_alike(actual, wanted)
    assert page.run("document.getElementById('class-text').textContent") == "Class 0 to 1, or weights of all of them"


def test_truncation_and_style_mixing(page: browser.Page, generators: dict[str, Any]) -> None:
    top = page.run("document.getElementById('layer').max")
    actual = set_fields(page, seed=3, psi=PSI, **{"class": 0})
    assert_alike(actual, [expected(G, 3, 0, PSI) for G in generators.values()])
    actual = set_fields(page, other=8, layer=1)
    assert_alike(actual, [expected(G, 3, 0, PSI, 8, 1) for G in generators.values()])
    set_fields(page, psi=1, layer=top)


def test_buttons(page: browser.Page, generators: dict[str, Any]) -> None:
    set_fields(page, seed=5, **{"class": 0})
    for button, seed in (("next", 6), ("previous", 5)):
        before = page.run("document.body.dataset.drawn")
        page.run(f"document.getElementById('{button}').click()")
        page.wait(f"document.body.dataset.drawn !== '{before}'")
        assert page.run("document.getElementById('seed').value") == str(seed)
    page.run("document.getElementById('download').click()")
    address = page.run("document.body.dataset.downloaded")  # of the student
    image = PIL.Image.open(io.BytesIO(base64.b64decode(address.removeprefix("data:image/png;base64,"))))
    assert_alike([np.asarray(image.convert("RGB")).astype(int)], [expected(generators["student"], 5)])
    page.run("document.getElementById('walk').click()")
    page.wait("Number(document.getElementById('seed').value) > 5")
    assert page.run("document.getElementById('walk').getAttribute('aria-pressed')") == "true"
    page.run("document.getElementById('walk').click()")
    assert page.run("document.getElementById('walk').getAttribute('aria-pressed')") == "false"


def test_phones_and_keyboards(page: browser.Page, tmp_path: Path) -> None:
    assert page.run("document.documentElement.scrollWidth") <= 360
    reached = set()
    page.run("document.activeElement.blur()")
    for _ in range(12):
        for kind in ("keyDown", "keyUp"):
            page.send("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        reached.add(page.run("document.activeElement.id"))
    assert reached >= {"seed", "previous", "next", "walk", "download", "class", "psi", "other", "layer"}
    picture = np.asarray(PIL.Image.open(io.BytesIO(page.screenshot(tmp_path / "page.png"))).convert("L"))
    assert picture.std() > 10


def test_a_browser_without_simd_gets_a_message(page: browser.Page) -> None:
    address = page.run("location.href")
    with browser.Page() as other:
        other.send("Page.addScriptToEvaluateOnNewDocument", source="WebAssembly.validate = () => false")
        other.open(address)
        other.wait("document.body?.dataset.ready === '1'")
        assert other.run("document.getElementById('status').textContent").startswith(
            "This browser has no WebAssembly SIMD, which the page needs")


BROKEN_GPUS = {
    "this browser has no WebGPU": "undefined",
    "its WebGPU does not work (no device)": "{requestAdapter: async () => ({features: new Set(), limits: {}, info: {}, "
                                            "requestDevice: async () => { throw new Error('no device'); }})}",
}


@pytest.mark.parametrize("reason", BROKEN_GPUS)
def test_without_webgpu_images_come_from_webassembly(
    reason: str, page: browser.Page, generators: dict[str, Any]
) -> None:
    address = page.run("location.href")
    with browser.Page() as other:
        other.send("Page.addScriptToEvaluateOnNewDocument",
                   source=f"Object.defineProperty(navigator, 'gpu', {{value: {BROKEN_GPUS[reason]}}})")
        other.open(address)
        other.wait("document.body?.dataset.ready === '1'")
        message = other.run("document.getElementById('status').textContent")
        assert message.startswith(f"Computed in this browser, by WebAssembly: {reason}")
        assert_alike(drawn(other), [expected(G, 0) for G in generators.values()])


@pytest.mark.slow
def test_webgpu(page: browser.Page, generators: dict[str, Any]) -> None:
    address = page.run("location.href")
    with browser.Page(gpu=browser.SOFTWARE_WEBGPU) as other:
        other.open(address)
        other.wait("document.body?.dataset.ready === '1'", 200)
        if not other.run("navigator.gpu ? navigator.gpu.requestAdapter().then(found => !!found) : false"):
            pytest.skip("this browser has no WebGPU that a processor computes")
        assert other.run("document.getElementById('status').textContent") == "Computed in this browser, by WebGPU."
        assert_alike(drawn(other), [expected(G, 0) for G in generators.values()])
        assert [error for error in other.errors if "W:onnxruntime" not in error] == []


def test_a_folder_for_a_server(generators: dict[str, Any], exported: dict[str, Any], tmp_path: Path,
                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "network_files", lambda G, name, *_: exported[name])
    web.write({"student": generators["student"]}, tmp_path / "site", "site")
    assert {item.name for item in (tmp_path / "site").iterdir()} == {
        "index.html", "runtime.mjs", "runtime.wasm", "student-mapping.onnx", "student-image.onnx"}
    handler = functools.partial(_Quiet, directory=str(tmp_path / "site"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with browser.Page() as page:
            page.open(f"http://127.0.0.1:{server.server_port}/")
            page.wait("document.body?.dataset.ready === '1'")
            assert_alike(drawn(page), [expected(generators["student"], 0)])
            assert page.errors == []
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


def test_a_teacher_of_other_latents_is_refused(generators: dict[str, Any], tmp_path: Path) -> None:
    teacher = tiny.tiny_generator(resolution=4)
    with pytest.raises(UserError, match=r"teacher: expected the network's z_dim, c_dim \(16, 2\), found \(16, 0\)"):
        web.write({"teacher": teacher, "student": generators["student"]}, tmp_path / "page.html", "page")
    assert list(tmp_path.iterdir()) == []


def test_the_runtime_can_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "dist").mkdir()
    for file in web_runtime.FILES.values():
        (tmp_path / "dist" / file).write_text(file)
    result = web_runtime.runtime_files(tmp_path)
    assert result == {name: file.encode() for name, file in web_runtime.FILES.items()}
    with pytest.raises(UserError, match=r"runtime: expected the package onnxruntime-web in .*, found no ort"):
        web_runtime.runtime_files(tmp_path / "dist" / "none")


@pytest.mark.parametrize(("script", "message"), [
    (None, "install npm, or unpack the package onnxruntime-web and name its folder as `runtime`"),
    ("echo 'no network' >&2; exit 1", r"npm cannot fetch onnxruntime-web .* \(no network\); try again, or unpack"),
    (f"echo evil > onnxruntime-web-{web_runtime.VERSION}.tgz", "has the sha256 .*, expected .*; nothing was kept"),
])
def test_npm_that_does_not_deliver(
    script: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "cache"))
    npm = tmp_path / "npm"
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(0o755)
    monkeypatch.setattr(web_runtime.shutil, "which", lambda name: str(npm) if script else None)
    with pytest.raises(UserError, match=message):
        web_runtime.fetch()
    assert not (tmp_path / "cache").exists()
