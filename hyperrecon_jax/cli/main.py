"""The program `hyperrecon`: it shows its commands, or starts one of them."""

import ast
import difflib
import os
import signal
import sys
from pathlib import Path

import hyperrecon_jax
from hyperrecon_jax import cli
from hyperrecon_jax.cli import messages


def main() -> None:
    """Start the command that the first argument names; the others are its flags."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Ctrl-C prints no traceback while the command is imported; then `command.run` handles it
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h"):
        print(overview())
    elif name == "--version":
        print(hyperrecon_jax.__version__)
    elif name not in cli.COMMANDS:
        messages.print_error(_explain_unknown(name))
        sys.exit(2)
    else:
        sys.argv[1:] = arguments
        getattr(cli, name).main()


def overview() -> str:
    """Return the help text: the commands, with the first line of each module's docstring."""
    width = max(map(len, cli.COMMANDS))
    lines = [f"  {name:<{width}}  {_summary(name)}" for name in cli.COMMANDS]
    return "\n".join(
        [
            "Controllable image reconstruction: one network, a reconstruction for every setting of its loss weights.",
            "",
            "    hyperrecon COMMAND --flag value ...",
            "    hyperrecon COMMAND --help",
            "    hyperrecon --version",
            "",
            "Commands:",
            *lines,
        ]
    )


def _explain_unknown(name: str) -> str:
    """Say that there is no command of this name, and which has a similar one."""
    similar = difflib.get_close_matches(name.strip().lower()[:20], (*cli.COMMANDS, "--version", "--help"), n=1, cutoff=0.7)
    return f"Unknown command {name!r}; {f'did you mean {similar[0]}? See' if similar else 'see'} hyperrecon --help."


def _summary(name: str) -> str:
    """Read a command's summary from its file, because an import would define its flags."""
    docstring = ast.get_docstring(ast.parse(Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")))
    return (docstring or "").partition("\n")[0]
