"""What compiled CUDA kernels have to offer, however they were built, and how a launch is queued."""
from typing import Protocol

import torch

from .launch_config import Launch


class Kernels(Protocol):
    """Compiled kernels: a library or a module."""

    name: str

    def check(self, device: int) -> None:
        """Checks that the device can run them.

        Raises:
            BackendError: it cannot.
        """

    def launch(self, launch: Launch, device: int, stream: int) -> None:
        """Queues a kernel on a stream, given by its handle, of a device."""


def queue(kernels: Kernels, launch: Launch, device: torch.device) -> None:
    """Queues a kernel on the device's current stream; on the CPU, where tests run kernels, it runs at once."""
    if device.type == "cuda":
        kernels.launch(launch, device.index, torch.cuda.current_stream(device).cuda_stream)
    else:
        kernels.launch(launch, 0, 0)
