"""Zero-stuffing, filtering, decimation."""
import torch
import torch.nn.functional as F


def setup_filter(f, device="cpu", normalize=True, flip_filter=False, gain=1, separable=None):
    """Prepares taps."""
    f = torch.as_tensor(1 if f is None else f, dtype=torch.float32).to(device)
    f = f[None] if f.ndim == 0 else f
    if f.ndim == 1 and not (len(f) >= 8 if separable is None else separable):
        f = f[:, None] * f[None, :]
    f = f / f.sum() if normalize else f
    f = f.flip(list(range(f.ndim))) if flip_filter else f
    return f * gain ** (f.ndim / 2)


def _pair(value):
    return (value, value) if isinstance(value, int) else tuple(value)


def _four(padding):
    values = _pair(padding)
    return values if len(values) == 4 else (values[0], values[0], values[1], values[1])


def filter_size(f):
    """Width and height."""
    return (1, 1) if f is None else (f.shape[-1], f.shape[0])


def upfirdn2d(x, f, up=1, down=1, padding=0, flip_filter=False, gain=1, impl="cuda"):
    """The four steps of the definition."""
    (up_x, up_y), (down_x, down_y) = _pair(up), _pair(down)
    n, c, h, w = x.shape
    stuffed = x.new_zeros([n, c, h * up_y, w * up_x])
    stuffed[:, :, ::up_y, ::up_x] = x
    stuffed = F.pad(stuffed, _four(padding))
    f = torch.ones([1, 1]) if f is None else f
    f = (f[:, None] * f[None, :] if f.ndim == 1 else f).to(x) * gain
    f = f if flip_filter else f.flip([0, 1])
    y = F.conv2d(stuffed.flatten(0, 1)[:, None], f[None, None])
    return y.reshape(n, c, y.shape[2], y.shape[3])[:, :, ::down_y, ::down_x]


def _around(f, padding, before, after):
    left, right, top, bottom = _four(padding)
    fw, fh = filter_size(f)
    return left + before(fw), right + after(fw), top + before(fh), bottom + after(fh)


def filter2d(x, f, padding=0, flip_filter=False, gain=1, impl="cuda"):
    """Filters, same size."""
    around = _around(f, padding, lambda k: k // 2, lambda k: (k - 1) // 2)
    return upfirdn2d(x, f, padding=around, flip_filter=flip_filter, gain=gain)


def upsample2d(x, f, up=2, padding=0, flip_filter=False, gain=1, impl="cuda"):
    """Doubles the size."""
    around = _around(f, padding, lambda k: (k + up - 1) // 2, lambda k: (k - up) // 2)
    return upfirdn2d(x, f, up=up, padding=around, flip_filter=flip_filter, gain=gain * up**2)


def downsample2d(x, f, down=2, padding=0, flip_filter=False, gain=1, impl="cuda"):
    """Halves the size."""
    around = _around(f, padding, lambda k: (k - down + 1) // 2, lambda k: (k - down) // 2)
    return upfirdn2d(x, f, down=down, padding=around, flip_filter=flip_filter, gain=gain)
