"""Seeded damage to plain values: dictionaries, lists, numbers, texts and tensors, as in options and states of runs."""
import copy
import math
import random
from collections.abc import Iterator
from typing import Any

import torch

_VALUES: list[Any] = [
    None, True, False, -1, 0, 1, 3, 1 << 13, 1 << 24, 1 << 30, 1 << 70, -0.5, 1e300, math.nan, math.inf, "", "x",
    "../x", "os.system", "\x1b[2J", [], [1], ["x", None], {}, {"x": 1}, {"class_name": "os.system"}, torch.zeros(3),
    torch.full([2, 2], 7),
]  # fmt: skip


def mutations(value: Any, seed: int, num: int, plain: bool) -> Iterator[Any]:
    """Copies of nested values with one to three nodes replaced, removed, or given to another name.

    Args:
        value: dictionaries and lists of anything.
        seed: of the choices.
        num: how many copies.
        plain: only values that JSON has.
    """
    rng = random.Random(seed)
    values = [other for other in _VALUES if not (plain and isinstance(other, torch.Tensor))]
    for _ in range(num):
        changed = copy.deepcopy(value)
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            _change(changed, rng, values)
        yield changed


def _change(root: Any, rng: random.Random, values: list[Any]) -> None:
    node = root
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = rng.choice(keys)
        if not isinstance(node[key], (dict, list)) or rng.random() < 0.3:
            break
        node = node[key]
    kind = rng.randrange(5)
    if kind == 0:
        del node[key]
    elif kind == 1 and isinstance(node, dict):
        node[rng.choice(["x", "class_name", "", *keys])] = node.pop(key)
    elif kind == 2 and isinstance(node[key], torch.Tensor):
        node[key] = rng.choice([node[key].half(), node[key][None], node[key].flatten()[:1], node[key] * math.nan])
    else:
        node[key] = copy.deepcopy(rng.choice(values))
