"""The one exception a user sees: a line that says what is wrong, where, and what to do."""


class EquintError(Exception):
    """Something the user gave cannot be used; the message names it and says what to do.

    The command line prints it as one line and exits with code 2.

    Example:
        >>> raise EquintError("model.onnx: truncated file; export it again")
        Traceback (most recent call last):
        ...
        equint.errors.EquintError: model.onnx: truncated file; export it again
    """
