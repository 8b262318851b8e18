"""Convolution between an upsampling and a downsampling, one after the other."""
import torch.nn.functional as F

from . import upfirdn2d as fir


def conv2d_resample(x, w, f=None, up=1, down=1, padding=0, groups=1, flip_weight=True, flip_filter=False):
    """All padding comes first; then every step keeps full overlaps only, and their order does not matter."""
    around = fir._four(padding)
    if up > 1:
        around = fir._around(f, around, lambda k: (k + up - 1) // 2, lambda k: (k - up) // 2)
    if down > 1:
        around = fir._around(f, around, lambda k: (k - down + 1) // 2, lambda k: (k - down) // 2)
    x = fir.upfirdn2d(x, f if up > 1 else None, up=up, padding=around, gain=up**2, flip_filter=flip_filter)
    x = F.conv2d(x, w if flip_weight else w.flip([2, 3]), groups=groups)
    return fir.upfirdn2d(x, f, down=down, flip_filter=flip_filter) if down > 1 else x
