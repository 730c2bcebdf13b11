"""The explorer: move lambda, see the reconstruction. A small local server, one page, and the same page for a talk.

shelf.py    the volumes on show, and their slices as they are measured
engine.py   what is computed: reconstructions, their scores, diverse ones, the best lambda; files read and written
server.py   the engine over HTTP, on this machine alone unless asked
page.py     the page with what it shows inside, as one file that opens from disk; and the page in a notebook
static/     the page
"""

from hyperrecon_jax.explorer.page import export, widget
from hyperrecon_jax.explorer.server import serve

__all__ = ["export", "serve", "widget"]
