"""What a command writes on the error stream: errors and notes of one line each, and nothing of the libraries."""

import sys
import warnings
from typing import Any

from absl import logging

from hyperrecon_jax.runtime import paths
from hyperrecon_jax.runtime.errors import DataWarning

LONGEST_MESSAGE = 700  # characters
# Orbax writes in several threads: when one write fails, so do others, and the first error says all. The others read files:
# they log what they correct, for each file.
SILENT_LOGGERS = ("asyncio", "nibabel.global", "pydicom", "tifffile")


def print_error(message: object) -> None:
    """Print an error in one line.

    The line may have text of the user, of a file or of a library: control characters are shown, not sent to the terminal,
    and the middle of a very long text is left out.
    """
    text = paths.printable(" ".join(str(message).split()))
    if len(text) > LONGEST_MESSAGE:
        text = f"{text[: LONGEST_MESSAGE // 2]} ... {text[-LONGEST_MESSAGE // 2 :]}"
    print(f"error: {text}", file=sys.stderr)


def silence_libraries() -> None:
    """Keep warnings and log messages of libraries away from the user of a command."""
    logging.set_verbosity(logging.FATAL)
    for name in SILENT_LOGGERS:
        logging.get_absl_logger().manager.getLogger(name).disabled = True
    sys.unraisablehook = lambda _: None
    if not sys.warnoptions:  # `python -W` shows warnings
        warnings.simplefilter("ignore")


def show_data_warnings() -> None:
    """Print warnings about the user's data as one line each."""
    warnings.simplefilter("default", DataWarning)
    show_warning = warnings.showwarning

    def print_note(message: Warning | str, category: type[Warning], *place: Any, **options: Any) -> None:
        if issubclass(category, DataWarning):
            print(f"note: {paths.printable(str(message))}", file=sys.stderr)
        else:
            show_warning(message, category, *place, **options)

    warnings.showwarning = print_note
