"""The explorer: move lambda, see the reconstruction. A small local server, a page, and the page as a file without a server.

volume_store.py  the volumes that can be shown, by tab, and their slices as they are measured
opening.py       what measures the slices of a file, and what is said of it
uploads.py       the files that were dropped, kept to be cut in another plane
measurement.py   measured k-space as samples; coil_samples.py: the same of several coils, in a process aside
measurement_band.py  what of a result the measurement contradicts
programs.py      the compiled programs of a run
engine.py        reconstructions, their scores, diverse ones, the best lambda
run_description.py   what the page says of a run
exporting.py     files to take away
jobs.py          long work for a page: how far it is, and its end when nobody wants the answer any more
shared_cache.py  a cache for threads
access.py        who gets an answer of the server; tokens.py: the token without which nobody does
handlers.py      which address has which answer of the engine; parameters.py: what a request asks for
receiving.py     files that are sent to the server
server.py        listens, by default on this machine only
page.py          the page in a notebook
offline_page.py  the page as a file that holds the network and computes in the viewer's browser
static/          the page: HTML, styles and scripts; network/: the network in JavaScript and WebAssembly
"""

from hyperrecon_jax.explorer.offline_page import export
from hyperrecon_jax.explorer.page import widget
from hyperrecon_jax.explorer.server import check_address, serve

__all__ = ["check_address", "export", "serve", "widget"]
