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
    GET  /api/progress        job: JSON, how far the job is; a request names its job by job=NAME (`jobs.py`)
    POST /api/drop            job: its answer is not wanted any more

Where a request names a slice, it may also have acquisition=acceleration=4,sigma=0.02,mask=random_lines: how the slice is
measured, for a run with a range of acquisitions.

A wrong request gets a sentence, {"error": ...}, and the server goes on. `access.py` says who gets an answer at all. All
addresses in the page are relative, so it works behind a proxy that adds a path before them.
"""

import asyncio
import io
import json
import logging
import math
import re
import socket
import threading
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import IO
from urllib.parse import quote

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from hyperrecon_jax.explorer import access, exporting
from hyperrecon_jax.explorer.engine import Engine
from hyperrecon_jax.explorer.jobs import Dropped, Job, Jobs
from hyperrecon_jax.explorer.receiving import MAX_BYTES, UploadRefused, receive_file
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.runtime.interrupts import BACKGROUND

STATIC = Path(__file__).parent / "static"
Handler = Callable[[Request], Awaitable[Response]]


def app(engine: Engine, *, token: str, names: frozenset[str] = access.LOOPBACK) -> Starlette:
    """The application.

    Args:
        engine: computes the answers.
        token: who asks must have it.
        names: of the server, for browsers, as by `access.find_names`.
    """
    jobs, parse_slot = Jobs(), asyncio.Semaphore(1)

    def api(path: str, handler: Callable[..., Awaitable[Response]], *args: object, method: str = "GET") -> Route:
        return Route(f"/api/{path}", _report_errors(partial(handler, *args)), methods=[method])

    routes = [
        Route("/", _send_page),
        api("run", _send_run, engine),
        api("slice", _send_slice, engine, jobs),
        api("reconstruct", _send_reconstruction, engine, jobs),
        api("contradiction", _send_contradiction, engine, jobs),
        api("diverse", _send_diverse, engine, jobs),
        api("best", _send_best, engine, jobs),
        api("export", _send_export, engine, jobs),
        api("export-volume", _send_volume, engine, jobs),
        api("export-scores", _send_scores, engine, jobs),
        api("volumes", _add_volume, engine, parse_slot, method="POST"),
        api("cut", _cut_volume, engine, parse_slot, method="POST"),
        api("remove", _remove_volume, engine, method="POST"),
        api("progress", _send_progress, jobs),
        api("drop", _drop_job, jobs, method="POST"),
        Mount("/", StaticFiles(directory=STATIC)),
    ]
    return Starlette(routes=routes, middleware=[Middleware(access.Guard, token=token, names=names)])


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
    """The server of `app`, to be started on a socket. Its log is silent: what goes wrong in a request is logged here."""
    config = uvicorn.Config(
        app(engine, token=token, names=names),
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


# The handlers of the routes. The engine computes in threads, so that the server can answer others meanwhile.


async def _send_page(request: Request) -> Response:
    """The page. Asked for with a token, its files have it, too: in a frame a browser may keep no cookie."""
    token = request.query_params.get("token")
    if token is None:
        return FileResponse(STATIC / "index.html")
    text = (STATIC / "index.html").read_text(encoding="utf-8")
    return HTMLResponse(re.sub(r'((?:href|src)="[\w.]+\.(?:css|js))"', rf'\1?token={quote(token, safe="")}"', text))


async def _send_run(engine: Engine, request: Request) -> Response:
    tab, linked = _parameter(request, "tab", ""), _parameter(request, "volume", "")
    description = await run_in_threadpool(engine.describe, tab, linked)
    return JSONResponse(description | {"max_upload_bytes": MAX_BYTES})


async def _send_slice(engine: Engine, jobs: Jobs, request: Request) -> Response:
    (volume, index), acquisition = _slice_id(request), _acquisition(request)

    def compute(job: Job) -> Response:
        return _planes_response(*engine.input_and_reference(volume, index, acquisition=acquisition, job=job))

    return await jobs.run(request, compute)


async def _send_reconstruction(engine: Engine, jobs: Jobs, request: Request) -> Response:
    (volume, index), acquisition = _slice_id(request), _acquisition(request)
    lam = _parse_lambda(_parameter(request, "lam"))

    def compute(job: Job) -> Response:
        return _planes_response(*engine.reconstruct(volume, index, lam, acquisition=acquisition, job=job))

    return await jobs.run(request, compute)


async def _send_contradiction(engine: Engine, jobs: Jobs, request: Request) -> Response:
    (volume, index), acquisition = _slice_id(request), _acquisition(request)
    lam = _parse_lambda(_parameter(request, "lam"))

    def compute(job: Job) -> Response:
        return _planes_response(*engine.contradiction(volume, index, lam, acquisition=acquisition, job=job))

    return await jobs.run(request, compute)


async def _send_diverse(engine: Engine, jobs: Jobs, request: Request) -> Response:
    (volume, index), acquisition = _slice_id(request), _acquisition(request)
    count = _whole_number(request, "count", "6")

    def compute(job: Job) -> Response:
        lams, criterion = engine.select_diverse(volume, index, count, acquisition=acquisition, job=job)
        return JSONResponse({"lams": lams, "criterion": criterion})

    return await jobs.run(request, compute, is_long=True)


async def _send_best(engine: Engine, jobs: Jobs, request: Request) -> Response:
    (volume, index), acquisition = _slice_id(request), _acquisition(request)
    metric = _parameter(request, "metric")

    def compute(job: Job) -> Response:
        lam, value = engine.find_best(volume, index, metric, acquisition=acquisition, job=job)
        return JSONResponse({"lam": lam, "value": value if math.isfinite(value) else None})

    return await jobs.run(request, compute, is_long=True)


async def _send_export(engine: Engine, jobs: Jobs, request: Request) -> Response:
    (volume, index), acquisition = _slice_id(request), _acquisition(request)
    lams = [_parse_lambda(text) for text in request.query_params.getlist("lam")]
    format, content = _parameter(request, "format"), _parameter(request, "content", "result")
    window, level = _number(request, "window", "1"), _number(request, "level", "0.5")
    export = partial(exporting.export_slices, engine, volume, index, lams, format, content=content)

    def compute(job: Job) -> Response:
        return _file_response(*export(window=window, level=level, acquisition=acquisition, job=job))

    return await jobs.run(request, compute)


async def _send_volume(engine: Engine, jobs: Jobs, request: Request) -> Response:
    volume, lam = _parameter(request, "volume"), _parse_lambda(_parameter(request, "lam"))
    format, content = _parameter(request, "format"), _parameter(request, "content", "result")
    export = partial(exporting.export_volume, engine, volume, lam, format, content=content)
    acquisition = _acquisition(request)

    def compute(job: Job) -> Response:
        return _file_response(*export(acquisition=acquisition, job=job))

    return await jobs.run(request, compute)


async def _send_scores(engine: Engine, jobs: Jobs, request: Request) -> Response:
    volume, lam = _parameter(request, "volume"), _parse_lambda(_parameter(request, "lam"))
    acquisition = _acquisition(request)

    def compute(job: Job) -> Response:
        return _file_response(*exporting.export_scores(engine, volume, lam, acquisition=acquisition, job=job))

    return await jobs.run(request, compute)


async def _send_progress(jobs: Jobs, request: Request) -> Response:
    return JSONResponse(jobs.describe(_parameter(request, "job")))


async def _drop_job(jobs: Jobs, request: Request) -> Response:
    jobs.drop(_parameter(request, "job"))
    return JSONResponse({})


async def _cut_volume(engine: Engine, parse_slot: asyncio.Semaphore, request: Request) -> Response:
    cut_again = partial(engine.volumes.cut_again, _parameter(request, "volume"), plane=_parameter(request, "plane"))
    frame, tab = _whole_number(request, "frame", "0"), _parameter(request, "tab", "")
    async with parse_slot:
        ids = await run_in_threadpool(cut_again, frame=frame, tab=tab)
    return JSONResponse([engine.volumes.describe(volume) for volume in ids])


async def _remove_volume(engine: Engine, request: Request) -> Response:
    engine.volumes.remove(_parameter(request, "volume"), tab=_parameter(request, "tab", ""))
    return JSONResponse({})


async def _add_volume(engine: Engine, parse_slot: asyncio.Semaphore, request: Request) -> Response:
    has_files = _parameter(request, "files", "") != ""
    name, kind = _parameter(request, "name", "" if has_files else None), _parameter(request, "kind", "image")
    plane, tab = _parameter(request, "plane", "acquired"), _parameter(request, "tab", "")

    def add(body: IO[bytes]) -> Response:
        files = _split_files(body) if has_files else [(name, body.read())]
        added = engine.volumes.add_series(files, plane, kind=kind, tab=tab)
        described = [engine.volumes.describe(volume) for volume in added]
        return JSONResponse(described if has_files else described[0])

    async with receive_file(request) as file, parse_slot:
        return await run_in_threadpool(add, file)


def _report_errors(handler: Handler) -> Handler:
    """A handler that answers an error with a sentence; 400 for a wrong request, 500 for a bug (logged)."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except InputError as error:
            return _error(str(error), 400)
        except UploadRefused as refusal:
            return _error(str(refusal), refusal.status)
        except Dropped:
            return _error("The answer was not wanted any more.", 409)
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
