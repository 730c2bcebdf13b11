"""The explorer's server: the engine over HTTP, and the page.

    GET  /                    the page, and its files
    GET  /api/run             JSON: `Engine.about`
    GET  /api/slice           volume, index: float32 planes, little-endian (the input, and the truth); X-Info: JSON
    GET  /api/reconstruct     volume, index, lam=0.5 or 0.9,1: a float32 plane; X-Info: JSON
    GET  /api/diverse         volume, index, count: JSON
    GET  /api/best            volume, index, metric: JSON
    GET  /api/export          volume, index, lam (any number of them), format, window, level: a file
    POST /api/volumes         name, kind; the body is the file: JSON

What is wrong with a request is told in one sentence, {"error": ...}, and the server goes on.
"""

import asyncio
import json
import logging
import math
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import quote

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from hyperrecon_jax.explorer.engine import Engine
from hyperrecon_jax.runtime.errors import InputError

STATIC = Path(__file__).parent / "static"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
LARGEST = 2**29  # bytes of a file that is dropped
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}
Answer = Callable[[Request], Awaitable[Response]]


def app(engine: Engine, *, hosts: tuple[str, ...] = LOOPBACK) -> Starlette:
    """The application.

    Args:
        engine: what answers.
        hosts: the names under which a browser may reach it; a page of another name (DNS rebinding) gets nothing.
    """

    one_at_a_time = asyncio.Semaphore(1)

    async def about(request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(engine.about))

    async def slice_(request: Request) -> Response:
        return _plane(*await run_in_threadpool(engine.slice, *_place(request)))

    async def reconstruct(request: Request) -> Response:
        return _plane(*await run_in_threadpool(engine.reconstruct, *_place(request), _lambda(_given(request, "lam"))))

    async def diverse(request: Request) -> Response:
        lams, criterion = await run_in_threadpool(engine.diverse, *_place(request), _whole(request, "count", "6"))
        return JSONResponse({"lams": lams, "criterion": criterion})

    async def best(request: Request) -> Response:
        lam, value = await run_in_threadpool(engine.best, *_place(request), _given(request, "metric"))
        return JSONResponse({"lam": lam, "value": value if math.isfinite(value) else None})

    async def export(request: Request) -> Response:
        lams = [_lambda(text) for text in request.query_params.getlist("lam")]
        name, content = await run_in_threadpool(
            engine.export,
            *_place(request),
            lams,
            _given(request, "format"),
            window=_number(request, "window", "1"),
            level=_number(request, "level", "0.5"),
        )
        told = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}"}
        return Response(content, media_type="application/octet-stream", headers=told)

    async def add(request: Request) -> Response:
        if request.headers.get("origin") not in (None, f"{request.url.scheme}://{request.headers['host']}"):
            return _error("A file can be dropped on the explorer's own page alone.", 403)
        name, kind = _given(request, "name"), _given(request, "kind", "image")
        async with one_at_a_time:  # a few large ones would fill the memory
            content = bytearray()
            async for part in request.stream():
                content += part
                if len(content) > LARGEST:
                    return _error(f"The file is larger than {LARGEST // 2**20} MiB, the most that the explorer takes.", 413)
            volume = await run_in_threadpool(engine.shelf.add, name, bytes(content), kind)
        return JSONResponse(engine.shelf.volume(volume))

    async def page(request: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    routes = [
        Route("/", page),
        Route("/api/run", _told(about)),
        Route("/api/slice", _told(slice_)),
        Route("/api/reconstruct", _told(reconstruct)),
        Route("/api/diverse", _told(diverse)),
        Route("/api/best", _told(best)),
        Route("/api/export", _told(export)),
        Route("/api/volumes", _told(add), methods=["POST"]),
        Mount("/", StaticFiles(directory=STATIC)),
    ]

    async def headers(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers.update(HEADERS)
        return response

    only = [] if "*" in hosts else [Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)]
    return Starlette(routes=routes, middleware=[*only, Middleware(BaseHTTPMiddleware, dispatch=headers)])


def serve(engine: Engine, *, host: str = "127.0.0.1", port: int = 0, ready: Callable[[str], None] = print) -> None:
    """Serve until interrupted.

    Args:
        engine: what answers.
        host: the address to listen at; anything but the loopback opens the run to the network.
        port: 0: a free one.
        ready: gets the page's address when it can be opened.

    Raises:
        InputError: if the address cannot be had.
    """
    listening = listen(host, port)
    engine.warm()
    ready(address_of(listening))  # who connects before the next line waits in the socket's queue
    hosts = LOOPBACK if host in ("127.0.0.1", "localhost", "::1") else ("*",)
    make(engine, hosts=hosts).run([listening])


def make(engine: Engine, *, hosts: tuple[str, ...] = LOOPBACK) -> uvicorn.Server:
    """The server of `app`, to run on a socket."""
    return uvicorn.Server(uvicorn.Config(app(engine, hosts=hosts), log_level="error", timeout_graceful_shutdown=1))


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at an address; raises `InputError` if it cannot be had."""
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen()
    except (OSError, OverflowError) as error:
        listening.close()
        raise InputError(f"The explorer cannot listen at {host}, port {port}: {error}.") from None
    return listening


def address_of(listening: socket.socket) -> str:
    """The page's address."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def _told(answer: Answer) -> Answer:
    """A mistake becomes a sentence, a defect of ours one with status 500 and its traceback in the log."""

    async def told(request: Request) -> Response:
        try:
            return await answer(request)
        except InputError as error:
            return _error(str(error), 400)
        except ClientDisconnect:
            return _error("The file did not arrive whole.", 400)  # to nobody
        except Exception as error:
            logging.getLogger("hyperrecon_jax.explorer").exception("while answering %s", request.url.path)
            return _error(f"The explorer failed ({type(error).__name__}: {error}); this is a defect of it.", 500)

    return told


def _error(sentence: str, status: int) -> Response:
    return JSONResponse({"error": sentence}, status)


def _plane(values, known):
    return Response(
        values.astype("<f4").tobytes(),
        media_type="application/octet-stream",
        headers={"X-Info": json.dumps({"height": values.shape[-2], "width": values.shape[-1], **known})},
    )


def _place(request: Request) -> tuple[str, int]:
    return _given(request, "volume"), _whole(request, "index")


def _given(request: Request, name: str, default: str | None = None) -> str:
    value = request.query_params.get(name, default)
    if value is None:
        raise InputError(f"The request must have a {name}.")
    return value


def _whole(request: Request, name: str, default: str | None = None) -> int:
    text = _given(request, name, default)
    if not text.isdecimal() or len(text) > 9:
        raise InputError(f"The {name} must be a whole number, got {text[:40]!r}.")
    return int(text)


def _number(request: Request, name: str, default: str) -> float:
    text = _given(request, name, default)
    try:
        return float(text)
    except ValueError:
        raise InputError(f"The {name} must be a number, got {text[:40]!r}.") from None


def _lambda(text: str) -> list[float]:
    try:
        return [float(value) for value in text.split(",")]
    except ValueError:
        raise InputError(f"Lambda must be numbers with commas between them, got {text[:40]!r}.") from None
