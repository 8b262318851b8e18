"""Whether networks and batches fit into the memory of this machine, before either is allocated."""
from collections.abc import Mapping

import psutil
import torch

from dnnlib.errors import UserError
from torch_utils.tensor_budget import OverBudget, TensorBudget

from ..architectures import NETWORKS
from ..data.dataset import Dataset
from ..run_config import Component, RunConfig

_MAX_TENSORS = 10_000  # of a network; the largest published ones have a few hundred
_BYTES_PER_WEIGHT = 12  # the weight and Adam's two moments, float32


def network_sizes(dataset: Dataset) -> dict[str, int]:
    """Arguments of networks that follow from the data set."""
    return {"img_resolution": dataset.resolution, "img_channels": dataset.num_channels, "c_dim": dataset.label_dim}


def check(config: RunConfig, dataset: Dataset, device: torch.device) -> None:
    """Refuses what cannot be trained here, so that no file can fill the memory of the machine that resumes it.

    Raises:
        UserError: the networks or the images of an iteration do not fit; the message names the key in the options.
    """
    check_networks({"G_kwargs": config.networks.G, "D_kwargs": config.networks.D}, network_sizes(dataset), device)
    num_images = config.schedule.batch_size * config.optimizers.D_steps // config.machine.num_gpus
    check_batches(num_images, dataset.image_shape, device)


def check_networks(networks: Mapping[str, Component], sizes: Mapping[str, int], device: torch.device) -> None:
    """Constructs networks without memory for their tensors, and compares what these would take with what there is.

    Args:
        networks: key in the options → class and arguments.
        sizes: further arguments, from the data set.
        device: that trains them.

    Raises:
        UserError: their training does not fit into the memory; the message names the key.
    """
    memory = _memory(device)
    weights = memory // _BYTES_PER_WEIGHT
    for key, network in networks.items():
        for name, size in sizes.items():
            if network.arguments.get(name, size) != size:
                raise UserError(f"{key}: expected {name}={size}, as the data set has it, found "
                                f"{network.arguments[name]!r:.80}")
        budget = TensorBudget(weights, _MAX_TENSORS)
        try:
            with torch.device("meta"), budget:
                NETWORKS.call(network.name, {**network.arguments, **sizes})
        except OverBudget as error:
            raise UserError(f"{key}: a network of {error} cannot be trained in the {memory / 2**30:,.1f} GiB of memory "
                            "that there are; make it smaller") from None
        weights -= budget.used


def check_batches(num_images: int, image_shape: list[int], device: torch.device) -> None:
    """Compares what the images of one iteration take with the memory that there is.

    Args:
        num_images: images per iteration and process.
        image_shape: [C, H, W].
        device: that trains.

    Raises:
        UserError: they do not fit.
    """
    channels, height, width = image_shape
    memory, needed = _memory(device), num_images * channels * height * width * 4
    if needed > memory:
        raise UserError(f"batch_size: {num_images:,} images per iteration take {needed / 2**30:,.1f} GiB, but there "
                        f"are {memory / 2**30:,.1f} GiB of memory; use smaller batches")


def _memory(device: torch.device) -> int:
    """Bytes of memory of a device."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total)
