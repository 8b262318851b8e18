"""JSON as the standard has it: no NaN or Infinity in or out, and no nesting that would exhaust the stack."""
import json
import math
from typing import Any, NoReturn


def loads(text: str | bytes) -> Any:
    """Parses JSON.

    Raises:
        ValueError: the text is no JSON, is not UTF-8, holds NaN or Infinity, or is nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def dumps(obj: object, indent: int | None = None) -> str:
    """Writes JSON in which a number that is not finite is null."""
    return json.dumps(_finite(obj), indent=indent, allow_nan=False)


def _finite(obj: object) -> Any:
    if isinstance(obj, float):
        return obj if math.isfinite(obj) else None
    if isinstance(obj, dict):
        return {key: _finite(value) for key, value in obj.items()}
    return [_finite(value) for value in obj] if isinstance(obj, (list, tuple)) else obj
