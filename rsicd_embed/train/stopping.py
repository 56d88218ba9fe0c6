"""Stopping a run gracefully on Ctrl-C, or on SIGTERM as sent to preempted machines."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import FrameType

from rsicd_embed.errors import TrainStoppedError

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Interrupt:
    """A signal that has just arrived.

    Attributes:
        name: its name, such as SIGTERM.
        count: number of signals so far, including this one.
        deferred: whether the run continues until it can stop with a checkpoint.
    """

    name: str
    count: int
    deferred: bool


OnInterrupt = Callable[[Interrupt], object]


@dataclass
class StopRequest:
    """Whether a run was asked to stop; true once a signal was recorded.

    Attributes:
        signal: number of the recorded signal.
        deferred: whether signals are recorded for later; until this is set they act immediately.
    """

    signal: int | None = None
    deferred: bool = False

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def name(self) -> str:
        """Name of the signal."""
        return signal.Signals(self.signal).name if self.signal is not None else "nothing"

    def error(self, done: int, steps: int) -> TrainStoppedError:
        """The error that ends a run of `steps` steps which is checkpointed after `done`."""
        return TrainStoppedError(
            f"stopped by {self.name} after step {done} of {steps}, which is checkpointed; "
            "run the same command again to resume"
        )


@contextmanager
def stop_on_signals(on_interrupt: OnInterrupt | None = None) -> Iterator[StopRequest]:
    """Records the first SIGTERM or SIGINT once `deferred` is set; other signals act as usual.

    Python runs signal handlers on the main thread, between bytecode instructions, so they wait
    while a library compiles a program for a minute. `on_interrupt` does not wait.

    Outside the main thread, where handlers cannot be set, nothing is recorded.

    Args:
        on_interrupt: called immediately with each signal, on a thread of its own.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    handlers = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def record(number: int, frame: FrameType | None) -> None:
        restore()
        handler = handlers[signal.Signals(number)]
        if request.deferred:
            request.signal = number
        elif callable(handler):
            handler(number, frame)
        else:
            os.kill(os.getpid(), number)

    watch = _watch(request, on_interrupt) if on_interrupt else nullcontext()
    with watch:
        for number in SIGNALS:
            signal.signal(number, record)
        try:
            yield request
        finally:
            restore()


@contextmanager
def _watch(request: StopRequest, on_interrupt: OnInterrupt) -> Iterator[None]:
    """Calls `on_interrupt` from a thread that the interpreter wakes with each signal."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)

    def run() -> None:
        count = 0
        while number := reader.recv(1):
            if number[0] in SIGNALS:
                count += 1
                name = signal.Signals(number[0]).name
                on_interrupt(Interrupt(name, count, request.deferred))

    thread = threading.Thread(target=run, name="signals", daemon=True)
    with reader, writer:
        thread.start()
        previous = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(previous)
            writer.shutdown(socket.SHUT_WR)
            thread.join()
