"""The commands in a checkout: `python -m bin.NAME`."""

import os
import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Ctrl-C prints no traceback while modules are imported; then `cli.command.run` handles it
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
