"""2-D convolution of images that are enlarged before or shrunk after it, as one operation with one padding."""
import torch
import torch.nn.functional as F

from .activations import activation_funcs, slope_of
from .bias_act import scale_bias_act
from .conv_gradients import Geometry, convolution
from .resampling import Sides, padding_of_transposed
from .up_convolution import UP_CONVOLUTION, with_styles
from .upfirdn2d import Padding, _centred, _parse_padding, upfirdn2d
from .winograd import CONV3X3


def conv2d_resample(
    x: torch.Tensor,
    w: torch.Tensor,
    f: torch.Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: Padding = 0,
    groups: int = 1,
    flip_weight: bool = True,
    flip_filter: bool = False,
) -> torch.Tensor:
    """Upsamples (zeros and filter, gain up²), convolves, low-passes and decimates.

    Args:
        x: images [N, C, H, W].
        w: weights [O, C // groups, kh, kw], x's dtype.
        f: low-pass filter of `upfirdn2d.setup_filter`; used twice if both factors exceed 1. None is the identity.
        up, down: integer factors ≥ 1.
        padding: int, pair or four values, relative to the upsampled image; may be negative.
        groups: channel groups of the convolution.
        flip_weight: True correlates (torch's convention), False convolves.
        flip_filter: passed on to upfirdn2d.

    Returns:
        [N, O, (H*up + pad - kh) // down + 1, ...], x's dtype. Differentiable in x and w to any order.

    Raises:
        ValueError: ranks, dtypes or factors are not as above.
    """
    if x.ndim != 4 or w.ndim != 4 or w.dtype != x.dtype:
        raise ValueError(f"conv2d_resample: expected x [N, C, H, W] and w [O, I, kh, kw] of one dtype, "
                         f"found {tuple(x.shape)} {x.dtype} and {tuple(w.shape)} {w.dtype}")
    if up < 1 or down < 1:
        raise ValueError(f"conv2d_resample: expected up and down ≥ 1, found {up} and {down}")
    kh, kw = int(w.shape[2]), int(w.shape[3])
    px0, px1, py0, py1 = _resampled_padding(f, up, down, padding)
    pad = (px0, px1, py0, py1)

    if up > 1 and not (kh == kw == 1 and down == 1):
        x = _transposed(x, w, f, up, pad, groups, flip_weight, flip_filter)
        return x if down == 1 else upfirdn2d(x, f, down=down, flip_filter=flip_filter)
    if kh == kw == 1 and up > 1:  # a pointwise convolution is cheapest at the small size
        return upfirdn2d(_conv(x, w, groups=groups), f, up=up, padding=pad, flip_filter=flip_filter, gain=up**2)
    if kh == kw == 1 and down > 1:
        return _conv(upfirdn2d(x, f, down=down, padding=pad, flip_filter=flip_filter), w, groups=groups)
    if down > 1:
        x = upfirdn2d(x, f, padding=pad, flip_filter=flip_filter)
        return _conv(x, w, stride=down, groups=groups, flip_weight=flip_weight)
    if px0 == px1 >= 0 and py0 == py1 >= 0:
        return _conv(x, w, padding=(py0, px0), groups=groups, flip_weight=flip_weight)
    return _conv(upfirdn2d(x, None, padding=pad), w, groups=groups, flip_weight=flip_weight)


def scaled_conv2d(
    x: torch.Tensor,
    w: torch.Tensor,
    f: torch.Tensor | None = None,
    up: int = 1,
    padding: Padding = 0,
    flip_weight: bool = True,
    styles: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
    noise: torch.Tensor | None = None,
    b: torch.Tensor | None = None,
    act: str = "linear",
    gain: float = 1,
    clamp: float | None = None,
) -> torch.Tensor:
    """clip(gain * act(conv2d_resample(x * styles) * scale + noise + b), -clamp, clamp): a whole layer.

    Args:
        x: images [N, C, H, W].
        w: weights [O, C, kh, kw], x's dtype.
        f, up, padding, flip_weight: as in conv2d_resample.
        styles: factors of the inputs [N, C]; None is 1.
        scale: factors of the outputs [N, O]; None is 1.
        noise: [H', W'] or [N, 1, H', W']; None adds nothing.
        b: bias [O]; None adds nothing.
        act, gain, clamp: as in bias_act, but the gain has no default.

    Returns:
        [N, O, H*up, W*up], differentiable to any order.

    Raises:
        ValueError: as conv2d_resample.
        KeyError: unknown activation.
    """
    tensors = (x, w, styles, scale, noise, b)
    needs_graph = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    slope = slope_of(act, activation_funcs[act].def_alpha, gain)
    is_common = w.shape[2:] == (3, 3) and padding == 1 and slope is not None and not needs_graph
    if is_common and up == 1 and flip_weight:
        fast = CONV3X3.compiled(*tensors)
        if fast is not None:
            return fast(*tensors, slope, gain, clamp)
    if is_common and up == 2 and not flip_weight and f is not None:
        fast = UP_CONVOLUTION.compiled(x, w, f, styles, scale, noise, b)
        if fast is not None:
            return fast(x, w, f, styles, scale, noise, b, slope, gain, clamp)
    x, w = with_styles(x, w, styles)
    x = conv2d_resample(x, w, f, up, padding=padding, flip_weight=flip_weight)
    return scale_bias_act(x, scale, noise, b, act, gain, clamp, overwrite=True)


def _resampled_padding(f: torch.Tensor | None, up: int, down: int, padding: Padding) -> Sides:
    """The user's padding plus what centres the filter for each factor in use."""
    sides = _parse_padding(padding)
    sides = _centred(f, sides, up=up) if up > 1 else sides
    return _centred(f, sides, down=down) if down > 1 else sides


def _conv(
    x: torch.Tensor,
    w: torch.Tensor,
    stride: int = 1,
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
    flip_weight: bool = True,
) -> torch.Tensor:
    pointwise = w.shape[2] == w.shape[3] == 1
    w = w if flip_weight or pointwise else w.flip([2, 3])
    if _own_gradients(x):
        return convolution(x, w, Geometry((stride, stride), padding, False, groups))
    return F.conv2d(x, w, None, stride, padding, 1, groups)


def _own_gradients(x: torch.Tensor) -> bool:
    """Whether second derivatives are to be ours. Programs that are being captured keep to torch's own operations."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def _transposed(
    x: torch.Tensor,
    w: torch.Tensor,
    f: torch.Tensor | None,
    up: int,
    pad: Sides,
    groups: int,
    flip_weight: bool,
    flip_filter: bool,
) -> torch.Tensor:
    """Zero-stuffing and convolution as one transposed convolution, then the filter."""
    kh, kw = w.shape[2:]
    cut_x, rest_x = padding_of_transposed(kw, up, *pad[:2])
    cut_y, rest_y = padding_of_transposed(kh, up, *pad[2:])
    w = w.flip([2, 3]) if flip_weight else w
    w = w.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)  # [O, C / groups, ...] → [C, O / groups, ...]
    if _own_gradients(x):
        x = convolution(x, w, Geometry((up, up), (cut_y, cut_x), True, groups))
    else:
        x = F.conv_transpose2d(x, w, None, up, (cut_y, cut_x), 0, groups)
    return upfirdn2d(x, f, padding=(*rest_x, *rest_y), flip_filter=flip_filter, gain=up**2)
