"""Launches compiled images through the CUDA driver's own interface, with ctypes."""
import ctypes
import functools
import os
from typing import Any

from .errors import BackendError
from .launch_config import THREADS, Launch

LIBRARY = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"


class Driver:
    """The driver's library.

    Raises:
        BackendError: there is no driver, or it does not start.
    """

    def __init__(self, path: str) -> None:
        try:
            self._lib = ctypes.CDLL(path)
        except OSError as error:
            raise BackendError(f"the CUDA driver ({path}) cannot be loaded: {error}") from error
        self.call("cuInit", 0)

    def call(self, function: str, *args: Any) -> None:
        """Calls a function that returns a CUresult.

        Raises:
            BackendError: names the function and what it says.
        """
        code = getattr(self._lib, function)(*args)
        if code != 0:
            text = ctypes.c_char_p()
            self._lib.cuGetErrorString(code, ctypes.byref(text))
            raise BackendError(f"{function}: {(text.value or b'unknown error').decode()} ({code})")

    @property
    def version(self) -> str:
        """The newest CUDA that the driver supports, such as "13.0"."""
        number = ctypes.c_int()
        self.call("cuDriverGetVersion", ctypes.byref(number))
        return f"{number.value // 1000}.{number.value % 1000 // 10}"

    def context(self, device: int) -> ctypes.c_void_p:
        """The device's primary context, which is the one that PyTorch works in."""
        handle, context = ctypes.c_int(), ctypes.c_void_p()
        self.call("cuDeviceGet", ctypes.byref(handle), device)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), handle)
        return context


@functools.cache
def load_driver() -> Driver:
    """This machine's driver."""
    return Driver(LIBRARY)


class Module:
    """An image loaded on one device; the counterpart of `library.Library`.

    Raises:
        BackendError: the driver refuses the image.
    """

    name = "nvrtc"

    def __init__(self, driver: Driver, image: bytes, device: int) -> None:
        self._driver, self._device = driver, device
        self._context = driver.context(device)
        self._module = ctypes.c_void_p()
        self._functions: dict[str, ctypes.c_void_p] = {}
        with _Current(driver, self._context):
            driver.call("cuModuleLoadData", ctypes.byref(self._module), image + b"\0")

    def check(self, device: int) -> None:
        """Checks that this is the device that the image was loaded on.

        Raises:
            BackendError: it is another one.
        """
        if device != self._device:
            raise BackendError(f"the module was loaded on GPU {self._device}, not {device}")

    def _function(self, kernel: str) -> ctypes.c_void_p:
        function = self._functions.get(kernel)
        if function is None:
            function = ctypes.c_void_p()
            self._driver.call("cuModuleGetFunction", ctypes.byref(function), self._module, kernel.encode())
            self._functions[kernel] = function
        return function

    def launch(self, launch: Launch, device: int, stream: int) -> None:
        """Queues a kernel on a stream, given by its handle, of the device."""
        kernel, grid, params = launch
        arguments = (ctypes.c_void_p * 1)(ctypes.addressof(params))
        with _Current(self._driver, self._context):
            self._driver.call(
                "cuLaunchKernel", self._function(kernel), *grid, THREADS, 1, 1, 0, ctypes.c_void_p(stream), arguments,
                None,
            )  # fmt: skip


class _Current:
    """Makes a context current for a while, unless it is already."""

    def __init__(self, driver: Driver, context: ctypes.c_void_p) -> None:
        self._driver, self._context, self._pushed = driver, context, False

    def __enter__(self) -> None:
        current = ctypes.c_void_p()
        self._driver.call("cuCtxGetCurrent", ctypes.byref(current))
        if current.value != self._context.value:
            self._driver.call("cuCtxPushCurrent_v2", self._context)
            self._pushed = True

    def __exit__(self, *exception: object) -> None:
        if self._pushed:
            self._driver.call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))
