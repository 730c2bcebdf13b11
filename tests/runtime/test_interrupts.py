"""Ctrl-C and SIGTERM as an exception that is not lost; whole commands are in `tests/faults/test_signals.py`."""

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import time

import pytest
from helper import ROOT

from hyperrecon_jax.runtime import interrupts

NUMBERS = signal.SIGINT, signal.SIGTERM, signal.SIGALRM


@pytest.fixture
def is_interrupted(monkeypatch):
    """What `end_on_signals` returns; afterwards everything is as before."""
    handlers = {number: signal.getsignal(number) for number in NUMBERS}
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    yield interrupts.end_on_signals()
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in handlers.items():
        signal.signal(number, handler)


class Signals:
    """Sends SIGTERM in a callback: Python drops an exception that is raised there."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)


def wait(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)


def test_an_interruption_that_is_dropped_is_raised_again(is_interrupted):
    def work():
        signals = Signals()
        assert not is_interrupted()
        del signals
        assert is_interrupted()
        wait(2)

    with pytest.raises(KeyboardInterrupt):
        work()


def test_it_is_not_raised_again_while_it_is_being_handled(is_interrupted):
    steps = []

    def work():
        try:
            try:
                os.kill(os.getpid(), signal.SIGINT)
            finally:
                wait(3 * interrupts.RAISE_AGAIN_AFTER)
                steps.append("finally")
        except KeyboardInterrupt:
            wait(3 * interrupts.RAISE_AGAIN_AFTER)
            steps.append("except")
            raise

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == ["finally", "except"]


def test_it_is_raised_again_where_it_was_caught_and_forgotten(is_interrupted):
    with contextlib.suppress(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        wait(2)


def test_an_import_is_finished_before_the_interruption(is_interrupted, tmp_path, monkeypatch):
    """JAX's libraries abort the process if their import is interrupted."""
    code = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(0.5)\nIS_WHOLE = True\n"
    (tmp_path / "slow_to_import.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    steps = []

    def work():
        module = importlib.import_module("slow_to_import")
        steps.append(module.IS_WHOLE)
        wait(2)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == [True]


def test_two_signals_at_once_are_one_and_a_later_one_ends_the_process():
    code = """if True:
        import os, signal, time
        from hyperrecon_jax.runtime import interrupts
        interrupts.end_on_signals()
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            os.kill(os.getpid(), signal.SIGTERM)
            print("goes on", flush=True)
            time.sleep(1.2)
            os.kill(os.getpid(), signal.SIGTERM)
            print("never")
    """
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (130, "goes on\n", "error: interrupted.\n")


def test_a_slow_end_of_python_keeps_the_status():
    """The timer must not ring after Python has taken the handlers away."""
    code = """if True:
        import ctypes, sys
        from hyperrecon_jax.runtime import interrupts
        interrupts.end_on_signals()
        interrupts.EXIT_PATIENCE = 0.3

        class Slow:
            def __del__(self, sleep=ctypes.CDLL(None).usleep):
                sleep(800_000)

        sys.slow = Slow()
        interrupts.finish(interrupts.STATUS)
        sys.exit(interrupts.STATUS)
    """
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 130


def test_an_interruption_inside_of_exec_keeps_the_status(tmp_path):
    """As while a dataclass is made; only `python -m` had the fault."""
    code = """if True:
        import sys
        from hyperrecon_jax.runtime import interrupts
        try:
            exec("raise KeyboardInterrupt")
        except KeyboardInterrupt:
            interrupts.finish(interrupts.STATUS)
        sys.exit(interrupts.STATUS)
    """
    (tmp_path / "interrupted.py").write_text(code)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT)))}
    assert subprocess.run([sys.executable, "-m", "interrupted"], timeout=60, check=False, env=env).returncode == 130
