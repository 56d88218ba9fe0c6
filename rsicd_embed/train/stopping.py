"""A polite request to stop: SIGTERM, as a preempted machine gets it, or Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Interrupt:
    """A signal that has just arrived.

    Attributes:
        name: such as SIGTERM.
        count: 1 for the first one of a run, 2 for the next.
        deferred: whether the run goes on until it can stop with a checkpoint.
    """

    name: str
    count: int
    deferred: bool


OnInterrupt = Callable[[Interrupt], object]


@dataclass
class StopRequest:
    """Whether a signal has come, and which.

    Attributes:
        signal: its number.
        deferred: whether a signal is noted for later; until this is set, each acts at once.
    """

    signal: int | None = None
    deferred: bool = False

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def name(self) -> str:
        """Such as SIGTERM."""
        return signal.Signals(self.signal).name if self.signal is not None else "nothing"


@contextmanager
def stop_on_signals(on_interrupt: OnInterrupt | None = None) -> Iterator[StopRequest]:
    """Notes the first SIGTERM or SIGINT once `deferred` is set; others act as without this.

    Python runs signal handlers on the main thread, and only between its own instructions: not
    while a library compiles a program for a minute. `on_interrupt` does not wait for that.

    In a thread other than the main one, where no handler can be set, nothing is noted.

    Args:
        on_interrupt: called at once with each signal, on a thread of its own.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        restore()
        handler = before[signal.Signals(number)]
        if request.deferred:
            request.signal = number
        elif callable(handler):
            handler(number, frame)
        else:
            os.kill(os.getpid(), number)

    watch = _watch(request, on_interrupt) if on_interrupt else nullcontext()
    with watch:
        for number in SIGNALS:
            signal.signal(number, note)
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
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            writer.shutdown(socket.SHUT_WR)
            thread.join()
