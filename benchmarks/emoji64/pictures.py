"""Which emoji are one picture, and which pictures are for testing.

An emoji is named by its code points in hexadecimal, `1f469-1f3fb-200d-1f33e`. Its picture is what is left without skin
tone, gender and direction: the same for all farmers of all vendors.
"""
import hashlib
import re
from collections.abc import Iterable, Mapping

TEST_PART = 0.2  # of the pictures

_ZERO_WIDTH_JOINER, _VARIATION, _END_OF_TAGS = "200d", "fe0f", "e007f"
_TONES = ("1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff")
_FEMALE, _MALE, _RIGHTWARDS = "2640", "2642", "27a1"
_JOINTS = {_ZERO_WIDTH_JOINER, _VARIATION, _END_OF_TAGS}
_VARIANTS = {*_TONES, _FEMALE, _MALE, _RIGHTWARDS}
_PERSON, _CHILD = "1f9d1", "1f9d2"
_NEUTRAL = {  # a code point that has a gender → the one that has none, or the first of its kind
    "1f468": _PERSON, "1f469": _PERSON,  # man, woman
    "1f466": _CHILD, "1f467": _CHILD,  # boy, girl
    "1f474": "1f9d3", "1f475": "1f9d3",  # old man, old woman
    "1f934": "1fac5", "1f478": "1fac5",  # prince, princess
    "1f57a": "1f483",  # man and woman dancing
    "1f930": "1fac4", "1fac3": "1fac4",  # pregnant
    "1f936": "1f385",  # Mrs. Claus
    "1f46c": "1f46b", "1f46d": "1f46b",  # two men, two women holding hands
}
_SAME = {  # a sequence of neutral code points → the code point of the same picture
    (_PERSON, "1f384"): "1f385",  # Mx Claus
    (_PERSON, "1f91d", _PERSON): "1f46b",  # holding hands
    (_PERSON, "2764", "1f48b", _PERSON): "1f48f",  # kiss
    (_PERSON, "2764", _PERSON): "1f491",  # couple with heart
    ("1faf1", "1faf2"): "1f91d",  # handshake
}
_FAMILY = "1f46a"


def picture(name: str) -> str:
    """The picture of an emoji, for example `1f9d1-1f33e` of `1f469-1f3fb-200d-1f33e`."""
    points = [point.lstrip("0") for point in re.split("[-_]", name)]
    points = [point for point in points if point not in _JOINTS]
    neutral = tuple(_NEUTRAL.get(point, point) for point in points if point not in _VARIANTS)
    if not neutral:  # the sign of a gender, or a tone, by itself
        return "-".join(points)
    if len(neutral) > 1 and {*neutral} <= {_PERSON, _CHILD}:
        return _FAMILY
    return _SAME.get(neutral, "-".join(neutral))


def joined(pictures: Iterable[str], same: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The group of every picture: pictures that are said to be the same, directly or over others, have one group.

    Args:
        pictures: all of them.
        same: pairs.

    Returns:
        Picture → the first picture of its group, as strings are sorted.
    """
    group = {name: name for name in sorted(pictures)}
    for pair in same:
        first, second = sorted(group[name] for name in pair)
        group = {name: first if root == second else root for name, root in group.items()}
    return group


def is_for_test(group: str) -> bool:
    """Whether a group of pictures is for testing: a fifth of them, by a digest of its name, whatever others exist."""
    number = int.from_bytes(hashlib.sha256(group.encode()).digest()[:4], "big")
    return number < TEST_PART * 2**32


def split(names: Iterable[str], same: Iterable[tuple[str, str]] = ()) -> Mapping[str, bool]:
    """For the name of every emoji, whether it is for testing.

    Args:
        names: of all emoji.
        same: pairs of names whose images are identical, so that their pictures count as one.
    """
    of_name = {name: picture(name) for name in names}
    group = joined(of_name.values(), ((of_name[first], of_name[second]) for first, second in same))
    return {name: is_for_test(group[root]) for name, root in of_name.items()}
