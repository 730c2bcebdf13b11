"""The explorer: move lambda, see the reconstruction. A small local server, a page, and the page as a file without a server.

volume_store.py  the volumes that can be shown, and their slices as they are measured, with any acquisition of a range
measurement.py   measured k-space as samples
coil_samples.py  the same of several coils, in a process aside
programs.py      the compiled programs of a run
engine.py        reconstructions, their scores, diverse ones, the best lambda; exported files
jobs.py          long work for a page: how far it is, and its end when nobody wants the answer any more
shared_cache.py  a cache for threads
access.py        who gets an answer of the server
tokens.py        the token without which nobody does
receiving.py     files that are sent to the server
server.py        the engine over HTTP, by default on this machine only
page.py          the page as one text, and in a notebook
offline_page.py  the page as a file that holds the network and computes in the viewer's browser
static/          the page: HTML, styles and scripts; network/: the network in JavaScript; vendor/: TensorFlow.js
"""

from hyperrecon_jax.explorer.offline_page import export
from hyperrecon_jax.explorer.page import widget
from hyperrecon_jax.explorer.server import check_address, serve

__all__ = ["check_address", "export", "serve", "widget"]
