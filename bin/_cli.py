"""What every command shares: flags in, one clear sentence and status 2 for a user's mistake."""

import sys
from collections.abc import Callable

from absl import flags

from hyperrecon_jax.errors import InputError


def main(run: Callable[[], int]) -> None:
    """Parse the flags, call `run`, exit with what it returns.

    A mistake of the user ends with one sentence and status 2, Ctrl-C with 130. Anything else is a defect of ours and
    keeps its traceback.
    """
    try:
        _parse()
        sys.exit(run())
    except InputError as error:
        _fail(error, 2)
    except KeyboardInterrupt:
        _fail("interrupted.", 130)


def _parse() -> None:
    """Flags and the config file; config_flags raises a kind of its own for each way in which a file or key is wrong."""
    try:
        rest = flags.FLAGS(sys.argv)[1:]
    except InputError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        raise InputError(text or type(error).__name__) from error
    if rest:
        raise InputError(f"Unknown argument {rest[0]!r}; see --help.")


def _fail(message: object, status: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)
