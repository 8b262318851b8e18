"""Network pickles as every StyleGAN2-ADA descendant reads them, written all or not at all."""
import os
import pickle
from typing import Any

from dnnlib.files import open_atomic

PROTOCOL = 4  # the highest that every Python a stock tree runs on can read


def write_pickle(data: dict[str, Any], path: str | os.PathLike) -> None:
    """Pickles a dictionary of persistent modules and plain values to `path`, through a temporary name beside it."""
    with open_atomic(path, "wb") as f:
        pickle.dump(data, f, protocol=PROTOCOL)
