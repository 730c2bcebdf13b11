"""The explorer over HTTP: which address has which answer of the engine.

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
    POST /api/restore         volume, tab: the same, for the id of a volume in a link
    POST /api/remove          volume, tab
    GET  /api/progress        job: JSON, how far the job is; a request names its job by job=NAME (`jobs.py`)
    POST /api/drop            job: its answer is not wanted any more

Where a request names a slice, it may also have acquisition=acceleration=4,sigma=0.02,mask=random_lines: how the slice is
measured, for a run with a range of acquisitions.

A wrong request gets a sentence, {"error": ...}, and the server goes on. `access.py` says who gets an answer at all. All
addresses in the page are relative, so it works behind a proxy that adds a path before them.
"""

import asyncio
import json
import logging
import math
import re
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import numpy as np
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
from hyperrecon_jax.explorer.parameters import (
    parse_index,
    parse_lambda,
    parse_lambdas,
    parse_number,
    parse_slice,
    parse_text,
    parse_volume,
    split_files,
)
from hyperrecon_jax.explorer.receiving import MAX_BYTES, UploadRefused, receive_file
from hyperrecon_jax.runtime.errors import InputError

STATIC = Path(__file__).parent / "static"
Handler = Callable[[Request], Awaitable[Response]]
Work = Callable[[Engine, Request, Job], Response]


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

    def job(path: str, work: Work, *, is_long: bool = False) -> Route:
        async def handler(request: Request) -> Response:  # the engine computes in a thread: the server can answer others
            return await jobs.run(request, partial(work, engine, request), is_long=is_long)

        return api(path, handler)

    routes = [
        Route("/", _send_page),
        api("run", _send_run, engine),
        job("slice", _measure_slice),
        job("reconstruct", _reconstruct),
        job("contradiction", _find_contradiction),
        job("diverse", _select_diverse, is_long=True),
        job("best", _find_best, is_long=True),
        job("export", _export_slices),
        job("export-volume", _export_volume),
        job("export-scores", _export_scores),
        api("volumes", _add_volume, engine, parse_slot, method="POST"),
        api("cut", _cut_volume, engine, parse_slot, method="POST"),
        api("restore", _restore_volume, engine, parse_slot, method="POST"),
        api("remove", _remove_volume, engine, method="POST"),
        api("progress", _send_progress, jobs),
        api("drop", _drop_job, jobs, method="POST"),
        Mount("/", StaticFiles(directory=STATIC)),
    ]
    return Starlette(routes=routes, middleware=[Middleware(access.Guard, token=token, names=names)])


# Jobs: what computes an answer of the engine. Each may take long, runs in a thread, and ends if its job is dropped.


def _measure_slice(engine: Engine, request: Request, job: Job) -> Response:
    return _planes_response(*engine.input_and_reference(**parse_slice(request), job=job))


def _reconstruct(engine: Engine, request: Request, job: Job) -> Response:
    job.report("Reconstructing. The first image of a size takes some seconds")  # a program is compiled for it
    return _planes_response(*engine.reconstruct(**parse_slice(request), lam=parse_lambda(request), job=job))


def _find_contradiction(engine: Engine, request: Request, job: Job) -> Response:
    return _planes_response(*engine.contradiction(**parse_slice(request), lam=parse_lambda(request), job=job))


def _select_diverse(engine: Engine, request: Request, job: Job) -> Response:
    count = parse_index(request, "count", "6")
    lams, criterion = engine.select_diverse(**parse_slice(request), count=count, job=job)
    return JSONResponse({"lams": lams, "criterion": criterion})


def _find_best(engine: Engine, request: Request, job: Job) -> Response:
    lam, value = engine.find_best(**parse_slice(request), metric=parse_text(request, "metric"), job=job)
    return JSONResponse({"lam": lam, "value": value if math.isfinite(value) else None})


def _export_slices(engine: Engine, request: Request, job: Job) -> Response:
    name, content = exporting.export_slices(
        engine,
        **parse_slice(request),
        lams=parse_lambdas(request),
        format=parse_text(request, "format"),
        content=parse_text(request, "content", "result"),
        window=parse_number(request, "window", "1"),
        level=parse_number(request, "level", "0.5"),
        job=job,
    )
    return _file_response(name, content)


def _export_volume(engine: Engine, request: Request, job: Job) -> Response:
    name, content = exporting.export_volume(
        engine,
        **parse_volume(request),
        lam=parse_lambda(request),
        format=parse_text(request, "format"),
        content=parse_text(request, "content", "result"),
        job=job,
    )
    return _file_response(name, content)


def _export_scores(engine: Engine, request: Request, job: Job) -> Response:
    return _file_response(*exporting.export_scores(engine, **parse_volume(request), lam=parse_lambda(request), job=job))


# The other answers


async def _send_page(request: Request) -> Response:
    """The page. Asked for with a token, its files have it, too: in a frame a browser may keep no cookie."""
    token = request.query_params.get("token")
    if token is None:
        return FileResponse(STATIC / "index.html")
    text = (STATIC / "index.html").read_text(encoding="utf-8")
    return HTMLResponse(re.sub(r'((?:href|src)="[\w.]+\.(?:css|js))"', rf'\1?token={quote(token, safe="")}"', text))


async def _send_run(engine: Engine, request: Request) -> Response:
    tab, linked = parse_text(request, "tab", ""), parse_text(request, "volume", "")
    description = await run_in_threadpool(engine.describe, tab, linked)
    return JSONResponse(description | {"max_upload_bytes": MAX_BYTES})


async def _send_progress(jobs: Jobs, request: Request) -> Response:
    return JSONResponse(jobs.describe(parse_text(request, "job")))


async def _drop_job(jobs: Jobs, request: Request) -> Response:
    jobs.drop(parse_text(request, "job"))
    return JSONResponse({})


async def _cut_volume(engine: Engine, parse_slot: asyncio.Semaphore, request: Request) -> Response:
    plane, frame = parse_text(request, "plane"), parse_index(request, "frame", "0")
    return await _open_again(engine, parse_slot, request, partial(engine.volumes.cut_again, plane=plane, frame=frame))


async def _restore_volume(engine: Engine, parse_slot: asyncio.Semaphore, request: Request) -> Response:
    return await _open_again(engine, parse_slot, request, engine.volumes.restore)


async def _open_again(
    engine: Engine, parse_slot: asyncio.Semaphore, request: Request, read: Callable[..., list[str]]
) -> Response:
    volume, tab = parse_text(request, "volume"), parse_text(request, "tab", "")
    async with parse_slot:
        ids = await run_in_threadpool(read, volume, tab=tab)
    return JSONResponse([engine.volumes.describe(volume) for volume in ids])


async def _remove_volume(engine: Engine, request: Request) -> Response:
    engine.volumes.remove(parse_text(request, "volume"), tab=parse_text(request, "tab", ""))
    return JSONResponse({})


async def _add_volume(engine: Engine, parse_slot: asyncio.Semaphore, request: Request) -> Response:
    has_files = parse_text(request, "files", "") != ""
    name, kind = parse_text(request, "name", "" if has_files else None), parse_text(request, "kind", "image")
    plane, tab = parse_text(request, "plane", "acquired"), parse_text(request, "tab", "")

    def add(body: IO[bytes]) -> Response:
        files = split_files(body) if has_files else [(name, body.read())]
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


def _planes_response(planes: np.ndarray, info: dict[str, Any]) -> Response:
    """Images as float32, little-endian, with their size and `info` as JSON in a header."""
    return Response(
        planes.astype("<f4").tobytes(),
        media_type="application/octet-stream",
        headers={"X-Info": json.dumps({"height": planes.shape[-2], "width": planes.shape[-1], **info})},
    )
