"""The explorer's server: the engine over HTTP, and the page.

    GET  /                    the page and its files
    GET  /api/run             tab, volume: JSON, `Engine.describe` with the volumes of a tab and the one of a link
    GET  /api/slice           volume, index: float32 planes, little-endian (the input, and the truth); X-Info: JSON
    GET  /api/reconstruct     volume, index, lam=0.5 or 0.9,1: a float32 plane; X-Info: JSON
    GET  /api/contradiction   volume, index, lam: a float32 plane, what the measurement contradicts; X-Info: JSON
    GET  /api/diverse         volume, index, count: JSON
    GET  /api/best            volume, index, metric: JSON
    GET  /api/export          volume, index, lam (one or more), format, content, window, level: a file
    GET  /api/export-volume   volume, lam, format, content: all slices in a file
    GET  /api/export-scores   volume, lam: a file
    POST /api/volumes         name, kind, plane, tab; the body is the file: JSON; or files, kind, plane, tab: the body is a
                              line of JSON, [[name, bytes], ...], and then these files: JSON of a list
    POST /api/cut             volume, plane, frame, tab: JSON of a list, the volumes of the same files cut again
    POST /api/remove          volume, tab

Where a request names a slice, it may also have acquisition=acceleration=4,sigma=0.02,mask=random_lines: how the slice is
measured, for a run with a range of acquisitions.

A wrong request gets a sentence, {"error": ...}, and the server goes on.
"""

import asyncio
import io
import json
import logging
import math
import socket
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import IO
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

from hyperrecon_jax.explorer import exporting
from hyperrecon_jax.explorer.engine import Engine
from hyperrecon_jax.runtime.errors import InputError

STATIC = Path(__file__).parent / "static"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
MAX_UPLOAD_BYTES = 2**29  # bytes of a dropped file
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}
Handler = Callable[[Request], Awaitable[Response]]


def app(engine: Engine, *, hosts: tuple[str, ...] = LOOPBACK) -> Starlette:
    """The application.

    Args:
        engine: computes the answers.
        hosts: the host names that a browser may use; a page of another name (DNS rebinding) gets nothing.
    """
    upload_slot = asyncio.Semaphore(1)  # one file at a time is read: several large ones would fill the memory
    routes = [
        Route("/", _send_page),
        Route("/api/run", _report_errors(partial(_send_run, engine))),
        Route("/api/slice", _report_errors(partial(_send_slice, engine))),
        Route("/api/reconstruct", _report_errors(partial(_send_reconstruction, engine))),
        Route("/api/contradiction", _report_errors(partial(_send_contradiction, engine))),
        Route("/api/diverse", _report_errors(partial(_send_diverse, engine))),
        Route("/api/best", _report_errors(partial(_send_best, engine))),
        Route("/api/export", _report_errors(partial(_send_export, engine))),
        Route("/api/export-volume", _report_errors(partial(_send_volume, engine))),
        Route("/api/export-scores", _report_errors(partial(_send_scores, engine))),
        Route("/api/cut", _report_errors(partial(_cut_volume, engine, upload_slot)), methods=["POST"]),
        Route("/api/remove", _report_errors(partial(_remove_volume, engine)), methods=["POST"]),
        Route("/api/volumes", _report_errors(partial(_add_volume, engine, upload_slot)), methods=["POST"]),
        Mount("/", StaticFiles(directory=STATIC)),
    ]
    host_check = [] if "*" in hosts else [Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)]
    return Starlette(routes=routes, middleware=[*host_check, Middleware(BaseHTTPMiddleware, dispatch=_add_headers)])


def serve(engine: Engine, *, host: str = "127.0.0.1", port: int = 0, ready: Callable[[str], None] = print) -> None:
    """Serve until interrupted.

    Args:
        engine: computes the answers.
        host: the address to listen at; any address but the loopback opens the run to the network.
        port: 0: a free port.
        ready: is called with the page's address as soon as it can be opened.

    Raises:
        InputError: if the server cannot listen at the address.
    """
    listener = listen(host, port)
    engine.compile_ahead()
    ready(page_address(listener))  # a browser that connects before the next line waits in the socket's queue
    hosts = LOOPBACK if host in ("127.0.0.1", "localhost", "::1") else ("*",)
    make_server(engine, hosts=hosts).run([listener])


def make_server(engine: Engine, *, hosts: tuple[str, ...] = LOOPBACK) -> uvicorn.Server:
    """The server of `app`, to run on a socket."""
    return uvicorn.Server(uvicorn.Config(app(engine, hosts=hosts), log_level="error", timeout_graceful_shutdown=1))


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


def page_address(listener: socket.socket) -> str:
    """The address of the page."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


# The handlers of the routes. The engine computes in threads, so that the server can answer others meanwhile.


async def _send_page(request: Request) -> Response:
    return FileResponse(STATIC / "index.html")


async def _send_run(engine: Engine, request: Request) -> Response:
    tab, linked = _parameter(request, "tab", ""), _parameter(request, "volume", "")
    description = await run_in_threadpool(engine.describe, tab, linked)
    return JSONResponse(description | {"max_upload_bytes": MAX_UPLOAD_BYTES})


async def _send_slice(engine: Engine, request: Request) -> Response:
    planes, info = await run_in_threadpool(
        engine.input_and_reference, *_slice_id(request), acquisition=_acquisition(request)
    )
    return _planes_response(planes, info)


async def _send_reconstruction(engine: Engine, request: Request) -> Response:
    volume, index = _slice_id(request)
    lam = _parse_lambda(_parameter(request, "lam"))
    return _planes_response(
        *await run_in_threadpool(engine.reconstruct, volume, index, lam, acquisition=_acquisition(request))
    )


async def _send_contradiction(engine: Engine, request: Request) -> Response:
    lam = _parse_lambda(_parameter(request, "lam"))
    return _planes_response(
        *await run_in_threadpool(engine.contradiction, *_slice_id(request), lam, acquisition=_acquisition(request))
    )


async def _send_diverse(engine: Engine, request: Request) -> Response:
    volume, index = _slice_id(request)
    count = _whole_number(request, "count", "6")
    lams, criterion = await run_in_threadpool(
        engine.select_diverse, volume, index, count, acquisition=_acquisition(request)
    )
    return JSONResponse({"lams": lams, "criterion": criterion})


async def _send_best(engine: Engine, request: Request) -> Response:
    metric = _parameter(request, "metric")
    lam, value = await run_in_threadpool(engine.find_best, *_slice_id(request), metric, acquisition=_acquisition(request))
    return JSONResponse({"lam": lam, "value": value if math.isfinite(value) else None})


async def _send_export(engine: Engine, request: Request) -> Response:
    lams = [_parse_lambda(text) for text in request.query_params.getlist("lam")]
    return _file_response(
        *await run_in_threadpool(
            exporting.export_slices,
            engine,
            *_slice_id(request),
            lams,
            _parameter(request, "format"),
            content=_parameter(request, "content", "result"),
            window=_number(request, "window", "1"),
            level=_number(request, "level", "0.5"),
            acquisition=_acquisition(request),
        )
    )


async def _send_volume(engine: Engine, request: Request) -> Response:
    return _file_response(
        *await run_in_threadpool(
            exporting.export_volume,
            engine,
            _parameter(request, "volume"),
            _parse_lambda(_parameter(request, "lam")),
            _parameter(request, "format"),
            content=_parameter(request, "content", "result"),
            acquisition=_acquisition(request),
        )
    )


async def _send_scores(engine: Engine, request: Request) -> Response:
    volume, lam = _parameter(request, "volume"), _parse_lambda(_parameter(request, "lam"))
    return _file_response(
        *await run_in_threadpool(exporting.export_scores, engine, volume, lam, acquisition=_acquisition(request))
    )


async def _cut_volume(engine: Engine, upload_slot: asyncio.Semaphore, request: Request) -> Response:
    if not _is_from_own_page(request):
        return _error("A volume can be cut from the explorer's own page alone.", 403)
    cut_again = partial(engine.volumes.cut_again, _parameter(request, "volume"), plane=_parameter(request, "plane"))
    frame, tab = _whole_number(request, "frame", "0"), _parameter(request, "tab", "")
    async with upload_slot:
        ids = await run_in_threadpool(cut_again, frame=frame, tab=tab)
    return JSONResponse([engine.volumes.describe(volume) for volume in ids])


async def _remove_volume(engine: Engine, request: Request) -> Response:
    if not _is_from_own_page(request):
        return _error("A volume can be removed from the explorer's own page alone.", 403)
    engine.volumes.remove(_parameter(request, "volume"), tab=_parameter(request, "tab", ""))
    return JSONResponse({})


async def _add_volume(engine: Engine, upload_slot: asyncio.Semaphore, request: Request) -> Response:
    if not _is_from_own_page(request):
        return _error("A file can be dropped on the explorer's own page alone.", 403)
    has_files = _parameter(request, "files", "") != ""
    name, kind = _parameter(request, "name", "" if has_files else None), _parameter(request, "kind", "image")
    plane, tab = _parameter(request, "plane", "acquired"), _parameter(request, "tab", "")
    async with upload_slot:
        with tempfile.TemporaryFile() as body:  # not in memory, where it would be there twice
            async for chunk in request.stream():
                body.write(chunk)
                if body.tell() > MAX_UPLOAD_BYTES:
                    return _error(
                        f"The file is larger than {MAX_UPLOAD_BYTES // 2**20} MiB, the most that the explorer takes.", 413
                    )
            body.seek(0)
            files = _split_files(body) if has_files else [(name, body.read())]
        added = await run_in_threadpool(engine.volumes.add_series, files, plane, kind=kind, tab=tab)
    described = [engine.volumes.describe(volume) for volume in added]
    return JSONResponse(described if has_files else described[0])


async def _add_headers(request: Request, call_next: RequestResponseEndpoint) -> Response:
    response = await call_next(request)
    response.headers.update(HEADERS)
    return response


def _report_errors(handler: Handler) -> Handler:
    """A handler that answers an error with a sentence; 400 for a wrong request, 500 for a bug (logged)."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except InputError as error:
            return _error(str(error), 400)
        except ClientDisconnect:
            return _error("The file did not arrive whole.", 400)  # nobody is connected to read it
        except Exception as error:
            logging.getLogger("hyperrecon_jax.explorer").exception("while answering %s", request.url.path)
            return _error(f"The explorer failed ({type(error).__name__}: {error}); this is a bug.", 500)

    return answer


def _error(sentence: str, status: int) -> Response:
    return JSONResponse({"error": sentence}, status)


def _file_response(name: str, content: bytes) -> Response:
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}"}
    return Response(content, media_type="application/octet-stream", headers=headers)


def _planes_response(planes, info):
    """Images as float32, little-endian, with their size and `info` as JSON in a header."""
    return Response(
        planes.astype("<f4").tobytes(),
        media_type="application/octet-stream",
        headers={"X-Info": json.dumps({"height": planes.shape[-2], "width": planes.shape[-1], **info})},
    )


# The parameters of a request; each raises `InputError` if it is missing or malformed.


def _slice_id(request: Request) -> tuple[str, int]:
    """The volume and the index of its slice."""
    return _parameter(request, "volume"), _whole_number(request, "index")


def _acquisition(request: Request) -> str | None:
    """The chosen acquisition, if the request has one."""
    return request.query_params.get("acquisition")


def _is_from_own_page(request: Request) -> bool:
    """Whether a request that changes something comes from no other site."""
    return request.headers.get("origin") in (None, f"{request.url.scheme}://{request.headers['host']}")


def _split_files(body: IO[bytes]) -> list[tuple[str, bytes]]:
    """Names and contents of the files in a body."""
    length = body.seek(0, io.SEEK_END)
    body.seek(0)
    head = body.readline()
    try:
        sizes = [(str(name), int(size)) for name, size in json.loads(head)]
    except (ValueError, TypeError) as error:
        raise InputError("The body must start with a line of JSON, [[name, bytes], ...].") from error
    if not sizes or min(size for _, size in sizes) < 0 or sum(size for _, size in sizes) != length - len(head):
        raise InputError(f"The files must take the {length - len(head)} bytes after the first line.")
    return [(name, body.read(size)) for name, size in sizes]


def _parameter(request: Request, name: str, default: str | None = None) -> str:
    value = request.query_params.get(name, default)
    if value is None:
        raise InputError(f"The request must have a {name}.")
    return value


def _whole_number(request: Request, name: str, default: str | None = None) -> int:
    text = _parameter(request, name, default)
    if not text.isdecimal() or len(text) > 9:
        raise InputError(f"The {name} must be a whole number, got {text[:40]!r}.")
    return int(text)


def _number(request: Request, name: str, default: str) -> float:
    text = _parameter(request, name, default)
    try:
        return float(text)
    except ValueError:
        raise InputError(f"The {name} must be a number, got {text[:40]!r}.") from None


def _parse_lambda(text: str) -> list[float]:
    try:
        return [float(value) for value in text.split(",")]
    except ValueError:
        raise InputError(f"Lambda must be numbers with commas between them, got {text[:40]!r}.") from None
