"""The explorer's page in a notebook."""

import atexit
import html
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from hyperrecon_jax.explorer import jobs, offline_page, server, tokens
from hyperrecon_jax.explorer.engine import Engine


class Widget(NamedTuple):
    """The explorer of a run in a notebook; the page is shown if it is the last expression of a cell."""

    engine: Engine
    address: str  # of the page; "" if the page is inside of the notebook
    html: str  # the frame
    close: Callable[[], None]  # ends the server

    def _repr_html_(self) -> str:
        return self.html


def widget(run: str | Path, *, height: int = 900, inline: bool = False) -> Widget:
    """Show the page in a frame of a notebook.

    Args:
        run: the folder of a run.
        height: height of the frame, in pixels.
        inline: False: a server in a thread of this process computes what the page shows, so the browser must run on the
            machine of the kernel. True: the notebook holds the page of `export`, with its test slices. It works where the
            browser runs on another machine, and after the kernel has ended.
    """
    engine = Engine(Path(run))
    frame = f'width="100%" height="{height}" style="border: 0"'
    if inline:
        page = html.escape(offline_page.make_page(engine))
        # the frame may run scripts, but it is none of the notebook's pages
        return Widget(
            engine, "", f'<iframe sandbox="allow-scripts allow-downloads" srcdoc="{page}" {frame}></iframe>', _do_nothing
        )
    compilation = engine.compile_ahead()
    token = tokens.make_token()
    listener, http_server = server.listen("127.0.0.1", 0), server.make_server(engine, token=token)
    thread, address = server.start(http_server, listener), server.page_address(listener, token)

    def close() -> None:
        http_server.should_exit = True
        thread.join()

    def end() -> None:
        """Python aborts the process if a thread is inside of JAX at its end."""
        close()
        jobs.end_all()
        compilation.join()

    atexit.register(end)
    advice = "An empty frame means that the browser runs on another machine than the kernel: widget(run, inline=True)."
    return Widget(engine, address, f'<iframe src="{address}" {frame}></iframe><p><small>{advice}</small></p>', close)


def _do_nothing() -> None:
    """There is no server to end."""
