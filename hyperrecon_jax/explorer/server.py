"""The explorer's server: it listens at an address, and `handlers.py` answers."""

import socket
import threading
from collections.abc import Callable, Iterable

import uvicorn

from hyperrecon_jax.explorer import access, handlers
from hyperrecon_jax.explorer.engine import Engine
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.runtime.interrupts import BACKGROUND


def serve(
    engine: Engine,
    *,
    token: str,
    host: str = "127.0.0.1",
    port: int = 0,
    allowed: Iterable[str] = (),
    ready: Callable[[str], None] = print,
) -> None:
    """Serve until interrupted.

    Args:
        engine: computes the answers.
        token: who asks must have it.
        host: the address to listen at; any address but the loopback opens the run to the network.
        port: 0: a free port.
        allowed: further names under which a browser may open the page.
        ready: is called with the page's address as soon as it can be opened.

    Raises:
        InputError: if the server cannot listen at the address.
    """
    listener = listen(host, port)
    engine.compile_ahead()
    thread = start(make_server(engine, token=token, names=access.find_names(host, allowed)), listener)
    ready(page_address(listener, token))
    while thread.is_alive():  # an interruption ends the process from here, whatever the server does (`interrupts.finish`)
        thread.join(1)


def make_server(engine: Engine, *, token: str, names: frozenset[str] = access.LOOPBACK) -> uvicorn.Server:
    """The server of `handlers.app`, to be started on a socket. Its log is silent: `handlers.py` logs what goes wrong."""
    config = uvicorn.Config(
        handlers.app(engine, token=token, names=names),
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)


def start(http_server: uvicorn.Server, listener: socket.socket) -> threading.Thread:
    """Run a server in a thread, which may be abandoned at the end of the process."""
    thread = threading.Thread(target=http_server.run, args=([listener],), name=BACKGROUND, daemon=True)
    thread.start()
    return thread


def check_address(host: str, port: int) -> None:
    """Raise `InputError` if the server cannot listen at an address, before the work of loading a run."""
    listen(host, port).close()


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at an address; raises `InputError` if that is not possible."""
    if not host.strip():  # a socket would listen at all addresses
        raise InputError("The explorer needs a host to listen at, such as 127.0.0.1, got an empty one.")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except (OSError, OverflowError, TypeError, ValueError) as error:  # the last two: no name of a host
        listener.close()
        raise InputError(f"The explorer cannot listen at {host}, port {port}: {str(error).rstrip('.')}.") from None
    return listener


def page_address(listener: socket.socket, token: str) -> str:
    """The address of the page, with its token. A server at all addresses has the name of the machine."""
    host, port = listener.getsockname()[:2]
    host = socket.gethostname() if host in ("0.0.0.0", "::") else host
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/?token={token}"
