"""What every command shares: flags in, one clear sentence and status 2 for a user's mistake."""

import signal
import sys
import warnings
from collections.abc import Callable, Sequence

from absl import flags, logging

from bin import _config
from hyperrecon_jax.runtime.errors import Diverged, InputError


def main(run: Callable[..., int], *, folders: bool = False) -> None:
    """Parse the flags, call `run`, exit with what it returns; with `folders` it gets the arguments that are no flags.

    A mistake of the user ends with one sentence and status 2, training that diverged with 1, Ctrl-C and SIGTERM with 130.
    Anything else is a defect of ours and keeps its traceback.
    """
    _quieten()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        if {"--help", "-h"} & set(sys.argv[1:]):
            sys.exit(_help())
        with _config.errors():
            rest = flags.FLAGS(sys.argv)[1:]
        if rest and not folders:
            raise InputError(f"Unknown argument {rest[0]!r}; see --help.")
        sys.exit(run(rest) if folders else run())
    except InputError as error:
        _fail(error, 2)
    except Diverged as error:
        _fail(error, 1)
    except KeyboardInterrupt:
        _fail("interrupted.", 130)
    except Exception:
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
            raise
        _fail("interrupted.", 130)  # a library made something else of it


def numbers(flag: str, values: Sequence[str]) -> list[float]:
    """The numbers of a flag that is a list.

    Raises:
        InputError: if one is none.
    """
    try:
        return [float(value) for value in values]
    except ValueError:
        raise InputError(f"--{flag} must be numbers, got {','.join(values)}.") from None


def _terminate(*_: object) -> None:
    """SIGTERM is as Ctrl-C, so that what is under way cleans up; a second one changes nothing."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _quieten() -> None:
    """What libraries log about an error they raise, too; what else they say is not for the user of a command."""
    logging.set_verbosity(logging.FATAL)
    logging.get_absl_logger().manager.getLogger("asyncio").disabled = True  # Orbax's writes that fail beside the first
    sys.unraisablehook = lambda _: None  # Orbax's threads, when one of them has failed
    if not sys.warnoptions:  # python -W shows them
        warnings.simplefilter("ignore")


def _help() -> None:
    print((sys.modules["__main__"].__doc__ or "").strip() + "\n\nFlags:")
    ours = flags.FLAGS.get_key_flags_for_module(sys.argv[0])
    width = max(10, *(len(flag.name) + 2 for flag in ours))
    for flag in ours:
        print(f"  --{flag.name:<{width}}{flag.help}")


def _fail(message: object, status: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)
