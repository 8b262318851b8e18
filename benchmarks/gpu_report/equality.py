"""Section: every operation against float64 on the CPU, with first and second gradients, in each precision."""
from collections.abc import Callable

import torch

from torch_utils.ops import bias_act, conv2d_resample, filtered_lrelu, grid_sample_gradfix, upfirdn2d

from .section import Row, Setup

Op = Callable[[torch.Tensor, str], torch.Tensor]  # (images or other input, impl)

ALLOWED = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}  # of the largest value


def _operations(device: torch.device) -> dict[str, Op]:
    f = upfirdn2d.setup_filter([1, 3, 3, 1], device=device)
    f12 = upfirdn2d.setup_filter([1.0] * 12, device=device)
    odd = torch.arange(1.0, 16.0, device=device).reshape(3, 5) / 100
    b = torch.linspace(-1, 1, 3, device=device)
    w = torch.randn([4, 3, 3, 3], generator=torch.Generator().manual_seed(7)).to(device) / 5
    places = torch.rand([2, 9, 11, 2], generator=torch.Generator().manual_seed(8)).to(device) * 2.2 - 1.1

    def conv(up: int, down: int) -> Op:
        return lambda x, impl: conv2d_resample.conv2d_resample(x, w.to(x.dtype), f, up=up, down=down, padding=1)

    def act(name: str) -> Op:
        return lambda x, impl: bias_act.bias_act(x, b.to(x.dtype), act=name, impl=impl)

    return {
        "upfirdn2d up 1": lambda x, impl: upfirdn2d.upfirdn2d(x, f, padding=1, gain=4, impl=impl),
        "upfirdn2d up 2": lambda x, impl: upfirdn2d.upsample2d(x, f, impl=impl),
        "upfirdn2d down 2": lambda x, impl: upfirdn2d.downsample2d(x, f, impl=impl),
        "upfirdn2d up 3 down 2, 3x5": lambda x, impl: upfirdn2d.upfirdn2d(x, odd, up=3, down=2, padding=2, impl=impl),
        **{f"bias_act {name}": act(name) for name in bias_act.activation_funcs},
        "filtered_lrelu up 2 down 2": lambda x, impl: filtered_lrelu.filtered_lrelu(
            x, f12, f12, b.to(x.dtype), up=2, down=2, padding=11, impl=impl
        ),
        "conv2d_resample": conv(1, 1),
        "conv2d_resample up 2": conv(2, 1),
        "conv2d_resample down 2": conv(1, 2),
        "grid_sample": lambda x, impl: grid_sample_gradfix.grid_sample(x, places.to(x.dtype)),
    }


def _orders(op: Op, x: torch.Tensor, impl: str) -> list[torch.Tensor]:
    """Output, gradient, and the gradient of a weighted sum of the gradient by what it depends on."""
    x = x.detach().requires_grad_()
    y = op(x, impl)
    v = torch.cos(torch.arange(y.numel(), dtype=torch.float64)).reshape(y.shape).to(y.device, y.dtype).requires_grad_()
    (dx,) = torch.autograd.grad(y, x, v, create_graph=True)
    w = torch.sin(torch.arange(x.numel(), dtype=torch.float64)).reshape(x.shape).to(x.device, x.dtype)
    by_v, by_x = torch.autograd.grad(dx, [v, x], w, allow_unused=True)
    second = torch.cat([by_v.flatten(), (torch.zeros_like(x) if by_x is None else by_x).flatten()])
    return [t.detach().cpu().double() for t in (y, dx, second)]


def equality(setup: Setup) -> list[Row]:
    """The largest difference from float64, as a share of the largest value."""
    rows = []
    reference, device_ops = _operations(torch.device("cpu")), _operations(setup.device)
    for name, op in device_ops.items():
        for dtype, allowed in ALLOWED.items():
            if name.startswith("conv2d") and dtype != torch.float32:
                continue  # torch's own convolutions
            if name == "grid_sample" and dtype != torch.float32:
                continue  # augmentation computes in float32
            x = torch.randn([2, 3, 12, 20], generator=torch.Generator().manual_seed(0)).to(dtype)
            expected = _orders(reference[name], x.double(), "ref")
            for layout in (torch.contiguous_format, torch.channels_last):
                images = x.to(setup.device).contiguous(memory_format=layout)
                result = _orders(op, images, "cuda")
                errors = [((a - b).abs().max() / b.abs().max().clamp(min=1)).item() for a, b in zip(result, expected)]
                rows.append({
                    "operation": name, "type": str(dtype)[6:], "layout": str(layout)[6:].removesuffix("_format"),
                    "value": errors[0], "gradient": errors[1], "second gradient": errors[2],
                    "allowed": allowed, "ok": all(error <= allowed for error in errors),
                })  # fmt: skip
    return rows
