"""Calls of the CPU kernels with tensors: what they accept, and their arguments."""
import ctypes
import functools
from collections.abc import Callable
from typing import Any

import torch

from . import cpu_build, settings
from .backend.launch_config import is_channels_last

_TYPES = {torch.float32: ("f32", ctypes.c_float), torch.float64: ("f64", ctypes.c_double)}
_MAX_TAPS = 64  # csrc/cpu_kernels.cpp
_PART = 4096  # pixels of a channels_last image whose gradients one task adds up

enabled = True  # False: plain torch, as with SG_OPS=ref


@functools.cache
def library() -> tuple["ctypes.CDLL | None", str]:
    """The kernels, and a line about them; built at the first call."""
    kernels, description = cpu_build.load()
    try:
        _declare(kernels)
    except AttributeError as error:  # not our library
        return None, f"the library lacks a symbol: {error}"
    return kernels, description


def _declare(kernels: "ctypes.CDLL | None") -> None:
    """The types of the functions' arguments.

    Raises:
        AttributeError: a function is missing.
    """
    if kernels is not None:
        i64: Any = ctypes.c_int64
        real, pointer, integer = ctypes.c_double, ctypes.c_void_p, ctypes.c_int
        for name, _ in _TYPES.values():
            getattr(kernels, f"epilogue_{name}").argtypes = (
                [pointer] * 2 + [i64] * 3 + [integer] + [pointer] * 2 + [i64, pointer] + [real] * 3 + [integer]
            )
            getattr(kernels, f"gradients_{name}").argtypes = (
                [pointer] * 8 + [i64] * 4 + [integer] + [real] * 3 + [integer]
            )
            getattr(kernels, f"upfirdn2d_{name}").argtypes = [pointer] * 3 + [integer, real] + [i64] * 14 + [integer]
        kernels.fir_epilogue.argtypes = (
            [pointer] * 3 + [integer, real] + [i64] * 10 + [pointer] * 2 + [i64, pointer] + [real] * 3 + [integer]
        )
        kernels.instructions.restype = ctypes.c_char_p
        kernels.winograd_weights_size.argtypes = [i64] * 2
        kernels.winograd_weights_size.restype = i64
        for transform in (kernels.winograd_weights, kernels.winograd_up_weights):
            transform.argtypes = [pointer] * 2 + [i64] * 5 + [integer]
        kernels.winograd_convolve.argtypes = (
            [pointer] * 3 + [i64] * 5 + [pointer] * 3 + [i64, pointer] + [real] * 3 + [integer]
        )
        kernels.winograd_up_convolve.argtypes = (
            [pointer] * 3 + [i64] * 5 + [pointer] * 2 + [real] + [pointer] * 2 + [i64, pointer] + [real] * 3 + [integer]
        )


def describe() -> str:
    """What CPU operations use, and why nothing faster."""
    if settings.mode == "ref":
        return "plain torch, as SG_OPS=ref asks for"
    kernels, description = library()
    if kernels is None:
        return f"plain torch ({description})"
    return f"native kernels ({description}, {kernels.instructions().decode()})"


def serve(x: torch.Tensor, *others: torch.Tensor | None) -> bool:
    """Whether the kernels take these tensors of any shapes [...]: dense, of one type, not being captured."""
    if not enabled or settings.mode == "ref" or x.device.type != "cpu" or x.dtype not in _TYPES or x.numel() == 0:
        return False
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or type(x) not in _PLAIN or not is_dense(x):
        return False
    if any(t is not None and (t.dtype != x.dtype or t.device.type != "cpu") for t in others):
        return False
    return library()[0] is not None


_PLAIN = (torch.Tensor, torch.nn.Parameter)  # not a stand-in without data


def is_dense(x: torch.Tensor) -> bool:
    """Whether x is contiguous, or images [N, C, H, W] that are channels_last."""
    return x.is_contiguous() or (x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last))


def _function(name: str, x: torch.Tensor) -> Callable[..., Any]:
    return getattr(library()[0], f"{name}_{_TYPES[x.dtype][0]}")


def _shape(x: torch.Tensor, dim: int) -> tuple[int, int, int, bool]:
    """(n, c, pixels, whether channels are innermost) of x with channels along `dim`."""
    shape = x.shape
    if x.ndim == 4 and dim == 1:
        return shape[0], shape[1], shape[2] * shape[3], is_channels_last(x)
    outer, inner = 1, 1
    for size in shape[:dim]:
        outer *= size
    for size in shape[dim + 1 :]:
        inner *= size
    return (1, shape[dim], outer, True) if inner == 1 else (outer, shape[dim], inner, False)


def _pointer(t: torch.Tensor | None) -> int | None:
    return None if t is None else t.data_ptr()


def epilogue(
    x: torch.Tensor,
    scale: torch.Tensor | None,
    noise: torch.Tensor | None,
    b: torch.Tensor | None,
    dim: int,
    slope: float,
    gain: float,
    clamp: float | None,
    out: torch.Tensor,
) -> torch.Tensor:
    """clip(gain * act(x * scale + noise + b)) → out, which has x's layout and may be x.

    Args:
        x, out: any shape, [N, C, H, W] if there is scale or noise.
        scale: [N, C]. noise: [1 or N, H*W]. b: [C]. Each dense, or None.
        The others: as in `epilogue.epilogue`.
    """
    n, c, pixels, last = _shape(x, dim)
    step = 0 if noise is None or noise.shape[0] == 1 else pixels
    _function("epilogue", x)(
        x.data_ptr(), out.data_ptr(), n, c, pixels, last, _pointer(scale), _pointer(noise), step, _pointer(b),
        slope, gain, -1.0 if clamp is None else clamp, cpu_build.threads(),
    )  # fmt: skip
    return out


def gradients(
    dy: torch.Tensor,
    y: torch.Tensor | None,
    x: torch.Tensor | None,
    scale: torch.Tensor | None,
    dim: int,
    slope: float,
    gain: float,
    clamp: float | None,
    wanted: tuple[bool, bool, bool, bool],
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Gradients of x, scale [N, C], noise [N, H*W] and b [C], those that are wanted.

    Args:
        dy, y, x: of one shape and layout. y may be None if act is the identity and there is no clamp, x if scale's is
            not wanted.
    """
    n, c, pixels, last = _shape(dy, dim)
    parts = max(pixels // _PART, 1) if last else 1
    dx = torch.empty_like(dy) if wanted[0] else None
    dscale, db = (dy.new_empty([n, parts, c]) if want else None for want in (wanted[1], wanted[3]))
    dnoise = dy.new_empty([n, pixels]) if wanted[2] else None
    _function("gradients", dy)(
        dy.data_ptr(), _pointer(y), _pointer(x), _pointer(scale), _pointer(dx), _pointer(dscale), _pointer(db),
        _pointer(dnoise), n, c, pixels, parts, last, slope, gain, -1.0 if clamp is None else clamp,
        cpu_build.threads(),
    )  # fmt: skip
    if dscale is not None:
        dscale = dscale.sum(dim=1) if parts > 1 else dscale[:, 0]
    return dx, dscale, dnoise, None if db is None else db.sum(dim=[0, 1])


def upfirdn2d(
    x: torch.Tensor,
    f: torch.Tensor,
    out_size: tuple[int, int],
    up: tuple[int, int],
    down: tuple[int, int],
    pad: tuple[int, int],
    flip: bool,
    gain: float,
) -> torch.Tensor:
    """One pass over images x [N, C, H, W] with a filter f [fh, fw], float32 → [N, C, *out_size].

    up, down and pad (what is before the image) are x and y.
    """
    (n, c, h, w), (fh, fw) = x.shape, f.shape
    last = is_channels_last(x)
    y = torch.empty((n, c, *out_size), dtype=x.dtype, memory_format=torch.channels_last if last else _CONTIGUOUS)
    f = f.contiguous()
    _function("upfirdn2d", x)(
        x.data_ptr(), y.data_ptr(), f.data_ptr(), flip, gain, n if last else n * c, c if last else 1, h, w, *out_size,
        fh, fw, *up, *down, *pad, cpu_build.threads(),
    )  # fmt: skip
    return y


_CONTIGUOUS = torch.contiguous_format


def takes_filter(f: torch.Tensor) -> bool:
    """Whether upfirdn2d takes a filter [fh, fw]."""
    return f.dtype == torch.float32 and max(f.shape) <= _MAX_TAPS


def fir_epilogue(
    x: torch.Tensor,
    f: torch.Tensor,
    y: torch.Tensor,
    pad: tuple[int, int],
    flip: bool,
    fir_gain: float,
    scale: torch.Tensor | None,
    noise: torch.Tensor | None,
    b: torch.Tensor | None,
    slope: float,
    gain: float,
    clamp: float | None,
) -> None:
    """clip(gain * act(filter(x) * scale + noise + b)) → y.

    Args:
        x: [N, C, H, W], float32, channels_last, C > 1.
        f: filter [fh, fw], float32.
        y: [N, C, H', W'], of x's type and layout.
        pad: pixels before x, x and y.
        flip, fir_gain: as in `upfirdn2d`.
        scale: [N, C]. noise: [1 or N, H' * W']. b: [C]. Each dense, or None.
        The others: as in `epilogue.epilogue`.
    """
    kernels = library()[0]
    assert kernels is not None
    n, c, h, w = x.shape
    height, width = y.shape[2:]
    step = 0 if noise is None or noise.shape[0] == 1 else height * width
    f = f.contiguous()
    kernels.fir_epilogue(
        x.data_ptr(), y.data_ptr(), f.data_ptr(), flip, fir_gain, n, c, h, w, height, width, *f.shape, *pad,
        _pointer(scale), _pointer(noise), step, _pointer(b), slope, gain, -1.0 if clamp is None else clamp,
        cpu_build.threads(),
    )  # fmt: skip


def winograd_weights(w: torch.Tensor, up: bool = False) -> torch.Tensor:
    """Weights w [O, C, 3, 3], float32, transformed for `winograd_convolve`, or `_up_convolve` [any number]."""
    kernels = library()[0]
    assert kernels is not None
    o, c = w.shape[:2]
    w = w if w.stride(2) == 3 * w.stride(3) else w.contiguous()
    u = torch.empty(kernels.winograd_weights_size(o, c))
    transform = kernels.winograd_up_weights if up else kernels.winograd_weights
    transform(w.data_ptr(), u.data_ptr(), o, c, w.stride(0), w.stride(1), w.stride(3), cpu_build.threads())
    return u


def winograd_convolve(
    x: torch.Tensor,
    u: torch.Tensor,
    out_channels: int,
    styles: torch.Tensor | None,
    scale: torch.Tensor | None,
    noise: torch.Tensor | None,
    b: torch.Tensor | None,
    slope: float,
    gain: float,
    clamp: float | None,
) -> torch.Tensor:
    """clip(gain * act(conv(x * styles) * scale + noise + b)), a 3x3 convolution with padding 1 → [N, O, H, W].

    Args:
        x: [N, C, H, W], float32, channels_last.
        u: of `winograd_weights`.
        styles: [N, C]. scale: [N, O]. noise: [1 or N, H*W]. b: [O]. Each dense, or None.
        The others: as in `epilogue.epilogue`.
    """
    kernels = library()[0]
    assert kernels is not None
    n, c, h, w = x.shape
    step = 0 if noise is None or noise.shape[0] == 1 else h * w
    y = torch.empty((n, out_channels, h, w), memory_format=torch.channels_last)
    kernels.winograd_convolve(
        x.data_ptr(), u.data_ptr(), y.data_ptr(), n, h, w, c, out_channels, _pointer(styles), _pointer(scale),
        _pointer(noise), step, _pointer(b), slope, gain, -1.0 if clamp is None else clamp, cpu_build.threads(),
    )  # fmt: skip
    return y


def winograd_up_convolve(
    x: torch.Tensor,
    u: torch.Tensor,
    y: torch.Tensor,
    styles: torch.Tensor | None,
    f: torch.Tensor,
    fir_gain: float,
    scale: torch.Tensor | None,
    noise: torch.Tensor | None,
    b: torch.Tensor | None,
    slope: float,
    gain: float,
    clamp: float | None,
) -> bool:
    """clip(gain * act(filter(transposed_conv(x * styles)) * scale + noise + b)) → y, for 3x3 weights and stride 2.

    Args:
        x: [N, C, H, W], float32, channels_last.
        u: of `winograd_weights`, with `up`.
        y: [N, O, 2 H, 2 W], of x's type and layout.
        styles: [N, C]. scale: [N, O]. noise: [1 or N, 4 H W]. b: [O]. Each dense, or None.
        f, fir_gain: filter [4, 4], float32, and what it is multiplied by.
        The others: as in `epilogue.epilogue`.

    Returns:
        Whether that was possible: only if the filter is a product of two lines.
    """
    kernels = library()[0]
    assert kernels is not None
    n, c, h, w = x.shape
    step = 0 if noise is None or noise.shape[0] == 1 else 4 * h * w
    f = f.contiguous()
    done = kernels.winograd_up_convolve(
        x.data_ptr(), u.data_ptr(), y.data_ptr(), n, h, w, c, y.shape[1], _pointer(styles), f.data_ptr(), fir_gain,
        _pointer(scale), _pointer(noise), step, _pointer(b), slope, gain, -1.0 if clamp is None else clamp,
        cpu_build.threads(),
    )  # fmt: skip
    return bool(done)
