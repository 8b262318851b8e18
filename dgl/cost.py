"""Costs of a network: parameters, multiply-accumulates by two conventions, memory, file size, measured latency.

`python -m dgl.cost NETWORK...` prints it for every generator and discriminator in network pickles.
"""
import copy
import dataclasses
import pickle
import statistics
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from dnnlib.cli import Command, device_option, trust_pickle_option

if TYPE_CHECKING:
    import torch

    from torch_utils.network_types import Network

MEASURING_SEC = 3.0  # per network and batch size, about
MAX_BATCH_BYTES = 2**29  # of the largest layer's activations; a larger batch of eight is not measured


@dataclasses.dataclass(frozen=True)
class Cost:
    """The costs of one network. `None`: not measured."""

    name: str
    params: int  # exact
    macs_in: int  # per image; an up-convolution counts at its input resolution
    macs_out: int  # per image; every convolution counts at its output resolution
    activation_bytes: int  # largest sum of a layer's inputs and outputs for one image in float32
    file_bytes: int  # of a pickle with this network alone
    ms_batch1: float | None  # median milliseconds per image, one image at a time
    ms_batch8: float | None  # the same in batches of eight, where memory and minibatch statistics allow them


def measure(name: str, network: "Network", device: str = "cpu", latency: bool = True) -> Cost:
    """Counts and measures one network.

    Args:
        name: what to call it.
        network: generator or discriminator.
        device: where to measure the latency.
        latency: whether to measure it at all.
    """
    from .architectures import costs_of

    layers = costs_of(network)
    activation_bytes = _activation_bytes(network)
    fits = 8 * activation_bytes <= MAX_BATCH_BYTES
    times = [
        milliseconds_per_image(network, device, batch) if latency and _takes(network, batch) else None
        for batch in ([1, 8] if fits else [1])
    ]
    return Cost(
        name=name,
        params=sum(p.numel() for p in network.parameters()),
        macs_in=sum(layer.macs_in for layer in layers),
        macs_out=sum(layer.macs_out for layer in layers),
        activation_bytes=activation_bytes,
        file_bytes=_pickle_bytes(network),
        ms_batch1=times[0],
        ms_batch8=times[1] if fits else None,
    )


def _takes(network: "Network", batch: int) -> bool:
    """Whether a batch is a multiple of the groups over which a discriminator takes statistics."""
    mbstd = getattr(getattr(network, "b4", None), "mbstd", None)
    group = None if mbstd is None else mbstd.group_size
    return group is None or batch % min(group, batch) == 0


def _inputs(network: Any, batch: int, device: str) -> list[Any]:
    import torch

    from torch_utils.network_types import image_size

    c = torch.zeros([batch, network.c_dim], device=device)
    if hasattr(network, "z_dim"):
        return [torch.zeros([batch, network.z_dim], device=device), c]
    return [torch.zeros([batch, network.img_channels, *image_size(network)], device=device), c]


def milliseconds_per_image(network: "Network", device: str, batch: int) -> float:
    """Median over repeated runs, after one that is not counted."""
    import torch

    net = _copy_on(network, device)
    inputs = _inputs(net, batch, device)

    def run() -> float:
        start = time.perf_counter()
        net(*inputs)
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    with torch.no_grad():
        first = run()
        count = int(min(max(MEASURING_SEC / max(first, 1e-4), 1), 30))
        return statistics.median(run() for _ in range(count)) * 1e3 / batch


def _copy_on(network: "Network", device: str) -> Any:
    """A copy in eval mode, without gradients, that shares the memory of tensors which are on that device already."""
    import torch

    memo: dict[int, Any] = {}
    for parameter in network.parameters():
        memo[id(parameter)] = torch.nn.Parameter(parameter.detach().to(device), requires_grad=False)
    for buffer in network.buffers():
        memo[id(buffer)] = buffer.detach().to(device)
    return copy.deepcopy(network, memo).eval()


class _Counter(pickle.Pickler):
    """Counts the bytes of a pickle, and keeps none of the tensors: a pickler remembers all that it has written."""

    def __init__(self) -> None:
        super().__init__(self, protocol=4)
        self.num_bytes = 0

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self.num_bytes += size
        return size

    def reducer_override(self, obj: object) -> Any:
        """A large storage is written as a short one; what is left out is counted."""
        import torch

        if not isinstance(obj, torch.TypedStorage):
            return NotImplemented
        function, (blob,) = obj.__reduce__()
        self.num_bytes += max(len(blob) - _SHORT_BYTES, 0)
        return function, (blob[:_SHORT_BYTES],)


_SHORT_BYTES = 1 << 17  # bytes of this size are stored in the same way as all larger ones, outside of frames


def _pickle_bytes(network: "Network") -> int:
    counter = _Counter()
    counter.dump(network)
    return counter.num_bytes


def _activation_bytes(network: "Network") -> int:
    """From a pass on the meta device, which computes nothing."""
    import torch

    net = _copy_on(network, "meta")
    largest = 0

    def note(module: "torch.nn.Module", inputs: Any, output: Any) -> None:
        nonlocal largest
        tensors = [t for t in (*inputs, *(output if isinstance(output, tuple) else [output])) if torch.is_tensor(t)]
        largest = max(largest, sum(t.numel() * 4 for t in tensors))

    for module in net.modules():
        if not list(module.children()) or hasattr(module, "affine"):
            module.register_forward_hook(note)
    with torch.no_grad():
        net(*_inputs(net, 1, "meta"))
    return largest


def table(costs: Sequence[Cost]) -> str:
    """A text table, one row per network."""
    head = ["network", "params", "MACs (up-conv at input)", "MACs (at output)", "activations", "file"]
    head += ["ms/image, batch 1", "batch 8"]
    rows = [
        [c.name, f"{c.params:,}", f"{c.macs_in:,}", f"{c.macs_out:,}", f"{c.activation_bytes / 2**20:.2f} MiB",
         f"{c.file_bytes / 2**20:.2f} MiB", _ms(c.ms_batch1), _ms(c.ms_batch8)]
        for c in costs
    ]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))])
        for row in [head, ["-" * width for width in widths], *rows]
    )


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


@click.command(cls=Command)
@click.argument("networks", nargs=-1, required=True, metavar="NETWORK...")
@click.option("--latency/--no-latency", default=True, show_default=True, help="Measure the latency as well.")
@device_option
@trust_pickle_option
def main(networks: tuple[str, ...], latency: bool, device: str, trust_pickle: bool) -> None:
    """Print parameters, multiply-accumulates, memory, file size and latency of the networks in pickles.

    NETWORK is a path or URL. MACs are counted for convolutions, torgb, affine layers, mapping and dense layers, without
    resampling filters, demodulation, noise, bias and activation; once with up-convolutions at their input resolution,
    as they are computed, and once with every convolution at its output resolution. Latency in batches of eight is
    measured for networks whose largest layer then has at most 512 MiB of activations.
    """
    from torch_utils.devices import resolve_device, tune_allocator
    from training.checkpoints.pickles import open_networks

    target = str(resolve_device(device))
    costs = []
    for url in networks:
        nets = open_networks(url, trust_pickle=trust_pickle)
        if "G" in nets:
            del nets["G"]  # it has the costs of G_ema
        tune_allocator()  # only now: from here on, freed memory stays with the process
        costs += [measure(f"{url}:{name}", nets.pop(name), target, latency) for name in ("G_ema", "D") if name in nets]
    click.echo(table(costs))


if __name__ == "__main__":
    main()
