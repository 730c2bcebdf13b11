"""Signals during work that saves its state; whole runs are in `tests/commands/test_preemption.py`."""

import os
import signal

import pytest

from hyperrecon_jax.runtime.signals import agree_on_stop, defer_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_requests_a_stop_and_the_handlers_come_back(number, capfd):
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with defer_signals() as (is_stop_requested, run_interruptible):
        is_stop_agreed = agree_on_stop(is_stop_requested)
        assert run_interruptible(lambda: 1) == 1
        assert not is_stop_agreed()
        os.kill(os.getpid(), number)
        assert is_stop_agreed()
        assert run_interruptible(lambda: 1) is None
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert capfd.readouterr().err.count("Stopping after this step") == 1


def test_a_signal_interrupts_work_that_can_be_repeated():
    with defer_signals() as (is_stop_requested, run_interruptible):
        assert run_interruptible(lambda: os.kill(os.getpid(), signal.SIGTERM) or 1) is None
        assert is_stop_requested()


def test_a_second_interrupt_acts_at_once(request):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    with defer_signals():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
