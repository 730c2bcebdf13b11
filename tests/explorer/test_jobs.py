"""Long work behind a request: progress, an end when nobody wants the answer, and a server that answers others meanwhile."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from hyperrecon_jax.explorer import coil_samples, receiving
from hyperrecon_jax.explorer.coil_samples import CoilSamples
from hyperrecon_jax.explorer.jobs import NOBODY, Dropped, Job
from hyperrecon_jax.explorer.measurement import MeasuredKspace
from hyperrecon_jax.explorer.shared_cache import SharedCache
from hyperrecon_jax.runtime.errors import InputError
from tests.explorer.serving import serving, stub_engine

SLICE = {"volume": "test", "index": 0}


class SlowEngine:
    """Searches and slices that go on until a test lets them end, or they are dropped."""

    def __init__(self):
        self.may_end = threading.Event()
        self.started, self.ended = [], []
        self.volumes = SimpleNamespace(add_series=self.add_series, describe=lambda name: {"id": name})
        self.contents = []

    def describe(self):
        return {}

    def wait(self, name, job):
        self.started.append(name)
        try:
            while not self.may_end.wait(0.01):
                job.report(f"Working on {name}", 0.25)
            self.ended.append(f"{name} done")
        except Dropped:
            self.ended.append(f"{name} dropped")
            raise

    def find_best(self, volume, index, metric, *, acquisition, job):
        self.wait(metric, job)
        return [0.5], 1.0

    def input_and_reference(self, volume, index, *, acquisition, job):
        self.wait(f"slice {index}", job)
        return np.zeros((1, 2, 2)), {}

    def add_series(self, files, plane, *, kind, tab):
        self.contents += [(name, len(content)) for name, content in files]
        return [name for name, _ in files]


def wait_until(is_true, seconds=10):
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def slow():
    engine = SlowEngine()
    with serving(engine) as client, ThreadPoolExecutor(8) as pool:
        yield engine, client, lambda *args, **options: pool.submit(client.send, *args, **options)
        engine.may_end.set()


def test_progress_and_the_answer(slow):
    engine, client, later = slow
    assert client.send("GET", "/api/progress", {"job": "one"}).json() == {"words": "", "share": None}
    answer = later("GET", "/api/best", {**SLICE, "metric": "psnr", "job": "one"})
    wait_until(lambda: client.send("GET", "/api/progress", {"job": "one"}).json()["words"] == "Working on psnr")
    assert client.send("GET", "/api/progress", {"job": "one"}).json()["share"] == 0.25
    engine.may_end.set()
    assert answer.result().json() == {"lam": [0.5], "value": 1.0}
    assert client.send("GET", "/api/progress", {"job": "one"}).json()["words"] == ""


def test_a_job_is_dropped_by_its_page(slow):
    engine, client, later = slow
    answer = later("GET", "/api/best", {**SLICE, "metric": "psnr", "job": "one"})
    wait_until(lambda: engine.started)
    assert client.send("POST", "/api/drop", {"job": "another"}).status == 200
    assert client.send("POST", "/api/drop", {"job": "one"}).status == 200
    assert answer.result().status == 409
    assert engine.ended == ["psnr dropped"]


def test_a_job_is_dropped_when_its_connection_ends(slow):
    engine, client, _ = slow
    with socket.create_connection(client.host.split(":")) as connection:
        connection.sendall(
            f"GET /api/slice?volume=test&index=3&token={client.token} HTTP/1.1\r\nHost: {client.host}\r\n\r\n".encode()
        )
        wait_until(lambda: engine.started)
        assert engine.ended == []
    wait_until(lambda: engine.ended == ["slice 3 dropped"])


def test_one_search_at_a_time_and_a_waiting_one_can_be_dropped(slow):
    engine, client, later = slow
    first = later("GET", "/api/best", {**SLICE, "metric": "psnr", "job": "one"})
    wait_until(lambda: engine.started)
    second = later("GET", "/api/best", {**SLICE, "metric": "ssim", "job": "two"})
    words = "Waiting for another search to end"
    wait_until(lambda: client.send("GET", "/api/progress", {"job": "two"}).json()["words"] == words)
    client.send("POST", "/api/drop", {"job": "two"})
    assert second.result().status == 409
    assert engine.started == ["psnr"]
    engine.may_end.set()
    assert first.result().status == 200


def test_a_server_that_ends_drops_its_jobs():
    engine = SlowEngine()
    with ThreadPoolExecutor(1) as pool:
        with serving(engine) as client:
            pool.submit(client.send, "GET", "/api/best", {**SLICE, "metric": "psnr"})
            wait_until(lambda: engine.started)
            start = time.monotonic()
        assert time.monotonic() - start < 5
    wait_until(lambda: engine.ended == ["psnr dropped"])


def test_an_upload_that_stalls_holds_up_nobody_and_ends(slow, monkeypatch):
    engine, client, _ = slow
    monkeypatch.setattr(receiving, "PATIENCE", 1.0)
    with socket.create_connection(client.host.split(":")) as stalled:
        stalled.sendall(
            f"POST /api/volumes?name=a&token={client.token} HTTP/1.1\r\nHost: {client.host}\r\n".encode()
            + b"Content-Length: 999\r\n\r\nab"
        )
        for k in range(3):
            assert client.send("POST", "/api/volumes", {"name": f"{k}.npy"}, b"x" * 3_000_000).status == 200
        assert engine.contents == [(f"{k}.npy", 3_000_000) for k in range(3)]
        stalled.settimeout(30)
        answer = stalled.recv(10_000)
    assert b"408" in answer.partition(b"\r\n")[0]
    assert b"nothing came for 1 seconds" in answer


def test_an_upload_that_is_announced_as_too_large_is_not_read(slow):
    _, client, _ = slow
    with socket.create_connection(client.host.split(":")) as large:
        large.sendall(
            f"POST /api/volumes?name=a&token={client.token} HTTP/1.1\r\nHost: {client.host}\r\n".encode()
            + f"Content-Length: {receiving.MAX_BYTES + 1}\r\n\r\n".encode()
        )
        large.settimeout(30)
        assert b"413" in large.recv(10_000).partition(b"\r\n")[0]


def test_a_full_disk_gets_a_sentence(slow, monkeypatch):
    _, client, _ = slow
    monkeypatch.setattr(receiving, "DISK_RESERVE", 2**62)
    answer = client.send("POST", "/api/volumes", {"name": "a"}, b"x")
    assert answer.status == 400
    assert "its folder for temporary files is nearly full" in answer.json()["error"]


class Process:
    """Stands for a process aside: `started` lists what was started, and how it went on."""

    started: list = []  # noqa: RUF012

    def __init__(self, function, kspace, *, calibration):
        self.kspace, self.is_done, self.is_ended = kspace, threading.Event(), False
        self.started.append(self)

    def is_finished(self):
        return self.is_done.is_set()

    def result(self):
        if self.kspace[0, 0, 0].real == 5:
            raise InputError("Slice 5 is wrong.")
        return np.abs(self.kspace[0]), np.ones_like(self.kspace)

    def end(self):
        self.is_ended = True


@pytest.fixture
def samples(monkeypatch):
    monkeypatch.setattr(coil_samples, "Aside", Process)
    monkeypatch.setattr(Process, "started", [])
    kspace = np.arange(10)[:, None, None, None] * np.ones((1, 2, 4, 4), np.complex64)
    cache, measured = CoilSamples(4), MeasuredKspace(kspace, True, 4, [])
    return lambda index, job=NOBODY: cache.get("volume", index, measured, job)


def test_stepping_through_slices_computes_the_last(samples):
    with ThreadPoolExecutor(10) as pool:
        for index in range(9):
            job = Job()
            answer = pool.submit(samples, index, job)
            wait_until(lambda index=index: len(Process.started) == index + 1)
            job.drop()
            with pytest.raises(Dropped):
                answer.result(timeout=10)
        last = pool.submit(samples, 9)
        wait_until(lambda: len(Process.started) == 10)
        Process.started[-1].is_done.set()
        np.testing.assert_array_equal(last.result(timeout=10).image[..., 0], np.full((4, 4), 9))
    assert [process.is_ended for process in Process.started] == [True] * 9 + [False]
    samples(9)
    assert len(Process.started) == 10


def test_two_that_wait_for_a_slice_share_its_process(samples):
    one, other = Job(), Job()
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(samples, 3, job) for job in (one, other)]
        wait_until(lambda: "Coil sensitivities of slice 3" in one.words and "slice 3" in other.words)
        one.drop()
        with pytest.raises(Dropped):
            answers[0].result(timeout=10)
        (process,) = Process.started
        assert not process.is_ended
        process.is_done.set()
        assert answers[1].result(timeout=10).image.shape == (4, 4, 1)


def test_an_error_of_the_process_is_that_of_the_slice(samples):
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(samples, 5)
        wait_until(lambda: Process.started)
        Process.started[0].is_done.set()
        with pytest.raises(InputError, match="Slice 5 is wrong"):
            answer.result(timeout=10)


def test_a_cache_computes_each_value_once_for_all_threads():
    cache, calls, may_end = SharedCache(2), [], threading.Event()

    def make(key):
        calls.append(key)
        may_end.wait(10)
        if calls.count(key) == 1 and key == "wrong":
            raise ValueError(key)
        return key.upper()

    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(cache.get, "a", lambda: make("a")) for _ in range(4)]
        other = pool.submit(cache.get, "b", lambda: make("b"))  # does not wait for "a"
        wait_until(lambda: set(calls) == {"a", "b"})
        may_end.set()
        assert [answer.result() for answer in (*answers, other)] == ["A"] * 4 + ["B"]
    assert sorted(calls) == ["a", "b"]
    with pytest.raises(ValueError, match="wrong"):
        cache.get("wrong", lambda: make("wrong"))
    assert cache.get("wrong", lambda: make("wrong")) == "WRONG"
    cache.get("c", lambda: "C")
    assert cache.get("wrong", lambda: "kept") == "WRONG"
    assert cache.get("a", lambda: "removed") == "removed"
    cache.clear()
    assert cache.get("b", lambda: "new") == "new"


def test_a_stub_is_enough_of_an_engine():
    with serving(stub_engine()) as client:
        assert client.send("GET", "/api/run").json()["name"] == "stub"
