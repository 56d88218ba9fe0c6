"""A polite request to stop: SIGTERM, as a preempted machine gets it, or Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass
class StopRequest:
    """Whether a signal has come, and which."""

    signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def name(self) -> str:
        """Such as SIGTERM."""
        return signal.Signals(self.signal).name if self.signal is not None else "nothing"


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Notes the first SIGTERM or SIGINT; the next one acts as it would without this.

    In a thread other than the main one, where no handler can be set, nothing is noted.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        request.signal = number
        for one, handler in before.items():
            signal.signal(one, handler)

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
