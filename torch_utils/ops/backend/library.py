"""Launches kernels through a shared library with the plain C interface of csrc/launcher.cu."""
import ctypes
from pathlib import Path

from .errors import BackendError
from .launch_config import Launch


class Library:
    """A loaded library. `name` is how messages call it.

    Raises:
        BackendError: the file cannot be loaded, or its structures are not ours.
    """

    def __init__(self, path: Path, name: str = "ninja") -> None:
        self.name = name
        try:
            self._lib = ctypes.CDLL(str(path))
        except OSError as error:
            raise BackendError(f"{path} cannot be loaded: {error}") from error
        self._lib.sg_kernel_name.restype = self._lib.sg_error_text.restype = ctypes.c_char_p
        self._launch = self._lib.sg_launch
        self._launch.argtypes = [ctypes.c_int, *[ctypes.c_uint] * 3, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
        count = self._lib.sg_num_kernels()
        self._index = {self._lib.sg_kernel_name(i).decode(): i for i in range(count)}

    @property
    def kernels(self) -> list[str]:
        """The names of the kernels that it holds."""
        return list(self._index)

    def params_size(self, kernel: str) -> int:
        """What the library takes to be the size of a kernel's arguments."""
        return self._lib.sg_params_size(self._index[kernel])

    def check(self, device: int) -> None:
        """Checks that the library has code that the device can run.

        Raises:
            BackendError: it has none.
        """
        self._raise_if(self._lib.sg_check(device))

    def launch(self, launch: Launch, device: int, stream: int) -> None:
        """Queues a kernel on a stream, given by its handle, of a device."""
        kernel, grid, params = launch
        self._raise_if(self._launch(self._index[kernel], *grid, ctypes.addressof(params), device, stream))

    def _raise_if(self, code: int) -> None:
        if code != 0:
            raise BackendError(f"CUDA error {code}: {self._lib.sg_error_text(code).decode()}")
