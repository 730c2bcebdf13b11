"""The one exception that means: the caller's input is wrong, and the message says what to change."""


class InputError(ValueError):
    """A bad argument, configuration, file or folder.

    The message is one sentence that names the argument, its value and what was expected. A command line prints it
    and exits with status 2; any other exception is a defect of ours and keeps its traceback.
    """


class Diverged(ArithmeticError):
    """The loss or the gradient is NaN or infinite. The state before is in the last checkpoint."""
