"""Channel counts of StyleGAN2 networks, layer by layer, and the constructor arguments that express them.

No torch here: this is arithmetic on integers.
"""
from collections.abc import Sequence

# Orders of a width list. Generator: the constant, b4.conv1, then conv0 and conv1 of b8, b16, ...
# Discriminator: the first block's input, then conv0 and conv1 of every block from the top, then b4.conv and b4.fc.


def block_resolutions(img_resolution: int) -> list[int]:
    """4, 8, ..., img_resolution."""
    return [2**i for i in range(2, img_resolution.bit_length())]


def stock_width(res: int, channel_base: int, channel_max: int) -> int:
    """The width of a stock network at one resolution."""
    return min(channel_base // res, channel_max)


def generator_widths(img_resolution: int, channel_base: int = 32768, channel_max: int = 512) -> list[int]:
    """A stock generator's width list."""
    return [stock_width(res, channel_base, channel_max) for res in block_resolutions(img_resolution) for _ in range(2)]


def discriminator_widths(img_resolution: int, channel_base: int = 32768, channel_max: int = 512) -> list[int]:
    """A stock discriminator's width list."""
    table = {res: stock_width(res, channel_base, channel_max) for res in block_resolutions(img_resolution)}
    widths = [table[img_resolution]]
    for res in block_resolutions(img_resolution)[:0:-1]:
        widths += [table[res], table[res // 2]]
    return [*widths, table[4], table[4]]


def _per_resolution(img_resolution: int, widths: Sequence[int], stock: Sequence[int]) -> dict[int, int] | None:
    """Resolution → width if the list has the structure of a stock network, else None.

    `stock` is the width list of a stock network whose every width is its own resolution, i.e. the pattern to match.
    """
    table: dict[int, int] = {}
    for res, width in zip(stock, widths):
        if table.setdefault(res, width) != width:
            return None
    return table


def stock_arguments(img_resolution: int, widths: Sequence[int], discriminator: bool) -> dict[str, int] | None:
    """channel_base and channel_max that give exactly these widths, or None if no stock network has them.

    The pair returned has the smallest channel_max and the largest channel_base ≤ channel_max·img_resolution that fit.
    """
    resolutions = block_resolutions(img_resolution)
    pattern = [res for res in resolutions for _ in range(2)]
    if discriminator:
        pattern = [img_resolution]
        for res in resolutions[:0:-1]:
            pattern += [res, res // 2]
        pattern += [4, 4]
    table = _per_resolution(img_resolution, widths, pattern)
    if table is None or len(widths) != len(pattern):
        return None
    channel_max = max(table.values())
    low, high = 0, channel_max * img_resolution
    for res, width in table.items():
        low = max(low, width * res)
        if width < channel_max:
            high = min(high, (width + 1) * res - 1)
    if low > high:
        return None
    base = _roundest(low, high)
    return {"channel_base": base, "channel_max": channel_max}


def _roundest(low: int, high: int) -> int:
    """The integer in [low, high] that is divisible by the largest power of two."""
    for shift in range(high.bit_length(), -1, -1):
        candidate = (high >> shift) << shift
        if candidate >= low:
            return candidate
    return high
