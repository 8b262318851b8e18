"""The exceptions that stand for a user's mistake: one readable line, no traceback needed."""


def printable(text: str) -> str:
    """A text as it can go to a terminal: control characters and bytes that are no UTF-8 become escapes.

    Line breaks and tabs stay.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


class UserError(Exception):
    """Something the user can put right: the message names the argument or file, what was expected and what was found.

    In the message, an argument is written `name` or `name=value`, in backquotes. Command lines show it as their flag
    (`dnnlib.cli.in_flags`); a caller in Python reads the name that he passed.

    Args:
        message: what is wrong, and what to do.
        field: the argument that is wrong, if it is one.
    """

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field

    def __str__(self) -> str:
        return self.message if self.field is None else f"{self.field}: {self.message}"


class FileError(UserError, OSError):
    """A file or folder that cannot be read or written.

    Args:
        message: as for UserError.
        field: likewise.
        reason: what is wrong without the file's name, for callers that call the file something else.
    """

    def __init__(self, message: str, field: str | None = None, reason: str | None = None) -> None:
        super().__init__(message, field)
        self.reason = message if reason is None else reason


class UrlError(UserError, OSError):
    """A URL that cannot be fetched, or whose content is not the expected one."""
