"""Memory that the CUDA kernels move for every layer of a StyleGAN2 network, against the least possible. Needs no GPU.

The kernels run on the host (tests/torch_utils/ops/host_shim), which notes every address. A block is charged for each
32-byte sector that it touches, once: what it touches again is still in its cache; what its neighbours have touched is
not, as if blocks shared nothing. The least is every element of input, bias and output, once; the 64 bytes of a filter,
which all blocks share, are not counted. Layers are those that the networks call, forwards and backwards; of each, a few
channels of one image are run, cut into blocks like the whole.
"""
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import click
import torch
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.torch_utils.ops import host_kernels
from tests.torch_utils.ops.host_kernels import HostLibrary
from torch_utils.ops import bias_act as bias_act_op
from torch_utils.ops import registry, resampling
from torch_utils.ops.backend import launch_config
from torch_utils.ops.backend.launch_config import Launch
from training import networks

SECTOR_BYTES = 32
_ORDERS = {"bias_act": 0, "bias_act_grad": 1}


class Layer(NamedTuple):
    """A call of one of the operations."""

    op: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    channels_last: bool
    arguments: tuple[Any, ...]  # the others; of tensors only that there is one


class Traffic(NamedTuple):
    """What a kernel moves for a layer, and what it would have to move at least; in bytes, of the channels that ran."""

    kernel: str
    moved: int
    least: int

    @property
    def ratio(self) -> float:
        return self.moved / self.least


class _Recorder(TorchDispatchMode):
    """Notes the calls of our operations."""

    def __init__(self) -> None:
        super().__init__()
        self.layers: dict[Layer, None] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "sg2":
            x, *rest = args
            plain = [True if isinstance(arg, torch.Tensor) else arg for arg in rest]
            kept = tuple(tuple(arg) if isinstance(arg, list) else arg for arg in plain)
            channels_last = x.ndim == 4 and launch_config.is_channels_last(x)
            layer = Layer(func.name().removeprefix("sg2::"), tuple(x.shape), x.dtype, channels_last, kept)
            self.layers[layer] = None
        return func(*args, **(kwargs or {}))


def record(
    resolution: int = 1024, channel_base: int = 32768, batch: int = 4, channels_last: bool = False
) -> list[Layer]:
    """The different calls of a pass through generator and discriminator and back, in mixed precision as on a GPU.

    Args:
        resolution, channel_base: of the networks; by default those of configuration F.
        batch: images.
        channels_last: only the blocks that compute in half precision, and those in channels_last.
    """
    options: dict[str, Any] = {"channel_base": channel_base, "num_fp16_res": 4, "conv_clamp": 256}
    layout = {"fp16_channels_last": channels_last}
    G: Any = networks.Generator(512, 0, 512, resolution, 3, synthesis_kwargs={**options, **layout})
    D: Any = networks.Discriminator(0, resolution, 3, **options, block_kwargs=layout)

    def format_on_gpu(use_fp16, wants_channels_last, force_fp32, device):
        half = use_fp16 and not force_fp32
        last = half and wants_channels_last
        return torch.float16 if half else torch.float32, torch.channels_last if last else torch.contiguous_format

    recorder = _Recorder()
    with (
        mock.patch.object(registry, "uses_dispatcher", return_value=True),
        mock.patch.object(networks, "_compute_format", format_on_gpu),
        recorder,
    ):
        images = G.to("meta")(torch.empty([batch, 512], device="meta"), None)
        D.to("meta")(images, None).sum().backward()
    if channels_last:  # convolutions without data forget the layout, those on a GPU keep it
        half = [layer for layer in recorder.layers if layer.dtype == torch.float16]
        return list(dict.fromkeys(layer._replace(channels_last=True) for layer in half))
    return list(recorder.layers)


def measure(library: HostLibrary, layer: Layer) -> Traffic:
    """Runs some channels of a layer."""
    launch, tensors = _upfirdn2d(layer) if layer.op == "upfirdn2d" else _bias_act(layer)
    moved = library.count_sectors(launch) * SECTOR_BYTES
    return Traffic(launch.kernel, moved, sum(t.numel() * t.itemsize for t in tensors))


def _images(shape, dtype: torch.dtype, channels_last: bool, device: str = "cpu") -> torch.Tensor:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(shape, dtype=dtype, device=device, memory_format=layout)


def _upfirdn2d(layer: Layer) -> tuple[Launch, list[torch.Tensor]]:
    _, up, down, padding, flip, gain = layer.arguments
    n, channels, h, w = layer.shape

    def configured(n: int, channels: int, device: str) -> tuple[Launch, list[torch.Tensor]]:
        x = _images([n, channels, h, w], layer.dtype, layer.channels_last, device)
        f = torch.ones([4, 4], device=device)
        size = resampling.output_size(x, f, up, down, padding)
        y = _images([n, channels, *size], layer.dtype, layer.channels_last, device)
        launch = launch_config.upfirdn2d(x, f, y, up, down, (padding[0], padding[2]), flip, gain)
        assert launch is not None
        return launch, [x, y]

    whole, _ = configured(n, channels, "meta")
    some, images = configured(1, min(channels, 16 if layer.channels_last else 2), "cpu")
    assert some.kernel == whole.kernel
    some.params.rows_per_block = whole.params.rows_per_block
    return some._replace(grid=(some.grid[0], whole.grid[1], 1)), images


def _bias_act(layer: Layer) -> tuple[Launch, list[torch.Tensor]]:
    has_b, dim, act, alpha, gain, clamp = layer.arguments[-6:]
    n, channels, *size = layer.shape
    shape = [n, channels] if not size else [1, min(channels, 32), min(size[0], 64), size[1]]
    order = _ORDERS[layer.op]
    ref, dy, out = (_images(shape, layer.dtype, layer.channels_last) if size else torch.empty(shape, dtype=layer.dtype)
                    for _ in range(3))  # fmt: skip
    b = torch.zeros(shape[dim], dtype=layer.dtype) if has_b else None
    scalars = (alpha, gain, -1.0 if clamp is None else clamp)
    number = bias_act_op.activation_funcs[act].cuda_idx
    given = [ref, out, *([dy] if order else []), *([b] if b is not None else [])]
    return launch_config.bias_act(order, ref, b, dy if order else None, None, out, dim, number, scalars), given


def build() -> HostLibrary:
    """The kernels for the host."""
    folder = Path(tempfile.mkdtemp(prefix="traffic-"))
    return host_kernels.build_library(folder / "kernels.so", kernels=host_kernels.of_types("f16", "f32"))


@click.command()
@click.option("--resolution", default=1024, show_default=True, help="Side of the networks' images", metavar="INT")
@click.option("--batch", default=4, show_default=True, help="Images", metavar="INT")
def main(resolution: int, batch: int) -> None:
    """Prints a table of all layers, for blocks in planes and for blocks in channels_last."""
    library = build()
    click.echo("| op | input | type, layout | up, down | kernel | moved / least |\n|---|---|---|---|---|---|")
    rows = {}
    for layer in [*record(resolution, batch=batch), *record(resolution, batch=batch, channels_last=True)]:
        traffic = measure(library, layer)
        kind = str(layer.dtype).removeprefix("torch.") + (", channels_last" if layer.channels_last else "")
        factors = f"{layer.arguments[1][0]}, {layer.arguments[2][0]}" if layer.op == "upfirdn2d" else ""
        size = " x ".join(map(str, layer.shape[1:]))
        row = f"| {layer.op} | {size} | {kind} | {factors} | {traffic.kernel} | {traffic.ratio:.3f} |"
        if row not in rows:
            click.echo(row)
            rows[row] = traffic
    worst = max(rows.values(), key=lambda traffic: traffic.ratio)
    click.echo(f"\nWorst: {worst.ratio:.3f}, {worst.kernel}")


if __name__ == "__main__":
    main()
