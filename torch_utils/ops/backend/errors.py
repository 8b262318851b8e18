"""Errors of compiled kernels. Unless the user insists on them, the caller falls back to plain torch."""


class BackendError(RuntimeError):
    """A way to get kernels that does not work here; the message is one clause, and says what to do if that is known."""
