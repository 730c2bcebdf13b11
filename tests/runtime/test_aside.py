"""Calls in processes of their own: results, errors, an end at once, and what remains when one is killed."""

import operator
import os
import time

import psutil
import pytest

from hyperrecon_jax.runtime.aside import Aside
from hyperrecon_jax.runtime.errors import InputError


def wait_for(aside):
    end = time.monotonic() + 60
    while not aside.is_finished():
        assert time.monotonic() < end
        time.sleep(0.01)
    return aside


def test_a_result_and_an_error():
    assert wait_for(Aside(operator.mul, "ab", 2)).result() == "abab"
    assert wait_for(Aside(int, "11", base=2)).result() == 3
    assert wait_for(Aside(os.getpriority, os.PRIO_PROCESS, 0)).result() > os.getpriority(os.PRIO_PROCESS, 0)
    with pytest.raises(ZeroDivisionError):
        wait_for(Aside(operator.truediv, 1, 0)).result()


def test_an_end_and_a_process_that_is_killed():
    sleeping = Aside(time.sleep, 1000)
    assert not sleeping.is_finished()
    process = psutil.Process(sleeping._process.pid)
    start = time.monotonic()
    sleeping.end()
    assert time.monotonic() - start < 5
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    killed = Aside(os.abort)
    with pytest.raises(InputError, match="its process was ended from outside"):
        wait_for(killed).result()
