"""Signals that ask a run to stop."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from rsicd_embed.train.stopping import SIGNALS, stop_on_signals


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_noted_and_the_second_acts(number: signal.Signals) -> None:
    class ActedError(Exception):
        pass

    def act(*_: object) -> None:
        raise ActedError

    before = signal.signal(number, act)
    try:
        with stop_on_signals() as stop:
            assert not stop
            os.kill(os.getpid(), number)
            assert stop
            assert stop.name == number.name
            with pytest.raises(ActedError):
                os.kill(os.getpid(), number)
        assert signal.getsignal(number) is act
    finally:
        signal.signal(number, before)


def test_in_another_thread_nothing_is_noted() -> None:
    seen = []

    def run() -> None:
        with stop_on_signals() as stop:
            seen.append(bool(stop))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [False]
