"""Signals that ask a run to stop."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading

import pytest

from rsicd_embed.train.stopping import SIGNALS, Interrupt, stop_on_signals

_AT_MOST_S = 600  # far more than a reply takes on a busy machine


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("deferred", [True, False])
def test_the_first_signal_is_recorded_and_the_next_acts(
    number: signal.Signals, deferred: bool
) -> None:
    class ActedError(Exception):
        pass

    def act(*_: object) -> None:
        raise ActedError

    before = signal.signal(number, act)
    try:
        with stop_on_signals() as stop:
            stop.deferred = deferred
            if deferred:
                os.kill(os.getpid(), number)
                assert stop
                assert stop.name == number.name
            with pytest.raises(ActedError):
                os.kill(os.getpid(), number)
            assert bool(stop) == deferred
        assert signal.getsignal(number) is act
    finally:
        signal.signal(number, before)


def test_a_signal_is_acknowledged_during_a_long_native_call() -> None:
    """As during compilation, when Python runs no signal handlers."""
    answers: list[Interrupt] = []
    reader, writer = os.pipe()

    def answer(interrupt: Interrupt) -> None:
        answers.append(interrupt)
        os.write(writer, b".")

    woken = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(woken)
    with stop_on_signals(answer) as stop:
        stop.deferred = True
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # another thread receives it
        try:
            for count in (1, 2):
                os.kill(os.getpid(), signal.SIGINT)
                assert select.select([reader], [], [], _AT_MOST_S)[0]
                os.read(reader, 1)
                assert answers[-1] == Interrupt("SIGINT", count, deferred=True)
                if count == 1:
                    assert stop.name == "SIGINT"
                    signal.signal(signal.SIGINT, lambda *_: None)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    assert signal.set_wakeup_fd(woken) == woken
    os.close(reader)
    os.close(writer)


STUCK = """
import signal, sys, threading
from rsicd_embed.cli.train.train_run import ShownProgress
from rsicd_embed.train.stopping import stop_on_signals

with ShownProgress(8, 1, 1, 1) as shown, stop_on_signals(shown.on_interrupt) as stop:
    stop.deferred = True
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    print("ready", flush=True)
    sys.stdin.read()  # a library call that never returns
"""


def test_a_second_ctrl_c_ends_a_stuck_process() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STUCK], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == (
            "SIGINT: stopping after this step or evaluation, with a checkpoint; "
            "press Ctrl-C again to stop immediately\n"
        )
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline().startswith("SIGINT again: stopped immediately; the same")
        assert process.wait(_AT_MOST_S) == 130


def test_nothing_is_recorded_in_another_thread() -> None:
    seen = []

    def run() -> None:
        with stop_on_signals() as stop:
            seen.append(bool(stop))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [False]
