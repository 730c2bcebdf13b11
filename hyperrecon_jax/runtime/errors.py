"""The errors that are not bugs: wrong input of the caller, and training that diverges. And the warning about data."""


class InputError(ValueError):
    """A wrong argument, configuration, file or folder.

    The message is one sentence that names the argument and its value, and says what was expected. A command prints it
    and exits with status 2. All other exceptions, except `Diverged`, are bugs of this package and keep their traceback.
    """


class Diverged(ArithmeticError):
    """The loss or its gradient is NaN or infinite. The last checkpoint holds an earlier, good state."""


class DataWarning(UserWarning):
    """Values of the user's file were changed in a way that the user should know. A command prints it as a note."""
