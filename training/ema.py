"""The moving average of the generator's weights (EMA)."""
import math

import torch

from torch_utils import misc

GROWTH = 0.05  # of the later half-life per image


def ema_beta(
    batch_size: int,
    ema_kimg: float,
    ema_rampup: float | None,
    cur_nimg: int,
    start_kimg: float = 0,
    later_start_kimg: float | None = None,
    later_kimg: float = 10,
) -> float:
    """The weight of the old average after a batch, for a half-life of `ema_kimg`, capped while training is young.

    Args:
        ema_rampup: the half-life is at most this fraction of the images seen; None is no cap.
        cur_nimg: images seen before this batch.
        start_kimg: until so many thousands of images the average is a copy, so this is 0.
        later_start_kimg: from there on the half-life grows by GROWTH times the images seen since; None is never.
        later_kimg: up to which it grows, in thousands of images.
    """
    if cur_nimg < start_kimg * 1000:
        return 0.0
    cap = math.inf if ema_rampup is None else ema_rampup * cur_nimg
    half_life = max(min(ema_kimg * 1000, cap), 1e-8)  # images
    if later_start_kimg is not None and cur_nimg >= later_start_kimg * 1000:
        grown = half_life + GROWTH * (cur_nimg - later_start_kimg * 1000)
        half_life = max(half_life, min(grown, later_kimg * 1000))
    return 0.5 ** (batch_size / half_life)


@torch.no_grad()
def update_ema(average: torch.nn.Module, current: torch.nn.Module, beta: float, buffers: bool = False) -> None:
    """average ← current + beta · (average - current) for parameters; buffers are copied, or averaged likewise."""
    latest = dict(misc.named_params_and_buffers(current))
    for name, old in misc.named_params_and_buffers(average):
        if buffers or isinstance(old, torch.nn.Parameter):
            torch.lerp(latest[name], old, beta, out=old)
        else:
            old.copy_(latest[name])
