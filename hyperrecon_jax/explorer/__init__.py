"""The explorer: move lambda, see the reconstruction. A small local server, a page, and the same page as a file for a talk.

volume_store.py  the volumes that can be shown, and their slices as they are measured, with any acquisition of a range
measurement.py   measured k-space as samples
programs.py      the compiled programs of a run
engine.py        reconstructions, their scores, diverse ones, the best lambda; exported files
server.py        the engine over HTTP, by default on this machine only
page.py          the page as a file that opens from disk, and the page in a notebook
static/          the page: HTML, styles and scripts
"""

from hyperrecon_jax.explorer.page import export, widget
from hyperrecon_jax.explorer.server import check_address, serve

__all__ = ["check_address", "export", "serve", "widget"]
