"""The command lines, a module for each command: flags, and `main`, which `hyperrecon NAME` and `python -m bin.NAME` call.

The work itself is done by `commands`, `explorer`, `studies` and `benchmarks`. JAX takes seconds to import, so a command
imports these only after its flags are parsed: `--help` and mistakes are answered at once.
"""

import lazy_loader

COMMANDS = (
    "train",
    "evaluate",
    "choose",
    "explore",
    "export",
    "prepare",
    "study",
    "bench",
)  # in the order in which `hyperrecon --help` shows them

# Only the module of the command that runs is imported, because flags of the same name cannot be defined twice.
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=COMMANDS)
