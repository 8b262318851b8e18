"""The CUDA ops on this machine's GPU: milliseconds against plain torch, and bytes a second against a plain copy."""

import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import click
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from torch_utils.ops import bias_act, upfirdn2d
from torch_utils.ops.backend import choice

_CALLS = 20  # between two time stamps
_REPEATS = 9  # of which the median counts

Call = Callable[[], torch.Tensor]
Op = Callable[[torch.Tensor, str], torch.Tensor]


def milliseconds(call: Call) -> float:
    """Of one call; median of some runs, after a warm-up."""
    for _ in range(3):
        call()
    times = []
    for _ in range(_REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(_CALLS):
            call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / _CALLS)
    return statistics.median(times)


def cases(dtype: torch.dtype, layout: torch.memory_format) -> dict[str, tuple[torch.Tensor, Op]]:
    """What a network of 1024 px calls most: name → input, operation of (input, impl)."""
    f = upfirdn2d.setup_filter([1, 3, 3, 1], device=torch.device("cuda"))

    def images(channels: int, side: int) -> torch.Tensor:
        return torch.randn([4, channels, side, side], device="cuda").to(dtype).contiguous(memory_format=layout)

    b = torch.zeros([32], dtype=dtype, device="cuda")
    return {
        "up 1, 1025 -> 1024": (
            images(32, 1025), lambda x, impl: upfirdn2d.upfirdn2d(x, f, padding=1, gain=4, impl=impl)
        ),
        "up 2, 512 -> 1024": (images(32, 512), lambda x, impl: upfirdn2d.upsample2d(x, f, impl=impl)),
        "down 2, 1024 -> 512": (images(32, 1024), lambda x, impl: upfirdn2d.downsample2d(x, f, impl=impl)),
        "general, up 3 down 2, 512": (
            images(8, 512), lambda x, impl: upfirdn2d.upfirdn2d(x, f, up=3, down=2, padding=2, impl=impl)
        ),
        "bias_act lrelu, 1024": (
            images(32, 1024), lambda x, impl: bias_act.bias_act(x, b, act="lrelu", clamp=256, impl=impl)
        ),
        "bias_act swish, 1024": (images(32, 1024), lambda x, impl: bias_act.bias_act(x, b, act="swish", impl=impl)),
    }  # fmt: skip


def bandwidth() -> float:
    """GB a second of a copy that is too large for any cache."""
    source = torch.empty(2**29, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / 1e6 / milliseconds(lambda: target.copy_(source))


@click.command()
def main() -> None:
    """Prints a table; the share of the bandwidth counts every element of input and output once."""
    if not torch.cuda.is_available():
        raise click.ClickException("this machine has no CUDA device; there is nothing to measure")
    device = torch.device("cuda", torch.cuda.current_device())
    kernels = choice.kernels_for(device)
    copy = bandwidth()
    click.echo(f"{torch.cuda.get_device_name(device)}, PyTorch {torch.__version__}, CUDA {torch.version.cuda}, "
               f"kernels: {'none' if kernels is None else kernels.name}, copy: {copy:.0f} GB/s\n")
    click.echo("| call, batch 4 | type, layout | plain torch, ms | ours, ms | ratio | share of a copy's bandwidth |")
    click.echo("|---|---|---|---|---|---|")
    for dtype in (torch.float16, torch.float32):
        for layout in (torch.contiguous_format, torch.channels_last):
            kind = f"{str(dtype)[6:]}, {str(layout)[6:]}"
            for name, (x, op) in cases(dtype, layout).items():
                plain, ours = (milliseconds(lambda impl=impl, x=x, op=op: op(x, impl)) for impl in ("ref", "cuda"))
                y = op(x, "cuda")
                moved = (x.numel() * x.itemsize + y.numel() * y.itemsize) / 1e6 / ours
                click.echo(f"| {name} | {kind} | {plain:.3f} | {ours:.3f} | {plain / ours:.2f} | {moved / copy:.0%} |")


if __name__ == "__main__":
    main()
