"""The plain formulation of the StyleGAN2 ops and modulated convolution: what the speed of ours is compared with.

Straight from the definitions, contiguous, nothing fused: upfirdn2d as zero insertion, padding and a depthwise
convolution; up-convolution as a transposed convolution and FIR; modulated convolution grouped in inference and unfused
in training. Correct, differentiable to any order, and what one writes first.
"""
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from torch_utils.ops import bias_act as fast_bias_act
from torch_utils.ops import upfirdn2d as fast_upfirdn2d


def bias_act(x, b=None, dim=1, act="linear", alpha=None, gain=None, clamp=None, impl="cuda"):
    """torch_utils.ops.bias_act.bias_act."""
    spec = fast_bias_act.activation_funcs[act]
    alpha = spec.def_alpha if alpha is None else alpha
    gain = spec.def_gain if gain is None else gain
    if b is not None:
        x = x + b.reshape([-1 if i == dim else 1 for i in range(x.ndim)])
    x = spec.func(x, alpha=alpha)
    if gain != 1:
        x = x * gain
    if clamp is not None:
        x = x.clamp(-clamp, clamp)
    return x


def upfirdn2d(x, f, up=1, down=1, padding=0, flip_filter=False, gain=1, impl="cuda"):
    """torch_utils.ops.upfirdn2d.upfirdn2d."""
    n, c, h, w = x.shape
    if f is None:
        f = torch.ones([1, 1])
    px0, px1, py0, py1 = fast_upfirdn2d._parse_padding(padding)
    x = x.reshape([n, c, h, 1, w, 1])
    x = F.pad(x, [0, up - 1, 0, 0, 0, up - 1])
    x = x.reshape([n, c, h * up, w * up])
    x = F.pad(x, [max(px0, 0), max(px1, 0), max(py0, 0), max(py1, 0)])
    x = x[:, :, max(-py0, 0) : x.shape[2] - max(-py1, 0), max(-px0, 0) : x.shape[3] - max(-px1, 0)]
    f = (f * gain ** (f.ndim / 2)).to(x.dtype)
    f = f if flip_filter else f.flip(list(range(f.ndim)))
    f = f[None, None].repeat([c, 1] + [1] * f.ndim)
    x = F.conv2d(x, f, groups=c)
    return x[:, :, ::down, ::down]


def conv2d_resample(x, w, f=None, up=1, down=1, padding=0, groups=1, flip_weight=True, flip_filter=False):
    """torch_utils.ops.conv2d_resample.conv2d_resample."""
    out, per_group, kh, kw = w.shape
    px0, px1, py0, py1 = fast_upfirdn2d._parse_padding(padding)
    fw, fh = fast_upfirdn2d._get_filter_size(f)
    if up > 1:
        px0, px1 = px0 + (fw + up - 1) // 2, px1 + (fw - up) // 2
        py0, py1 = py0 + (fh + up - 1) // 2, py1 + (fh - up) // 2
    if down > 1:
        px0, px1 = px0 + (fw - down + 1) // 2, px1 + (fw - down) // 2
        py0, py1 = py0 + (fh - down + 1) // 2, py1 + (fh - down) // 2
    pads = [px0, px1, py0, py1]
    if kw == 1 and kh == 1 and down > 1:
        return F.conv2d(upfirdn2d(x, f, down=down, padding=pads), w, groups=groups)
    if kw == 1 and kh == 1 and up > 1:
        return upfirdn2d(F.conv2d(x, w, groups=groups), f, up=up, padding=pads, gain=up**2)
    if not flip_weight:
        w = w.flip([2, 3])
    if down > 1:
        return F.conv2d(upfirdn2d(x, f, padding=pads), w, stride=down, groups=groups)
    if up > 1:
        w = w.flip([2, 3]).reshape(groups, out // groups, per_group, kh, kw).transpose(1, 2)
        w = w.reshape(groups * per_group, out // groups, kh, kw)
        px0, px1, py0, py1 = px0 - (kw - 1), px1 - (kw - up), py0 - (kh - 1), py1 - (kh - up)
        tx, ty = max(min(-px0, -px1), 0), max(min(-py0, -py1), 0)
        x = F.conv_transpose2d(x, w, stride=up, padding=[ty, tx], groups=groups)
        return upfirdn2d(x, f, padding=[px0 + tx, px1 + tx, py0 + ty, py1 + ty], gain=up**2)
    return F.conv2d(x, w, padding=[py0, px0], groups=groups)


def modulated_conv2d(
    x, weight, styles, noise=None, up=1, down=1, padding=0, resample_filter=None, demodulate=True, flip_weight=True,
    fused_modconv=True,
):
    """training.networks.modulated_conv2d."""
    n = x.shape[0]
    _, channels, kh, kw = weight.shape
    w = d = None
    if demodulate or fused_modconv:
        w = weight[None] * styles[:, None, :, None, None]
    if demodulate:
        d = (w.square().sum(dim=[2, 3, 4]) + 1e-8).rsqrt()
    args: dict[str, Any] = dict(f=resample_filter, up=up, down=down, padding=padding, flip_weight=flip_weight)
    if not fused_modconv:
        x = conv2d_resample(x * styles[:, :, None, None], weight, **args)
        if demodulate:
            x = x * d[:, :, None, None]
        return x if noise is None else x + noise
    if demodulate:
        w = w * d[:, :, None, None, None]
    x = conv2d_resample(x.reshape(1, -1, *x.shape[2:]), w.reshape(-1, channels, kh, kw), groups=n, **args)
    x = x.reshape(n, -1, *x.shape[2:])
    return x if noise is None else x.add_(noise)


def plain_networks() -> types.ModuleType:
    """training/networks.py, executed with the plain ops in place of ours."""
    ops = types.ModuleType("torch_utils.ops")
    up = types.ModuleType("torch_utils.ops.upfirdn2d")
    up.setup_filter = fast_upfirdn2d.setup_filter  # type: ignore[attr-defined]
    up.upfirdn2d = upfirdn2d  # type: ignore[attr-defined]
    up.upsample2d = lambda x, f: upfirdn2d(x, f, up=2, padding=[2, 1, 2, 1], gain=4)  # type: ignore[attr-defined]
    up.downsample2d = lambda x, f: upfirdn2d(x, f, down=2, padding=1)  # type: ignore[attr-defined]
    act = types.ModuleType("torch_utils.ops.bias_act")
    act.bias_act = bias_act  # type: ignore[attr-defined]
    act.activation_funcs = fast_bias_act.activation_funcs  # type: ignore[attr-defined]
    conv = types.ModuleType("torch_utils.ops.conv2d_resample")
    conv.conv2d_resample = conv2d_resample  # type: ignore[attr-defined]
    fma = types.ModuleType("torch_utils.ops.fma")
    fma.fma = lambda a, b, c: a * b + c  # type: ignore[attr-defined]
    for module in (up, act, conv, fma):
        setattr(ops, module.__name__.rpartition(".")[2], module)
    kept = {name: module for name, module in sys.modules.items() if name.startswith("torch_utils.ops")}
    try:
        for name in kept:
            del sys.modules[name]
        sys.modules["torch_utils.ops"] = ops
        path = Path(__file__).resolve().parent.parent / "training" / "networks.py"
        spec = importlib.util.spec_from_file_location("plain_networks", path)
        assert spec is not None
        assert spec.loader is not None
        networks = importlib.util.module_from_spec(spec)
        sys.modules["plain_networks"] = networks
        spec.loader.exec_module(networks)
    finally:
        del sys.modules["torch_utils.ops"]
        sys.modules.update(kept)
    networks.modulated_conv2d = modulated_conv2d  # type: ignore[attr-defined]
    return networks
