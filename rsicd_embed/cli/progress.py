"""Progress on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from rsicd_embed.cli.base import note, on_terminal
from rsicd_embed.cli.terminal_text import printable

_LINE_EVERY_S = 10.0


class _Rate(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:.1f} {self._unit}/s")


class _Interval:
    """Limits lines in a log to one in ten seconds."""

    def __init__(self) -> None:
        self._shown = time.perf_counter()

    def over(self) -> bool:
        """Whether a line is due; if so, the next interval starts."""
        now = time.perf_counter()
        due = now - self._shown >= _LINE_EVERY_S
        if due:
            self._shown = now
        return due


def teller() -> Callable[[str], None]:
    """A function that prints what is being done: always on a terminal, now and then elsewhere."""
    interval = _Interval()

    def tell(doing: str) -> None:
        if on_terminal() or interval.over():
            note(doing)

    return tell


@contextmanager
def image_progress(what: str, total: int, unit: str = "images") -> Iterator[Callable[[int], None]]:
    """Yields what is to be called with the number of images, or other units, just done."""
    with meter(what, total, unit) as one:
        yield one.advance


class Meter(Protocol):
    """Shows how far something is."""

    def advance(self, done: int, what: str | None = None) -> None:
        """So many units are just done; `what` is now being done, if it changes."""

    def tell(self, line: str) -> None:
        """A line that stays."""


@contextmanager
def meter(what: str, total: int, unit: str, *, done: int = 0) -> Iterator[Meter]:
    """A meter that starts with `done` units done, perhaps in an earlier run."""
    if not on_terminal():
        yield _Lines(what, total, unit, done)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(unit),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield _Bar(bar, bar.add_task(what, total=total, completed=done))


class _Bar:
    """For terminals."""

    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar, self._task = bar, task

    def advance(self, done: int, what: str | None = None) -> None:
        self._bar.update(self._task, advance=done, description=what)

    def tell(self, line: str) -> None:
        self._bar.console.print(printable(line), markup=False, highlight=False)


class _Lines:
    """For logs: at most one line in ten seconds."""

    def __init__(self, what: str, total: int, unit: str, done: int) -> None:
        self._what, self._total, self._unit, self._done = what, total, unit, done
        self._before = done
        self._started, self._interval = time.perf_counter(), _Interval()

    def tell(self, line: str) -> None:
        note(line)

    def advance(self, done: int, what: str | None = None) -> None:
        self._done += done
        self._what = what or self._what
        if self._interval.over():
            rate = (self._done - self._before) / (time.perf_counter() - self._started)
            left = (self._total - self._done) / rate
            note(
                f"{self._what}: {self._done}/{self._total}, {rate:.1f} {self._unit}/s, "
                f"ETA {left:.0f} s"
            )
