"""Channel counts of StyleGAN3 generators, layer by layer, and the constructor arguments that express them.

A list of widths is that of the input, then of the outputs of all layers but the last. No torch here.
"""
import math
from collections.abc import Sequence


def stock_widths(cutoffs: Sequence[float], channel_base: int, channel_max: int) -> list[int]:
    """The widths of a stock network; `cutoffs` are the output cutoff frequencies of all layers but the last."""
    widths = [round(min(channel_base / 2 / cutoff, channel_max)) for cutoff in cutoffs]
    return [widths[0], *widths]


def stock_arguments(cutoffs: Sequence[float], widths: Sequence[int]) -> dict[str, int] | None:
    """channel_base and channel_max that give exactly these widths, or None if no stock network has them.

    The pair returned has the smallest channel_max; of the bases that fit, one that many powers of two divide.
    """
    channel_max = max(widths)
    low, high = 1, math.ceil(2 * max(cutoffs) * (channel_max + 1))
    for cutoff, width in zip(cutoffs, widths[1:]):
        low = max(low, math.ceil(2 * cutoff * (width - 0.5)))
        if width < channel_max:
            high = min(high, math.floor(2 * cutoff * (width + 0.5)))
    for shift in range(high.bit_length(), -1, -1):
        base = (high >> shift) << shift
        if base >= low and stock_widths(cutoffs, base, channel_max) == list(widths):
            return {"channel_base": base, "channel_max": channel_max}
    return None


def width_arguments(cutoffs: Sequence[float], widths: Sequence[int]) -> dict[str, int | list[int]]:
    """Stock arguments where a stock network has these widths, else the list of widths."""
    stock = stock_arguments(cutoffs, widths)
    return {**stock} if stock is not None else {"layer_channels": list(widths)}
