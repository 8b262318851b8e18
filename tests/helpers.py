"""What several test files share."""
import functools
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent / "golden"


@functools.cache
def golden(name: str) -> dict[str, np.ndarray]:
    """The reference arrays of tests/golden/<name>.npz."""
    with np.load(GOLDEN / f"{name}.npz") as data:
        return dict(data)
