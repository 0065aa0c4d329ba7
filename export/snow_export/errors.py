"""The errors that a user of `snow-export` sees: one line that says what, where, and what to do next."""


class ExportError(Exception):
    """The export cannot be done; the message is complete and is printed as it is (exit code 2)."""
