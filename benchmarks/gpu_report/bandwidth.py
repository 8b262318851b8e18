"""Section: time of each kernel against plain torch, and bytes a second against a plain copy."""
from collections.abc import Callable

import torch

from torch_utils.ops import bias_act, upfirdn2d

from .section import Row, Setup
from .timing import milliseconds

Op = Callable[[torch.Tensor, str], torch.Tensor]


def cases(
    device: torch.device, dtype: torch.dtype, layout: torch.memory_format, scale: int
) -> dict[str, tuple[torch.Tensor, Op]]:
    """What a network of 1024 / scale px calls most: name → images [4, C, H, W], operation of (images, impl)."""
    f = upfirdn2d.setup_filter([1, 3, 3, 1], device=device)
    large = 1024 // scale

    def images(channels: int, side: int) -> torch.Tensor:
        return torch.randn([4, channels, side, side], device=device).to(dtype).contiguous(memory_format=layout)

    b = torch.zeros([32], dtype=dtype, device=device)
    return {
        "up 1": (images(32, large + 1), lambda x, impl: upfirdn2d.upfirdn2d(x, f, padding=1, gain=4, impl=impl)),
        "up 2": (images(32, large // 2), lambda x, impl: upfirdn2d.upsample2d(x, f, impl=impl)),
        "down 2": (images(32, large), lambda x, impl: upfirdn2d.downsample2d(x, f, impl=impl)),
        "up 3 down 2": (
            images(8, large // 2), lambda x, impl: upfirdn2d.upfirdn2d(x, f, up=3, down=2, padding=2, impl=impl)
        ),
        "bias_act lrelu": (
            images(32, large), lambda x, impl: bias_act.bias_act(x, b, act="lrelu", clamp=256, impl=impl)
        ),
        "bias_act swish": (images(32, large), lambda x, impl: bias_act.bias_act(x, b, act="swish", impl=impl)),
    }  # fmt: skip


def copy_speed(setup: Setup) -> float:
    """GB a second, read and written, of a copy that is too large for any cache."""
    source = torch.empty(2**20 if setup.is_tiny else 2**29, dtype=torch.uint8, device=setup.device)
    target = torch.empty_like(source)
    return 2 * source.numel() / 1e6 / milliseconds(lambda: target.copy_(source), setup.device)


def bandwidth(setup: Setup) -> list[Row]:
    """The share counts every element of input and output once."""
    copy = copy_speed(setup)
    rows = []
    effort = {"calls": 1, "repeats": 1} if setup.is_tiny else {}
    for dtype in (torch.float16, torch.float32) if setup.is_cuda else (torch.float32,):
        for layout in (torch.contiguous_format, torch.channels_last):
            for name, (x, op) in cases(setup.device, dtype, layout, 64 if setup.is_tiny else 1).items():
                plain, ours = (
                    milliseconds(lambda impl=impl, x=x, op=op: op(x, impl), setup.device, **effort)  # type: ignore[misc]
                    for impl in ("ref", "cuda")
                )
                y = op(x, "cuda")
                moved = (x.numel() * x.itemsize + y.numel() * y.itemsize) / 1e6 / ours
                rows.append({
                    "kernel": name, "type": str(dtype)[6:], "layout": str(layout)[6:].removesuffix("_format"),
                    "plain torch, ms": round(plain, 4), "ours, ms": round(ours, 4), "ratio": round(plain / ours, 2),
                    "GB/s": round(moved), "share of a copy": round(moved / copy, 2),
                })  # fmt: skip
    return rows
