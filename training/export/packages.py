"""Optional packages: imported when a format needs them, with an error that says how to get them."""
import importlib
from collections.abc import Sequence
from typing import Any

from dnnlib.errors import UserError


def require(names: Sequence[str], extra: str, purpose: str) -> list[Any]:
    """Imports optional packages.

    Args:
        names: of the modules.
        extra: the optional dependency group of this project that installs them.
        purpose: what they are needed for, as the subject of the error message.

    Returns:
        The modules, in the order of the names.

    Raises:
        UserError: one of them is missing; names the extra and the packages.
    """
    try:
        return [importlib.import_module(name) for name in names]
    except ModuleNotFoundError as error:
        top_level = dict.fromkeys(name.split(".")[0] for name in names)
        raise UserError(f"{purpose} needs the package {error.name}, which is not installed; "
                        f"install the extra [{extra}]: pip install {' '.join(top_level)}") from error
