"""A headless Chromium for tests, driven through the DevTools protocol over a pipe."""
import base64
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import pytest

# WebGPU computed by the processor, where the browser brings the library for that.
SOFTWARE_WEBGPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan",
                   "--use-vulkan=swiftshader", "--use-angle=swiftshader")
NAMES = ("chromium", "chromium-browser", "google-chrome")


def require() -> str:
    """The path of a Chromium; without one the test is skipped."""
    for name in NAMES:
        path = shutil.which(name)
        if path is not None:
            return path
    pytest.skip(f"no browser here: none of {', '.join(NAMES)} is installed")


def _raised(descriptor: int) -> int:
    """The same file under a number that the browser's own, 3 and 4, cannot hit."""
    higher = fcntl.fcntl(descriptor, fcntl.F_DUPFD, 10)
    os.close(descriptor)
    return higher


class Page:
    """One page of a browser of its own.

    Args:
        width, height: of the page in px.
        gpu: flags of the browser for graphics; none by default.

    Attributes:
        errors: what the console and exceptions said.
        requests: URLs that the page asked for.
    """

    def __init__(self, width: int = 1000, height: int = 800, gpu: Sequence[str] = ("--disable-gpu",)) -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_browser, from_browser = os.pipe(), os.pipe()
        flags = ["--headless", "--no-sandbox", *gpu, "--remote-debugging-pipe", "--disable-dev-shm-usage",
                 "--disable-background-networking", "--no-first-run", "--hide-scrollbars",
                 f"--user-data-dir={self._folder.name}", f"--window-size={width},{height}"]
        ends = [_raised(to_browser[0]), _raised(from_browser[1])]
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$0" "$@" 3<&{ends[0]} 4>&{ends[1]}', require(), *flags, "about:blank"],
            pass_fds=ends, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": self._folder.name}, start_new_session=True,
        )
        for end in ends:
            os.close(end)
        self._write, self._read = os.fdopen(to_browser[1], "wb"), os.fdopen(from_browser[0], "rb", buffering=0)
        self._rest, self._count = b"", 0
        self._session: str | None = None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def __enter__(self) -> "Page":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        self._write.close()
        self._read.close()
        self._folder.cleanup()

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Calls a method of the protocol."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        self._write.write(json.dumps(message).encode() + b"\0")
        self._write.flush()
        while True:
            result = self._receive()
            if result.get("id") == self._count:
                assert "error" not in result, f"{method}: {result['error']}"
                return result["result"]
            self._note(result)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            block = self._read.read(1 << 20)
            assert block, "the browser has ended"
            self._rest += block
        text, _, self._rest = self._rest.partition(b"\0")
        return json.loads(text)

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.errors.append(str(params["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "assert", "warning"):
                self.errors.append(str(params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.errors.append(str(params["entry"]))
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])

    def run(self, program: str) -> Any:
        """The value of a JavaScript expression, once its promise is kept."""
        result = self.send("Runtime.evaluate", expression=program, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def open(self, url: str) -> None:
        """Goes to a page."""
        self.send("Page.navigate", url=url)

    def wait(self, condition: str, timeout_sec: float = 120) -> None:
        """Waits until a JavaScript expression is true."""
        end = time.monotonic() + timeout_sec
        while not self.run(condition):
            assert time.monotonic() < end, f"{condition} never came true; errors: {self.errors}"
            time.sleep(0.1)

    def processor_seconds(self) -> float:
        """The processor time that the browser and its processes have taken so far."""
        browser = psutil.Process(self._process.pid)
        times = [process.cpu_times() for process in (browser, *browser.children(recursive=True))]
        return sum(time.user + time.system for time in times)

    def screenshot(self, path: Path | None = None) -> bytes:
        """What the page looks like, as PNG."""
        image = base64.b64decode(self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"])
        if path is not None:
            path.write_bytes(image)
        return image
