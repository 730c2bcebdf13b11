"""Open a page on which to move lambda and see the reconstruction.

    python -m bin.explore --run runs/quickstart
    python -m bin.explore --run runs/quickstart --export talk --slices 4    # one page that opens from disk

Ctrl-C ends it. What the page shows is in its address: open it again after a restart and go on.
"""

import pathlib
import webbrowser

from absl import flags

from bin import _cli
from hyperrecon_jax.runtime.errors import InputError

RUN = flags.DEFINE_string("run", None, "Folder of a run.")
HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to listen at; others than 127.0.0.1 open the run to the network.")
PORT = flags.DEFINE_integer("port", 8080, "Port to listen at; 0: a free one.")
OPEN = flags.DEFINE_bool("open", True, "Open the browser.")
EXPORT = flags.DEFINE_string("export", None, "Write the page with test slices in it to this folder, and serve nothing.")
SLICES = flags.DEFINE_integer("slices", 4, "Of --export: how many test slices, spread over the split.")
POINTS = flags.DEFINE_integer("points", None, "Of --export: points along each lambda (default: 41 of one, 9 of two).")


def explore() -> int:
    if not RUN.value:
        raise InputError("Say what to explore: --run RUN (see --help).")
    from hyperrecon_jax import explorer
    from hyperrecon_jax.explorer.engine import Engine
    from hyperrecon_jax.runtime import machine  # after the flags: JAX takes seconds to import

    machine.configure_jax()
    engine = Engine(pathlib.Path(RUN.value))
    if EXPORT.value:
        file = explorer.export(engine, pathlib.Path(EXPORT.value), slices=SLICES.value, points=POINTS.value, progress=True)
        print(f"Open {file} in a browser; it needs nothing else.")
        return 0
    explorer.serve(engine, host=HOST.value, port=PORT.value, ready=_ready)
    return 0


def _ready(address: str) -> None:
    print(f"The explorer is at {address} (Ctrl-C ends it).", flush=True)
    if OPEN.value:
        webbrowser.open(address)


if __name__ == "__main__":
    _cli.main(explore)
