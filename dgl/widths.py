"""How many channels a student keeps."""
from collections.abc import Mapping
from fractions import Fraction


def scaled(sets: Mapping[str, int], width: Fraction) -> dict[str, int]:
    """max(1, floor(width · C)) channels of every set, computed exactly.

    Raises:
        ValueError: width is not above 0 and up to 1.
    """
    if not 0 < width <= 1:
        raise ValueError(f"width: expected a fraction above 0 and up to 1, found {width}")
    return {name: max(1, size * width.numerator // width.denominator) for name, size in sets.items()}
