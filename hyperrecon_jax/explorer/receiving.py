"""Files that are sent to the server.

They arrive in temporary files on the disk, each as slowly as it likes, so that none waits for another. Only a file that has
arrived whole is read into memory, and one at a time. So all uploads together take the memory of one.
"""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from typing import IO

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from hyperrecon_jax.runtime.errors import InputError

MAX_BYTES = 2**29  # of one upload
PATIENCE = 30.0  # seconds without a byte after which an upload ends
WRITE_BYTES = 2**20  # are collected before they are written
DISK_RESERVE = 2**28  # bytes of the disk that stay free


class UploadRefused(Exception):
    """An upload ends early: what to say, and the status of the answer."""

    def __init__(self, sentence: str, status: int):
        super().__init__(sentence)
        self.status = status


@contextlib.asynccontextmanager
async def receive_file(request: Request) -> AsyncIterator[IO[bytes]]:
    """A context with the body of a request as a temporary file, at its start.

    Raises:
        UploadRefused: if the body is too large, or no byte came for `PATIENCE` seconds.
        InputError: if the disk has no room for it.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > MAX_BYTES:
        raise _too_large()
    with tempfile.TemporaryFile(prefix="hyperrecon-") as file:
        try:
            await _write_body(request, file)
        except OSError as error:
            raise InputError(f"The file cannot be kept on the disk of the server: {error.strerror}.") from error
        file.seek(0)
        yield file


async def _write_body(request: Request, file: IO[bytes]) -> None:
    stream, size, collected = request.stream(), 0, bytearray()
    while True:
        try:
            chunk = await asyncio.wait_for(anext(stream, b""), PATIENCE)
        except TimeoutError:
            raise UploadRefused(
                f"The file did not arrive: nothing came for {PATIENCE:.0f} seconds. Send it again.", 408
            ) from None
        size += len(chunk)
        if size > MAX_BYTES:
            raise _too_large()
        collected += chunk
        if collected and (len(collected) >= WRITE_BYTES or not chunk):
            await run_in_threadpool(_write, file, bytes(collected))
            collected.clear()
        if not chunk:
            return


def _write(file: IO[bytes], content: bytes) -> None:
    if shutil.disk_usage(tempfile.gettempdir()).free < DISK_RESERVE + len(content):
        raise OSError(28, "its folder for temporary files is nearly full")
    file.write(content)


def _too_large() -> UploadRefused:
    return UploadRefused(f"The file is larger than {MAX_BYTES // 2**20} MiB, the most that the explorer takes.", 413)
