"""The error of everything that reads network files."""
import pickle
import struct

from dnnlib.errors import UserError

MALFORMED = (  # what a damaged file can make of the functions that read it
    pickle.UnpicklingError, EOFError, AttributeError, ArithmeticError, ImportError, LookupError, TypeError, ValueError,
    MemoryError, RuntimeError, struct.error,
)  # fmt: skip

_MAX_LENGTH = 1000  # characters; names in a damaged file can be of any length


class CheckpointError(UserError, ValueError):
    """A network file that cannot be read, is refused, or does not hold what it should.

    Messages quote such files, so whatever cannot be printed on one line is escaped, and the middle of a very long one
    is left out.
    """

    def __init__(self, message: str, field: str | None = None) -> None:
        line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
        if len(line) > _MAX_LENGTH:
            line = f"{line[:_MAX_LENGTH * 3 // 4]} ... {line[-_MAX_LENGTH // 4:]}"
        super().__init__(line, field)


def describe(error: BaseException) -> str:
    """An exception's type and the first line of what it says; torch adds its call stack."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
