"""Long work for a page: how far it is, and an end to it as soon as nobody wants the answer any more.

The request of a page names its job (`job=NAME`, a random name). Until the answer comes, the page may ask how far the job
is, and drop it. A job is also dropped when the connection of its request ends, and when the server ends.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import anyio
from starlette.requests import Request

T = TypeVar("T")


class Dropped(Exception):
    """Nobody wants the answer of a job any more."""


class Job:
    """Long work for one request. The work reports how far it is, and ends by `Dropped` where it reports or checks."""

    def __init__(self) -> None:
        self.words = ""  # what is being done
        self.share: float | None = None  # in [0, 1]; None: not known
        self._is_dropped = threading.Event()

    def report(self, words: str, share: float | None = None) -> None:
        """Say what is being done, and how much of it is done; raises `Dropped` if the job was dropped."""
        self.words, self.share = words, share
        self.check()

    def check(self) -> None:
        """Raise `Dropped` if the job was dropped."""
        if self._is_dropped.is_set():
            raise Dropped

    def drop(self) -> None:
        """Ask the work to end; its answer is not wanted any more."""
        self._is_dropped.set()


NOBODY = Job()  # of work that no page waits for: it is never dropped
_running: set[Job] = set()  # jobs whose work a thread does


class Jobs:
    """The jobs of all pages, by name."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._long_slot = asyncio.Semaphore(1)

    async def run(self, request: Request, work: Callable[[Job], T], *, is_long: bool = False) -> T:
        """The result of `work(job)`, which runs in a thread.

        Args:
            request: its connection and its parameter `job` decide how long the answer is wanted.
            work: what to do.
            is_long: of such work one runs at a time; the others wait.

        Raises:
            Dropped: if the answer is not wanted any more.
        """
        job, name = Job(), request.query_params.get("job", "")
        if name:
            self._jobs[name] = job
        watcher = asyncio.create_task(_drop_when_disconnected(request, job))
        try:
            if not is_long:
                return await _run_in_thread(work, job)
            job.words = "Waiting for another search to end"
            while self._long_slot.locked():
                job.check()
                await asyncio.sleep(0.05)
            async with self._long_slot:
                return await _run_in_thread(work, job)
        finally:
            job.drop()
            watcher.cancel()
            if self._jobs.get(name) is job:
                del self._jobs[name]

    def describe(self, name: str) -> dict[str, Any]:
        """How far a job is, for the page; no words before it has started and after its end."""
        job = self._jobs.get(name)
        return {"words": "", "share": None} if job is None else {"words": job.words, "share": job.share}

    def drop(self, name: str) -> None:
        """Drop a job, if there is one of this name."""
        if name in self._jobs:
            self._jobs[name].drop()


def end_all() -> None:
    """Drop the jobs of all servers of this process and wait for their threads; for the end of the process."""
    while _running:
        for job in list(_running):
            job.drop()
        time.sleep(0.01)


async def _run_in_thread(work: Callable[[Job], T], job: Job) -> T:
    # abandoned when the server ends: it would wait for the thread otherwise
    return await anyio.to_thread.run_sync(_run_counted, work, job, abandon_on_cancel=True)


def _run_counted(work: Callable[[Job], T], job: Job) -> T:
    _running.add(job)
    try:
        return work(job)
    finally:
        _running.discard(job)


async def _drop_when_disconnected(request: Request, job: Job) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    job.drop()
