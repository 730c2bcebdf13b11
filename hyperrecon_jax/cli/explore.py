"""Open a page on which to move lambda and see the reconstruction.

    hyperrecon explore
    hyperrecon explore --run runs/quickstart

Without --run it opens the model that comes with the package. Ctrl-C ends it. The address that it prints has a token,
without which nobody gets an answer. The address of the page then holds what it shows: open the same address after a restart
to continue. As one file that holds the network and opens from disk, without a server:

    hyperrecon explore --export page.html
"""

import pathlib
import webbrowser

from absl import flags

from hyperrecon_jax.cli import command
from hyperrecon_jax.runtime import paths
from hyperrecon_jax.runtime.errors import InputError

RUN = flags.DEFINE_string("run", "pretrained", "Folder of a run, or 'pretrained': the model of the package.")
HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to listen at; others than 127.0.0.1 open the run to the network.")
ALLOW_HOST = flags.DEFINE_multi_string(
    "allow-host", [], "Further name under which a browser may open the page; repeatable."
)
PORT = flags.DEFINE_integer("port", 8080, "Port to listen at; 0: a free one.")
OPEN = flags.DEFINE_bool("open", True, "Open the browser.")
EXPORT = flags.DEFINE_string("export", None, "Write the page, with the network in it, to this .html file; serve nothing.")
SLICES = flags.DEFINE_integer("slices", 8, "With --export: the most test slices, evenly spaced.")

EXPOSED = (
    "It listens at {host}, so others can reach it over the network. Who has this address with its token sees the run, its"
    " images and the files that are opened, and can open and export files. The connection is not encrypted; that of an"
    " SSH tunnel is (docs/guides/explore.md)."
)


def explore() -> int:
    """Serve or export the page by the flags; returns the exit status."""
    run, page = command.parse_path(RUN), command.parse_path(EXPORT)
    if page is None and SLICES.present:
        raise InputError("--slices goes with --export FILE.html (see --help).")
    if page is not None:
        if page.suffix.lower() != ".html":
            raise InputError(f"--export must be a file that ends with .html, got {page}.")
        paths.check_file(page, argument="--export")
    from hyperrecon_jax import explorer
    from hyperrecon_jax.explorer import access, tokens
    from hyperrecon_jax.explorer.engine import Engine
    from hyperrecon_jax.runtime import machine  # after the flags: JAX takes seconds to import

    machine.configure_jax()
    if page is None:
        explorer.check_address(HOST.value, PORT.value)
        access.check_names(ALLOW_HOST.value, argument="--allow-host")
    engine = Engine(run or pathlib.Path("pretrained"))
    if engine.evaluation_note:
        print(engine.evaluation_note)
    if page is not None:
        file = explorer.export(engine, page, slices=SLICES.value)
        print(f"Open {file} ({file.stat().st_size / 1e6:.1f} MB) in a browser; it needs nothing else.")
        return 0
    is_local = HOST.value in access.LOOPBACK

    def show(address: str) -> None:
        print(f"The explorer is at {address} (Ctrl-C ends it).", flush=True)
        if not is_local:
            print(EXPOSED.format(host=HOST.value), flush=True)
        if OPEN.value and (file := tokens.write_opener(address)):
            webbrowser.open(file.as_uri())

    token = tokens.load_token() if is_local else tokens.make_token()
    explorer.serve(engine, token=token, host=HOST.value, port=PORT.value, allowed=ALLOW_HOST.value, ready=show)
    return 0


def main() -> None:
    command.run(explore)
