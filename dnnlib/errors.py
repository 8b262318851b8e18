"""The exceptions that stand for a user's mistake: one readable line, no traceback needed."""


class UserError(Exception):
    """Something the user can put right: the message names the flag or file, what was expected and what was found."""


class FileError(UserError, OSError):
    """A file or folder that cannot be read or written."""


class UrlError(UserError, OSError):
    """A URL that cannot be fetched, or whose content is not what was asked for."""
